"""A part of a run file that is chosen by name and has options of its own: a head, a loss, an optimizer, a schedule.

    class WideSpec(HeadSpec):                                      # the options of this head, besides those of every head
        width: int = 8

    class WideHead(Head):
        def __init__(self, num_features: int, num_labels: int, spec: WideSpec, start: Start) -> None: ...

    HEADS = {"wide": WideHead}

So `head: {name: wide, width: 16}` in a run file becomes a WideSpec: the type of the parameter `spec` of the part that `name`
chooses defines which options it takes.
"""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from pydantic import (
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic._internal._model_construction import ModelMetaclass  # type(BaseModel), which mypy must know by its name
from pydantic.fields import FieldInfo

from rayprob.config.field_values import fitted
from rayprob.config.spec import Spec, fault_at
from rayprob.config.strict_yaml import plain
from rayprob.errors import SpecError
from rayprob.registry import unknown


class _PartType(ModelMetaclass):
    """Calling a kind creates the spec of the part that `name` chooses; pydantic creates instances without a call."""

    def __call__(self, **values: Any) -> Any:
        kind = cast("type[PartSpec]", self)
        part = kind.of(values.get("name", kind.model_fields["name"].default))
        return ModelMetaclass.__call__(part, **values)


class PartSpec(Spec, metaclass=_PartType):
    """The options of a part. A kind of part (`HeadSpec`) has a `table`; the specs of its parts derive from it.

    Creating the kind creates the spec of the part, as `pathlib.Path` creates a `PosixPath`: HeadSpec(name="mixture",
    components=4) is a MixtureSpec. An option that only other parts have is an error, unless it has its default value.
    """

    if TYPE_CHECKING:  # the options depend on the name

        def __init__(self, **values: Any) -> None: ...

    name: str
    kind: ClassVar[str]  # in messages: "head"
    # What 0.1 wrote for every part of the kind, in its order and with other parts' options, so that files do not change.
    as_written: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @classmethod
    def table(cls) -> Mapping[str, Callable[..., Any]]:
        """Return the parts of this kind by name."""
        raise NotImplementedError

    @classmethod
    def of(cls, name: object) -> type[Self]:
        """Return the spec of the part `name`; the kind itself for a part without options, and for an unknown name."""
        is_kind = "table" in vars(cls)
        part = cls.table().get(name) if is_kind and isinstance(name, str) else None
        return cls if part is None else spec_of(part, cls)

    @classmethod
    def options(cls) -> list[str]:
        """Return the options that the part takes, besides its name."""
        return [key for key in cls.model_fields if key != "name"]

    @classmethod
    def every_field(cls) -> dict[str, FieldInfo]:
        """Return the fields of this kind and of all its parts."""
        parts = [cls.of(name) for name in cls.table()] if "table" in vars(cls) else []
        return {name: field for part in (*parts, cls) for name, field in part.model_fields.items()}

    @model_validator(mode="wrap")
    @classmethod
    def _as_its_part(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, dict):
            return handler(value)
        name = cls._name_in(value)
        if isinstance(name, str) and name not in cls.table():
            raise fault_at("name", unknown(name, cls.table(), cls.kind), name)
        part = cls.of(name)
        if part is not cls:
            return part.model_validate(value)  # if it raises, pydantic prefixes this part's path to each fault
        return handler(cls._own(value, str(name)))

    @classmethod
    def _name_in(cls, value: Mapping[str, Any]) -> Any:
        try:
            return fitted(value.get("name", cls.model_fields["name"].default), str)
        except ValueError:
            return None

    @classmethod
    def _own(cls, value: dict[str, Any], name: str) -> dict[str, Any]:
        """Return `value` without options of other parts that have their default value. Raises ValueError for any others."""
        foreign = [key for key in value if key not in cls.model_fields]
        for key in foreign:
            owners = dict(cls._owners(key))
            if any(_is(plain(value[key]), default) for default in owners.values()):
                continue
            takes = f"the {cls.kind} {name}, which takes {', '.join(cls.options()) or 'no options'}"
            if owners:
                names = " or ".join(owners)
                raise ValueError(f"{key} is an option of {names}, not of {takes}; set name: {names}, or leave out {key}")
            raise ValueError(unknown(str(key), cls.options(), f"option of the {cls.kind} {name}:"))
        return {key: part for key, part in value.items() if key not in foreign}

    @classmethod
    def _owners(cls, key: str) -> Iterator[tuple[str, Any]]:
        """Yield the parts that have an option `key`, and its default."""
        kind = next(parent for parent in cls.__mro__ if "table" in vars(parent))
        for name in cls.table():
            field = kind.of(name).model_fields.get(key)  # type: ignore[attr-defined]  # a PartSpec
            if field is not None:
                yield name, field.get_default(call_default_factory=True)

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**self.as_written, **self._without_unused_keys(handler(self))}


def spec_of(part: Callable[..., Any], kind: type[PartSpec]) -> type[Any]:
    """Return the type of a part's parameter `spec`; `kind` if it has none. Raises SpecError for another type."""
    named = getattr(part, "__name__", repr(part))
    try:
        hints = typing.get_type_hints(part.__init__ if inspect.isclass(part) else part)
    except (NameError, TypeError) as error:
        raise SpecError(f"{named}: the types of its parameters cannot be read ({error}); write them at module level") from error
    spec = hints.get("spec", kind)
    if not (isinstance(spec, type) and issubclass(spec, kind)):
        raise SpecError(f"{named}: its parameter spec has the type {spec}; use {kind.__name__} or a subclass")
    return spec


def _is(found: Any, default: Any) -> bool:
    return bool(found == (list(default) if isinstance(default, tuple) else default))
