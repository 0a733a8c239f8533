"""Hugging Face datasets: Parquet files with images in them, or a folder of images with a metadata file."""

import json
import posixpath
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from rayprob.data.sources import table
from rayprob.data.sources.cells import as_list, as_text, stem
from rayprob.data.sources.faults import label_space, short
from rayprob.data.sources.files_of import files_of
from rayprob.data.sources.groups import group_of
from rayprob.data.sources.label_list import by_number, distinct, read_names
from rayprob.data.sources.rows import ImageRow, Stated, batches_of
from rayprob.data.sources.spec import Source
from rayprob.data.sources.table import TableSource
from rayprob.data.sources.table_file import open_table
from rayprob.errors import SourceError, one_line
from rayprob.files import storage, uris
from rayprob.files.tables import DAMAGE
from rayprob.images.kinds import IMAGE_SUFFIXES
from rayprob.registry import unknown

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LABEL_COLUMNS = ("labels", "label")
BATCH_ROWS = 64  # each row contains an image
REMEDY = "give the .parquet files of the dataset"


class HuggingfaceSource(Source):
    """A Hugging Face dataset. `images` is a Parquet file, a pattern or folder of them, or a folder with metadata.csv."""

    later_keys: ClassVar[frozenset[str]] = Source.later_keys | {"group"}

    image: str = "image"
    """The column of images in Parquet."""
    label: str | None = None
    """The column of labels, names or numbers, such as objects.category. Null takes `labels`, or `label`."""
    key: str | None = None
    """The column that names each image; null takes the image's path if all paths differ, else its row."""
    separator: str | None = None
    """The separator of labels in a cell of metadata.csv; null for a single label."""
    names: str | list[str] | dict[str, str] | None = None
    """Names for labels that are numbers; null takes those in the file's own description (ClassLabel)."""
    group: str | None = None
    """A column, such as patient: images with the same value share a split."""


def read(source: HuggingfaceSource) -> Stated:
    """Return the labels of a dataset; a row whose labels are null states none. Raises SourceError."""
    for name in METADATA:
        if storage.exists(uri := storage.join(source.images, name)):
            return table.read(_as_table(source, uri))
    files = files_of(source.images, (".parquet",))
    return _Parquet(source, files).read()


def _as_table(source: HuggingfaceSource, uri: str) -> TableSource:
    columns = open_table(uri, delimiter=None, has_header=True).names
    label = source.label or next((name for name in LABEL_COLUMNS if name in columns), LABEL_COLUMNS[0])
    keys = {key: getattr(source, key) for key in ("images", "names", "rest", "separator", "group")}
    return TableSource(format="table", annotations=uri, image="file_name", lists=label, **keys)


class _Parquet:
    """The Parquet files of one source."""

    def __init__(self, source: HuggingfaceSource, files: list[str]) -> None:
        self.source, self.files = source, files
        schema = self._schema()
        self.label = source.label or next((name for name in LABEL_COLUMNS if name in schema.names), "labels")
        columns = {"image": source.image, "label": self.label.partition(".")[0], "key": source.key, "group": source.group}
        for key, column in columns.items():
            if column is not None and column not in schema.names:
                raise SourceError(f"{files[0]}: {unknown(column, schema.names, 'column')}; set `{key}` to one of them")
        self.names = self._names(schema)

    def read(self) -> Stated:
        names = self.names or self._occurring()
        is_declared = self.names is not None
        ordered = list(names.values())
        column_of = {code: column for column, code in enumerate(names)}
        return Stated(
            label_space=label_space(self.source.images, ordered),
            rest=self.source.rest or "absent",
            batches=batches_of(self._rows(column_of)),
            images=self.source.images,
            dropped={},
            is_declared=is_declared,
        )

    def _schema(self) -> pa.Schema:
        try:
            with storage.open_input_file(self.files[0]) as file:
                return pq.ParquetFile(file).schema_arrow
        except DAMAGE as error:
            raise SourceError(f"{self.files[0]} cannot be read as Parquet ({one_line(error)}); {REMEDY}") from error

    def _names(self, schema: pa.Schema) -> dict[str, str] | None:
        """Return the name of each label from the recipe or the file's description; None if neither gives names."""
        if self.source.names is not None:
            return distinct(self.source.images, read_names(self.source.names))
        try:
            feature = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
            for part in self.label.split("."):
                feature = feature.get("feature", feature)[part]
            names = feature.get("feature", feature)["names"]
            return {str(place): str(name) for place, name in enumerate(names)}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # not a ClassLabel
            return None

    def _occurring(self) -> dict[str, str]:
        """Return the labels that occur, numbers in ascending order."""
        batches = self._batches([self.label.partition(".")[0]])
        found = {code for (cells,) in batches for cell in cells for code in self._codes(cell) or ()}
        return {code: code for code in sorted(found, key=by_number)}

    def _codes(self, cell: Any) -> list[str] | None:
        for part in self.label.split(".")[1:]:
            if isinstance(cell, list):
                cell = [item.get(part) for item in cell if isinstance(item, dict)]
            elif isinstance(cell, dict):
                cell = cell.get(part)
        return None if cell is None else as_list(cell, self.source.separator, f"{self.source.images}, {self.label}")

    def _rows(self, column_of: dict[str, int]) -> Iterator[ImageRow]:
        given = [column for column in (self.source.key, self.source.group) if column is not None]
        keys = self._keys() if self.source.key is None else None
        for cells in self._batches([self.source.image, self.label.partition(".")[0], *given]):
            for image, label, *others in zip(*cells, strict=True):
                key = next(keys) if keys else as_text(others[0])
                row = self._row(key, image, self._codes(label), column_of)
                yield row if self.source.group is None else row._replace(group=group_of(others[-1]))

    def _row(self, key: str, image: Any, codes: list[str] | None, column_of: dict[str, int]) -> ImageRow:
        content = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(content, bytes) or not content:
            raise SourceError(
                f"{self.source.images}: the image {key} has no bytes in the file (found {short(content)}); write the dataset "
                "with embedded images, or use format: table with paths"
            )
        if wrong := [code for code in codes or () if code not in column_of]:
            raise SourceError(
                f"{self.source.images}: the image {key} has the label {wrong[0]!r:.80}, which has no name; set `names`"
            )
        labels = tuple(sorted({column_of[code] for code in codes or ()}))
        unknown_labels = tuple(range(len(column_of))) if codes is None else ()
        return ImageRow(key=key, file_name=key, labels=labels, unknown_labels=unknown_labels, content=content)

    def _keys(self) -> Iterator[str]:
        """Yield a key for each row: the path of its image without the suffix if all paths differ, else file and row."""
        paths = [image["path"] for (images,) in self._batches([f"{self.source.image}.path"]) for image in images if image]
        named = [stem(posixpath.basename(path), IMAGE_SUFFIXES) for path in paths if isinstance(path, str)]
        counts = [self._count(file) for file in self.files]
        if all(named) and len({*named}) == sum(counts):
            return iter(named)
        parts = zip((stem(uris.split(file)[1], (".parquet",)) for file in self.files), counts, strict=True)
        return (f"{name}/{row}" for name, count in parts for row in range(count))

    def _count(self, file: str) -> int:
        with storage.open_input_file(file) as opened:
            return int(pq.ParquetFile(opened).metadata.num_rows)

    def _batches(self, columns: list[str]) -> Iterator[list[list[Any]]]:
        """Yield the cells of columns, or of leaves such as image.path, batch by batch; nothing for a missing leaf."""
        for uri in self.files:
            try:
                with storage.open_input_file(uri) as file:
                    for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                        batch.validate(full=True)
                        names = [column for column in columns if column in batch.schema.names] or batch.schema.names
                        if names:
                            yield [batch.column(name).to_pylist() for name in names]
            except (*DAMAGE, KeyError) as error:
                raise SourceError(f"{uri} cannot be read as Parquet ({one_line(error)}); {REMEDY}") from error
