"""`--parquet FILE`: a table of outcomes, written part by part, so that a stopped command can resume. L labels.

One row per image, in order: image, sample_id, error, notes, marginals (list of L), label_set, guarantee, top_sets,
entropy_nats, entropy_standard_error; a column per query, named by its text, and for a family whose answers are estimated one
more, `QUERY standard error`; and with members total_nats, aleatoric_nats, epistemic_nats.
The labels and the question are JSON in the schema's metadata, under "rayprob".

Parts are written to FILE.parts/, with a plan.json that describes the table; at the end FILE is written and they are removed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayprob.config.spec import differing_keys
from rayprob.errors import StorageError
from rayprob.files import storage
from rayprob.files.documents import parse_json, read_json, require_shape
from rayprob.files.tables import parse_table
from rayprob.labels import LabelSpace
from rayprob.predict.images import Image
from rayprob.predict.job import Asking, PredictJob
from rayprob.predict.record import EstimatedAnswer, Outcome, Record, Rejected, rejection
from rayprob.probability.families import family_of
from rayprob.text import counted

FORMAT_VERSION = 1
KEY = b"rayprob"
PART_IMAGES = 1024
PLAN_FILE = "plan.json"
STANDARD_ERROR = " standard error"  # behind the name of a query's column
REMEDY = "choose another file, or remove this one"

Progress = Callable[[int, int], None]  # images done, and their total number


@dataclass(frozen=True)
class TablePlan:
    """The contents of a table: images split into parts, the labels, and everything its rows depend on as plain data."""

    path: str
    images: Sequence[Image]
    label_space: LabelSpace
    facts: dict[str, Any]
    has_members: bool
    is_sampled: bool = False  # whether answers are estimates, with standard errors
    part_images: int = PART_IMAGES

    @classmethod
    def of(cls, path: str, asking: Asking, images: Sequence[Image], *, part_images: int = PART_IMAGES) -> "TablePlan":
        """Return the plan of a table at `path` of the outcomes for `images`."""
        label_space = asking.predictor.bundle.label_space
        names = "\n".join(image.name for image in images)
        about = {"number": len(images), "sha256": hashlib.sha256(names.encode()).hexdigest()[:16]}
        facts = {"format_version": FORMAT_VERSION, **asking.facts, "labels": list(label_space.names), "images": about}
        is_sampled = family_of(asking.predictor.bundle.family).is_sampled
        return cls(path, images, label_space, facts, asking.predictor.num_members > 0, is_sampled, part_images)

    @property
    def parts_folder(self) -> str:
        """Folder of the parts until the table is complete."""
        return storage.beside(self.path, ".parts")

    @property
    def num_parts(self) -> int:
        """The number of parts; the last may be smaller."""
        return -(-len(self.images) // self.part_images)

    def part_path(self, part: int) -> str:
        """Return the path of a part."""
        return storage.join(self.parts_folder, f"part-{part:06d}.parquet")

    def images_of(self, part: int) -> Sequence[Image]:
        """Return the images of a part."""
        return self.images[part * self.part_images : (part + 1) * self.part_images]

    def schema(self) -> pa.Schema:
        """Return the columns of the table, with the facts as metadata."""
        label_sets = pa.list_(pa.string())
        top_sets = pa.list_(pa.struct({"labels": label_sets, "probability": pa.float64()}))
        columns = {
            "image": pa.string(),
            "sample_id": pa.int64(),
            "error": pa.string(),
            "notes": pa.list_(pa.string()),
            "marginals": pa.list_(pa.float32(), len(self.label_space)),
            "label_set": label_sets,
            "guarantee": pa.string(),
            "top_sets": top_sets,
            "entropy_nats": pa.float64(),
            "entropy_standard_error": pa.float64(),
            **{column: pa.float64() for query in self.facts["queries"] for column in self._columns_of(query)},
            **({name: pa.float64() for name in DOUBTS} if self.has_members else {}),
        }
        return pa.schema(columns, metadata={KEY: json.dumps(self.facts).encode()})

    def _columns_of(self, query: str) -> tuple[str, ...]:
        return (query, query + STANDARD_ERROR) if self.is_sampled else (query,)


DOUBTS = ("total_nats", "aleatoric_nats", "epistemic_nats")


@dataclass(frozen=True)
class WrittenTable:
    """A finished table: its number of rows, and the rejected images with their errors."""

    num_images: int
    rejected: tuple[str, ...]
    was_there: bool


def write_table_here(job: PredictJob, path: str, on_progress: Progress) -> WrittenTable:
    """Write the table of a job in this process, as `write_table` does."""
    asking, images = job.open()
    return write_table(TablePlan.of(path, asking, images), asking.outcomes, on_progress)


def write_table(
    plan: TablePlan, predict: Callable[[Sequence[Image]], Iterable[Outcome]], on_progress: Progress = lambda done, total: None
) -> WrittenTable:
    """Write the planned table, or its missing parts, and return what it contains.

    Raises StorageError if the file or the parts next to it belong to another plan.
    """

    def in_turn(parts: Sequence[int]) -> Iterator[int]:
        for part in parts:
            write_part(plan, part, predict)
            yield part

    return write_parts(plan, in_turn, on_progress)


def write_parts(plan: TablePlan, write: Callable[[Sequence[int]], Iterable[int]], on_progress: Progress) -> WrittenTable:
    """Write a table with `write`, which receives the missing parts and yields each when done, in any order."""
    if storage.exists(plan.path):
        _require_same(_read_facts(plan.path), plan, plan.path, REMEDY)
        return _held(plan.path, was_there=True)
    begin(plan)
    missing = [part for part in range(plan.num_parts) if not storage.exists(plan.part_path(part))]
    num_done = len(plan.images) - sum(len(plan.images_of(part)) for part in missing)
    on_progress(num_done, len(plan.images))
    for part in write(missing):
        num_done += len(plan.images_of(part))
        on_progress(num_done, len(plan.images))
    return commit(plan)


def begin(plan: TablePlan) -> None:
    """Claim the folder of the parts, or check that its parts belong to this plan. Raises StorageError if they do not."""
    path = storage.join(plan.parts_folder, PLAN_FILE)
    if storage.exists(path):
        remedy = f"choose another file, or remove {plan.parts_folder}"
        _require_same(read_json(path, error=StorageError, remedy=remedy), plan, plan.parts_folder, remedy)
    else:
        storage.write_text(path, json.dumps(plan.facts | {"part_images": plan.part_images}, indent=1))


def write_part(plan: TablePlan, part: int, predict: Callable[[Sequence[Image]], Iterable[Outcome]]) -> None:
    """Predict the images of one part and write it atomically."""
    outcomes = list(predict(plan.images_of(part)))
    rows = [_rejected_row(one) if isinstance(one, Rejected) else _row(one) for one in outcomes]
    with storage.atomic_writer(plan.part_path(part)) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=plan.schema()), file, compression="zstd")


def commit(plan: TablePlan) -> WrittenTable:
    """Join all parts into the table, remove them, and return what it contains."""
    with storage.atomic_writer(plan.path) as file, pq.ParquetWriter(file, plan.schema(), compression="zstd") as writer:
        for part in range(plan.num_parts):
            writer.write_table(_read_part(plan, part))
    storage.remove_folder(plan.parts_folder)
    return _held(plan.path, was_there=False)


def _read_part(plan: TablePlan, part: int) -> pa.Table:
    path, remedy = plan.part_path(part), "remove the file and run the same command to write it again"
    table = parse_table(storage.read_bytes(path), path, error=StorageError, remedy=remedy)
    if not table.schema.equals(plan.schema()) or table.num_rows != len(plan.images_of(part)):
        raise StorageError(f"{path} is not a part of this table; {remedy}")
    return table


def _row(record: Record) -> dict[str, Any]:
    said = record.to_dict()
    row = {name: said[name] for name in ("image", "sample_id", "error", "notes", "label_set", "guarantee", "top_sets")}
    row |= {"marginals": record.marginals_L, "entropy_nats": record.entropy_nats}
    row |= {"entropy_standard_error": record.entropy_standard_error}
    row |= {answer.query: answer.probability for answer in record.answers}
    row |= {one.query + STANDARD_ERROR: one.standard_error for one in record.answers if isinstance(one, EstimatedAnswer)}
    return row | ({name: getattr(record.uncertainty, name) for name in DOUBTS} if record.uncertainty else {})


def _rejected_row(rejected: Rejected) -> dict[str, Any]:
    return rejected.to_dict()


def _held(path: str, *, was_there: bool) -> WrittenTable:
    table = parse_table(storage.read_bytes(path), path, columns=["image", "error"], error=StorageError, remedy=REMEDY)
    if table.schema.types != [pa.string()] * 2:
        raise StorageError(f"{path} is not a table of predictions; {REMEDY}")
    bad = [rejection(row["image"], row["error"]) for row in table.filter(pa.compute.is_valid(table["error"])).to_pylist()]
    return WrittenTable(table.num_rows, tuple(bad), was_there)


def _read_facts(path: str) -> dict[str, Any]:
    metadata = parse_table(storage.read_bytes(path), path, columns=[], error=StorageError, remedy=REMEDY).schema.metadata or {}
    if KEY not in metadata:
        raise StorageError(f"{path} exists and is not a table of predictions; {REMEDY}")
    facts = parse_json(metadata[KEY], f"the header of {path}", StorageError, REMEDY)
    return require_shape(facts, None, f"the header of {path}", error=StorageError, remedy=REMEDY)


def _require_same(old: dict[str, Any], plan: TablePlan, where: str, remedy: str) -> None:
    new = plan.facts | ({"part_images": plan.part_images} if "part_images" in old else {})
    changed = differing_keys(old, new)
    if changed:
        listed = "\n".join(f"  {line:.300}" for line in changed)
        raise StorageError(
            f"{where} already holds another table; it differs in {counted(len(changed), 'key')}:\n{listed}\n{remedy}"
        )
