"""The label formats by name. A format is one function, `read(source) -> Stated`, in a module of its own:

class MineSource(Source):                          # keys of a split in addition to those of every format
    annotations: str

def read(source: MineSource) -> Stated: ...

SOURCES = {"mine": read}
"""

import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import SerializeAsAny, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError

from rayprob.data.sources import coco, folder_labels, huggingface, table, voc, webdataset, yolo
from rayprob.data.sources.groups import with_groups
from rayprob.data.sources.rows import Stated, in_full
from rayprob.data.sources.spec import DEFAULT, Source
from rayprob.registry import PartTable, unknown


def read(source: Source) -> Stated:
    """Return the labels of a source, read by its format. Raises SourceError."""
    stated = SOURCES[source.format](source)
    return with_groups(replace(stated, batches=in_full(stated.batches, source.described)), source)


def spec_of(name: object) -> type[Source]:
    """Return the keys of a format: the type of its reader's parameter. Raises a ValidationError with the nearest names."""
    if not isinstance(name, str) or name not in SOURCES:
        raise _fault_at(("format",), unknown(str(name), SOURCES, "format"), name)
    spec: type[Source] = typing.get_type_hints(SOURCES[name])["source"]
    return spec


def _as_its_format(value: Any, handler: ValidatorFunctionWrapHandler) -> Source:
    if not isinstance(value, dict):
        return handler(value)  # type: ignore[no-any-return]
    name = value.get("format", DEFAULT)
    spec = spec_of(name)
    foreign = [str(key) for key in value if key not in spec.model_fields]
    if foreign:
        keys = ["images", *(key for key in spec.model_fields if key != "images")]
        raise _fault_at((), unknown(foreign[0], keys, f"key of format {name}:"), foreign[0])
    return spec.model_validate(value)


def _fault_at(place: tuple[str, ...], message: str, found: Any) -> ValidationError:
    kind = PydanticCustomError("said_whole", "{message}", {"message": message})
    return ValidationError.from_exception_data("source", [InitErrorDetails(type=kind, loc=place, input=found)])


AnySource = Annotated[SerializeAsAny[Source], WrapValidator(_as_its_format)]

SOURCES: PartTable[Callable[..., Stated]] = PartTable(
    "SOURCES",
    {
        "coco": coco.read,
        "table": table.read,
        "voc": voc.read,
        "yolo": yolo.read,
        "folders": folder_labels.read,
        "huggingface": huggingface.read,
        "webdataset": webdataset.read,
    },
)
