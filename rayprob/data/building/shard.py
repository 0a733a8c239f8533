"""One shard: check its images, write a plain WebDataset tar, and leave a report that says that it is done."""

import errno
import json
import posixpath
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from rayprob.config.faults import faults_of
from rayprob.config.spec import fingerprint
from rayprob.data.building import jpeg
from rayprob.data.building.jpeg import Size
from rayprob.data.building.jpeg_header import UPRIGHT, orientation
from rayprob.data.building.plan import ShardPlan
from rayprob.data.building.recipe import Encoding
from rayprob.data.building.tar import TarWriter
from rayprob.data.manifest.columns import SCHEMA, SCHEMA_WITH_ABSENT, to_table
from rayprob.data.sources.image import SourceImage
from rayprob.data.sources.join_files import Reject
from rayprob.data.sources.rows import Rest
from rayprob.data.tasks import read_ahead
from rayprob.errors import SampleError, StorageError
from rayprob.files import storage
from rayprob.files.documents import parse_json
from rayprob.files.tables import parse_table, require_schema
from rayprob.labels import LabelSpace

READ_AHEAD = 16  # images under way from an object store, where reading is mostly waiting
FACTS = b"rayprob"
COMPACT = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True)
class ShardJob:
    """All that a task needs to write one shard, wherever it runs."""

    plan: ShardPlan
    root: str
    images: str
    label_space: LabelSpace
    check: str
    encode: Encoding | None
    rest: Rest = "absent"  # what holds for the labels that an image lists nowhere
    threads: int = 1  # that read and check images, while another one writes them

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with anything that changes the shard's content."""
        samples = [image.values for image in self.plan.samples]
        encode = self.encode.model_dump() if self.encode else None
        place = [self.plan.name, self.plan.split, self.images, self.label_space.fingerprint]
        return fingerprint([place, samples, self.check, encode, *([self.rest] if self.rest != "absent" else [])])

    @property
    def report(self) -> str:
        """Where the report lies while the dataset is being built."""
        return report_of(self.root, self.plan.name)


@dataclass(frozen=True)
class BuiltShard:
    """What became of a shard: its tar in numbers, rejected images, and images whose declared size was not the real one."""

    name: str
    split: str
    job: str
    samples: int
    size_bytes: int
    sha256: str
    sizes_corrected: int
    rejected: list[Reject]
    exif_rotated: int = 0  # images that EXIF turns, which training reads as they are stored; reports of 0.1 do not count them


def report_of(root: str, name: str) -> str:
    """Return where the report of a shard lies while the dataset at `root` is being built."""
    return storage.join(root, ".build", f"{name}.parquet")


def write_shard(job: ShardJob) -> BuiltShard:
    """Write the tar of a job, then its report. The same job gives the same bytes. Raises StorageError."""
    rows: list[dict[str, Any]] = []
    rejected: list[Reject] = []
    sizes_corrected, exif_rotated = 0, 0
    with disk_full_explained(), storage.atomic_writer(storage.join(job.root, job.plan.name)) as file, TarWriter(file) as tar:
        for image, sample in _samples(job):
            if isinstance(sample, SampleError):
                rejected.append(Reject(image.sample_id, job.plan.split, image.file_name, str(sample)))
                continue
            rows.append(_add(tar, job, image, sample))
            sizes_corrected += sample.declared_wrong(image)
            exif_rotated += sample.orientation != UPRIGHT
    facts = BuiltShard(
        name=job.plan.name,
        split=job.plan.split,
        job=job.fingerprint,
        samples=len(rows),
        size_bytes=tar.size_bytes,
        sha256=tar.sha256,
        sizes_corrected=sizes_corrected,
        rejected=rejected,
        exif_rotated=exif_rotated,
    )
    _write_report(job.report, facts, rows, job.rest)
    return facts


def read_report(uri: str) -> tuple[BuiltShard, pa.Table]:
    """Return the facts and manifest rows that `write_shard` left. Raises StorageError."""
    remedy = "remove it and build again"
    table = parse_table(storage.read_bytes(uri), uri, error=StorageError, remedy=remedy)
    schema = SCHEMA_WITH_ABSENT if "absent_labels" in table.column_names else SCHEMA
    require_schema(table, schema, uri, error=StorageError, remedy=remedy)
    facts = parse_json((table.schema.metadata or {}).get(FACTS, b"null"), uri, StorageError, remedy)
    try:
        return TypeAdapter(BuiltShard).validate_python(facts), table.replace_schema_metadata(None)
    except ValidationError as error:
        raise StorageError(f"{uri} is not the report of a shard: {faults_of(BuiltShard, error)[0]}; {remedy}") from error


@contextmanager
def disk_full_explained() -> Iterator[None]:
    """Add what to do to a StorageError that a full disk caused."""
    try:
        yield
    except StorageError as error:
        if getattr(error.__cause__, "errno", None) not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise StorageError(f"{error}; make room or choose another target, then the same command continues") from error


@dataclass(frozen=True)
class _Sample:
    """An image that passed its checks, as it goes into the tar."""

    content: bytes
    size: Size
    source_size: Size
    orientation: int

    def declared_wrong(self, image: SourceImage) -> bool:
        return image.height_px > 0 and image.width_px > 0 and Size(image.height_px, image.width_px) != self.source_size


def _prepare(job: ShardJob, content: bytes) -> _Sample:
    size, turn = jpeg.measure(content), orientation(content)
    if job.encode:
        encoded = jpeg.encode_again(content, job.encode)
        return _Sample(encoded, jpeg.measure(encoded), size, turn)
    CHECKS[job.check](content)
    return _Sample(content, size, size, turn)


def _add(tar: TarWriter, job: ShardJob, image: SourceImage, sample: _Sample) -> dict[str, Any]:
    key = f"{image.sample_id:012d}"
    offset_bytes = tar.add(f"{key}.jpg", sample.content)
    names = job.label_space.names
    beside: dict[str, Any] = {
        "sample_id": image.sample_id,
        "labels": [names[column] for column in image.labels],
        "unknown_labels": [names[column] for column in image.unknown_labels],
        "height_px": sample.size.height_px,
        "width_px": sample.size.width_px,
        "file_name": image.file_name,
    }
    if job.rest == "unknown":
        beside |= {"absent_labels": [names[column] for column in image.absent_labels], "rest": job.rest}
    tar.add(f"{key}.json", COMPACT.encode(beside).encode())
    return {
        "sample_id": image.sample_id,
        "key": key,
        "split": job.plan.split,
        "shard": job.plan.name,
        "offset_bytes": offset_bytes,
        "size_bytes": len(sample.content),
        "height_px": sample.size.height_px,
        "width_px": sample.size.width_px,
        "labels": image.labels,
        "unknown_labels": image.unknown_labels,
        "absent_labels": image.absent_labels,
        "label_areas_px2": image.label_areas_px2,
        "crc32": zlib.crc32(sample.content),
    }


def _write_report(uri: str, facts: BuiltShard, rows: list[dict[str, Any]], rest: Rest) -> None:
    schema = SCHEMA_WITH_ABSENT if rest == "unknown" else SCHEMA
    table = to_table(rows, schema).replace_schema_metadata({FACTS: json.dumps(asdict(facts))})
    with disk_full_explained(), storage.atomic_writer(uri) as file:
        pq.write_table(table, file)


def _samples(job: ShardJob) -> Iterator[tuple[SourceImage, _Sample | SampleError]]:
    """Yield each image with what goes into the tar, or why it does not. Decoding leaves other threads free to run."""
    open_file = _opener(job.images)

    def read(image: SourceImage) -> bytes:
        try:
            if image.container:
                return storage.read_bytes(image.container, image.offset_bytes, min(image.size_bytes, jpeg.MAX_FILE_BYTES + 1))
            with open_file(image.file_name) as file:
                # One byte more than allowed is enough to be refused.
                return file.read(min(image.size_bytes, jpeg.MAX_FILE_BYTES) + 1)
        except (OSError, StorageError) as error:
            raise StorageError(
                f"{image.container or storage.join(job.images, image.file_name)} was there when the build began and cannot be "
                f"read now: {error}; where several machines build, give a folder that all of them share, or a URI"
            ) from error

    def checked(content: bytes) -> _Sample | SampleError:
        try:
            return _prepare(job, content)
        except SampleError as error:
            return error

    images = job.plan.samples
    depth = 1 if all(storage.is_local(image.container or job.images) for image in images) else READ_AHEAD
    if job.threads > 1:
        samples = read_ahead(lambda image: checked(read(image)), images, max(2 * job.threads, depth))
    else:
        samples = map(checked, map(read, images) if depth == 1 else read_ahead(read, images, depth))
    return zip(images, samples, strict=True)


def _opener(folder: str) -> Callable[[str], IO[bytes]]:
    """Return what opens a file in `folder`; it connects to an object store once, not once a file."""
    if storage.is_local(folder):
        local = storage.local_path(folder)
        return lambda name: open(local / name, "rb")
    filesystem, path = storage.resolve(folder)
    return lambda name: cast(IO[bytes], filesystem.open_input_file(posixpath.join(path, name)))


CHECKS = {"decode": jpeg.check_decodes, "header": jpeg.check_header}
