"""Tables in files: CSV, TSV, text separated by blanks, JSON lines, Parquet; read in batches, columns as lists of cells."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from rayprob.data.sources.faults import short
from rayprob.data.sources.files_of import WILDCARDS, files_of
from rayprob.data.sources.label_list import is_number
from rayprob.data.sources.text_file import read_head, read_text
from rayprob.errors import SourceError, one_line
from rayprob.files import storage, uris
from rayprob.files.tables import DAMAGE
from rayprob.registry import unknown

BLANKS = "blanks"
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": BLANKS, ".lst": BLANKS, ".list": BLANKS}
JSON_LINES = (".jsonl", ".ndjson", ".json")
BATCH_ROWS = 16_384
REMEDY = "give a .csv, .tsv, .txt, .jsonl or .parquet file"
Column = str | int
Cells = list[Any]


@dataclass(frozen=True)
class TableFile:
    """A table: the names of its columns, and a function that reads some of them in batches, as arrays or lists of cells."""

    uri: str
    names: list[str]
    read: Callable[[list[int]], Iterator[list[pa.Array | Cells]]]

    def place(self, column: Column) -> int:
        """Return the index, from 0, of a column given by name or by its number from 1. Raises SourceError."""
        if isinstance(column, str):
            found = [place for place, name in enumerate(self.names) if name == column]
            if len(found) == 1:
                return found[0]
            if len(found) > 1:
                raise SourceError(f"{self.uri} has {len(found)} columns named {column!r:.80}; give the number of one, from 1")
        number = int(column) if is_number(str(column)) else 0
        if not 1 <= number <= len(self.names):
            raise SourceError(
                f"{self.uri}: {unknown(str(column), self.names, 'column')}, or a number from 1 to {len(self.names)}"
            )
        return number - 1

    def places(self, columns: Column | Sequence[Column]) -> list[int]:
        """Return the indices of columns given by names, numbers or ranges such as `Edema..Fracture`, `6..19`, `6..`."""
        given = [columns] if isinstance(columns, str | int) else columns
        return [place for column in given for place in self._range(column)]

    def _range(self, column: Column) -> list[int]:
        if not isinstance(column, str) or ".." not in column or column in self.names:
            return [self.place(column)]
        first, _, last = (part.strip() for part in column.partition(".."))
        start = self.place(first) if first else 0
        end = self.place(last) if last else len(self.names) - 1
        if end < start:
            raise SourceError(f"{self.uri}: the range {column!r:.80} ends before it starts; swap its ends")
        return list(range(start, end + 1))


def tables_of(given: str) -> list[str]:
    """Return the tables that a path stands for: itself, or the sorted files of a folder or pattern. Raises SourceError."""
    is_pattern = "{" in given or bool(WILDCARDS & set(uris.split(given)[1]))
    if storage.is_folder(given) or (is_pattern and not storage.exists(given)):
        return files_of(given, (".parquet", *DELIMITERS, *JSON_LINES))
    return [given]


def open_table(uri: str, *, delimiter: str | None, has_header: bool) -> TableFile:
    """Open a table by the suffix of its file. Raises SourceError if it cannot be read, also later while batches are read."""
    suffix = "." + uris.split(uri)[1].lower().rpartition(".")[2]
    if suffix == ".parquet":
        return _parquet(uri)
    if suffix in JSON_LINES:
        return _json_lines(uri)
    sign = delimiter or DELIMITERS.get(suffix)
    if sign is None:
        raise SourceError(f"{uri} does not have the suffix of a table; {REMEDY}, or set `delimiter`")
    return _blank_separated(uri, has_header) if sign in (BLANKS, " ") else _delimited(uri, sign, has_header)


def _delimited(uri: str, sign: str, has_header: bool) -> TableFile:
    head, encoding = read_head(uri)
    header, lines = _first_record(uri, head, sign)
    columns = [f"f{place}" for place in range(len(header))]  # names may be empty or occur twice
    read = arrow_csv.ReadOptions(
        skip_rows=lines if has_header else 0, column_names=columns, use_threads=False, encoding=encoding.removesuffix("-sig")
    )
    parse = arrow_csv.ParseOptions(delimiter=sign, newlines_in_values=True)
    types = dict.fromkeys(columns, pa.string())

    def cells(places: list[int]) -> Iterator[list[pa.Array | Cells]]:
        convert = arrow_csv.ConvertOptions(
            column_types=types, strings_can_be_null=False, include_columns=[columns[place] for place in places]
        )
        try:
            with (
                storage.open_input(uri) as file,
                arrow_csv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert) as reader,
            ):
                for batch in reader:
                    yield batch.columns
        except DAMAGE as error:
            if "Empty CSV file" in str(error):
                return
            raise SourceError(
                f"{uri} cannot be read as a table: {one_line(error)}; correct that row, or set `delimiter`"
            ) from error

    names = [name.strip() for name in header] if has_header else [""] * len(header)
    return TableFile(uri, names, cells)


def _first_record(uri: str, head: str, sign: str) -> tuple[list[str], int]:
    """Return the first row that is not empty, and the number of lines up to its end."""
    if len(sign) != 1 or not sign.isascii():
        raise SourceError(f"delimiter is {sign!r:.20}; it must be one ASCII character, or {BLANKS}")
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=sign)
    try:
        for row in reader:
            if row:
                return row, reader.line_num
    except csv.Error as error:
        raise SourceError(f"{uri} cannot be read as a table: {error}; {REMEDY}") from error
    raise SourceError(f"{uri} is empty; download it again")


def _blank_separated(uri: str, has_header: bool) -> TableFile:
    rows = [line.split() for line in read_text(uri).splitlines() if line.strip()]
    if not rows:
        raise SourceError(f"{uri} is empty; download it again")
    names = rows[0] if has_header else [""] * max(map(len, rows))

    def cells(places: list[int]) -> Iterator[list[pa.Array | Cells]]:
        yield [[row[place] if place < len(row) else "" for row in rows[has_header:]] for place in places]

    return TableFile(uri, names, cells)


def _json_lines(uri: str) -> TableFile:
    records = [_record(uri, number, line) for number, line in enumerate(read_text(uri).split("\n"), start=1) if line.strip()]
    if not records:
        raise SourceError(f"{uri} is empty; download it again")
    names = list(dict.fromkeys(name for record in records for name in record))

    def cells(places: list[int]) -> Iterator[list[pa.Array | Cells]]:
        waiting = iter(records)
        while some := list(islice(waiting, BATCH_ROWS)):
            yield [[record.get(names[place]) for record in some] for place in places]

    return TableFile(uri, names, cells)


def _record(uri: str, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()  # fails for lone surrogates
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{uri}, line {number} is not JSON ({one_line(error)}); write one mapping per line") from error
    if not isinstance(record, dict):
        raise SourceError(f"{uri}, line {number} is {short(record)}; write one mapping per line")
    return record


def _parquet(uri: str) -> TableFile:
    try:
        with storage.open_input_file(uri) as file:
            names = pq.ParquetFile(file).schema_arrow.names
    except DAMAGE as error:
        raise SourceError(f"{uri} cannot be read as Parquet ({one_line(error)}); {REMEDY}") from error

    def cells(places: list[int]) -> Iterator[list[pa.Array | Cells]]:
        try:
            with storage.open_input_file(uri) as file:
                table = pq.ParquetFile(file)
                for batch in table.iter_batches(BATCH_ROWS, columns=[names[place] for place in places], use_threads=False):
                    batch.validate(full=True)
                    yield [batch.column(names[place]) for place in places]
        except (*DAMAGE, KeyError) as error:
            raise SourceError(f"{uri} cannot be read as Parquet ({one_line(error)}); {REMEDY}") from error

    return TableFile(uri, names, cells)
