"""One shard: checks its images, writes a plain WebDataset tar, and leaves a report that marks it as done."""

import json
import posixpath
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from rayprob.config.faults import faults_of
from rayprob.config.spec import fingerprint
from rayprob.data.building.disk_full import disk_full_explained
from rayprob.data.building.encode import encode_again
from rayprob.data.building.plan import ShardPlan
from rayprob.data.building.recipe import Encoding
from rayprob.data.building.tar import TarWriter
from rayprob.data.building.tar_reader import tar_reader
from rayprob.data.manifest.columns import SCHEMA, SCHEMA_WITH_ABSENT, to_table
from rayprob.data.manifest.shard_list import shard_uri
from rayprob.data.sources.image import SourceImage
from rayprob.data.sources.join_files import Reject
from rayprob.data.sources.rows import Rest
from rayprob.data.sources.tar_members import key_of
from rayprob.data.tasks import read_ahead
from rayprob.errors import SampleError, StorageError
from rayprob.files import storage
from rayprob.files.documents import parse_json
from rayprob.files.tables import parse_table, require_schema
from rayprob.images.check import check_decodes, check_header
from rayprob.images.exif import UPRIGHT
from rayprob.images.header import MAX_FILE_BYTES, Size, measure, orientation
from rayprob.images.kinds import JPEG, kind_of
from rayprob.images.notable import CONVERTED, notable
from rayprob.images.reading import READ_UPRIGHT, ImageReading
from rayprob.labels import LabelSpace

READ_AHEAD = 16  # concurrent reads from an object store, where reading is mostly waiting
FACTS = b"rayprob"
COMPACT = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True)
class Copy:
    """An image with the same bytes as another image, which is kept."""

    sample_id: int
    split: str
    shard: str
    file_name: str
    kept_id: int
    kept_split: str
    kept_file_name: str
    other_labels: bool  # the two do not have the same labels present


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
    reading: ImageReading = READ_UPRIGHT
    threads: int = 1  # that read and check images, while another one writes them
    among: str = ""  # of a build that drops copies, a fingerprint of all shards, for these decide which image is one
    dropped: tuple[Copy, ...] = ()

    @property
    def samples(self) -> list[SourceImage]:
        """The images to write."""
        gone = {copy.sample_id for copy in self.dropped}
        return [image for image in self.plan.samples if image.sample_id not in gone]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with anything that changes the shard's content before copies are dropped."""
        samples = [image.values for image in self.plan.samples]
        encode = self.encode.model_dump() if self.encode else None
        place = [self.plan.name, self.plan.split, self.images, self.label_space.fingerprint]
        later: list[Any] = [self.rest] if self.rest != "absent" else []
        later += [self.plan.tar, self.plan.takes_sha256] if self.plan.tar else []
        later += [self.among] if self.among else []
        return fingerprint([place, samples, self.check, encode, *later, self.reading.to_dict()])

    @property
    def report(self) -> str:
        """The location of the report while the dataset is being built."""
        return report_of(self.root, self.plan.name)


@dataclass(frozen=True)
class BuiltShard:
    """The result of a shard: its tar in numbers, rejected images, and images whose declared size was not the real one."""

    name: str
    split: str
    job: str
    samples: int
    size_bytes: int
    sha256: str
    sizes_corrected: int
    rejected: list[Reject]
    exif_rotated: int = 0  # images that EXIF turns; reports of 0.1 do not count them
    images: dict[str, int] = field(default_factory=dict)  # how many of each kind and notable property the source has
    tar: str = ""  # of a shard in place, as the dataset calls it
    dropped: list[Copy] = field(default_factory=list)

    @property
    def file(self) -> str:
        """The name of the shard in the dataset."""
        return self.tar or self.name


def report_of(root: str, name: str) -> str:
    """Return the location of a shard's report while the dataset at `root` is being built."""
    return storage.join(root, ".build", f"{name}.parquet")


def write_shard(job: ShardJob) -> BuiltShard:
    """Write the tar of a job, or read the one that it has, then write its report. The same job gives the same bytes.

    Raises StorageError.
    """
    checked, size_bytes, sha256 = _in_place(job) if job.plan.tar else _written(job)
    facts = BuiltShard(
        name=job.plan.name,
        split=job.plan.split,
        job=job.fingerprint,
        samples=len(checked.rows),
        size_bytes=size_bytes,
        sha256=sha256,
        sizes_corrected=checked.sizes_corrected,
        rejected=checked.rejected,
        exif_rotated=checked.exif_rotated,
        images=dict(sorted(checked.images.items())),
        tar=job.plan.tar,
        dropped=list(job.dropped),
    )
    _write_report(job.report, facts, checked.rows, job.rest)
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


@dataclass
class _Checked:
    """The result of the images of a job: rows of the manifest, and what was found on the way."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Reject] = field(default_factory=list)
    sizes_corrected: int = 0
    exif_rotated: int = 0
    images: Counter[str] = field(default_factory=Counter)


def _written(job: ShardJob) -> tuple[_Checked, int, str]:
    """Write the images of a job into a tar; return the result, and its size and sha256."""
    with disk_full_explained(), storage.atomic_writer(storage.join(job.root, job.plan.name)) as file, TarWriter(file) as tar:
        checked = _check(job, _samples(job), partial(_add, tar, job))
    return checked, tar.size_bytes, tar.sha256


def _in_place(job: ShardJob) -> tuple[_Checked, int, str]:
    """Read the images of a job where they lie; return the result, and their tar's size and sha256, where it takes it."""
    uri = shard_uri(job.root, job.plan.tar)
    if not job.plan.takes_sha256:
        return _check(job, _samples(job), _where_it_lies), storage.size_bytes(uri), ""
    with _read_or_explained(uri), tar_reader(uri) as tar:
        contents = ((image, tar.read(image.offset_bytes, _read_bytes(image))) for image in job.samples)
        samples = ((image, _prepared(job, content)) for image, content in contents)
        checked = _check(job, samples, _where_it_lies)
    return checked, tar.size_bytes, tar.sha256


def _check(
    job: ShardJob,
    samples: Iterable[tuple[SourceImage, "_Sample | SampleError"]],
    place_of: Callable[[SourceImage, "_Sample"], tuple[str, int]],
) -> _Checked:
    """Have each image that passed its checks put into its place, key and offset, and count what was found."""
    checked = _Checked()
    for image, sample in samples:
        if isinstance(sample, SampleError):
            checked.rejected.append(Reject(image.sample_id, job.plan.split, image.file_name, str(sample)))
            continue
        key, offset_bytes = place_of(image, sample)
        checked.rows.append(_row(job, image, sample, key, offset_bytes))
        checked.sizes_corrected += sample.declared_wrong(image)
        checked.exif_rotated += sample.orientation != UPRIGHT
        checked.images.update(sample.notable)
    return checked


@dataclass(frozen=True)
class _Sample:
    """An image that passed its checks, as it goes into the tar."""

    content: bytes
    suffix: str
    size: Size  # as it is read
    source_size: Size  # as the source stores it
    orientation: int
    notable: list[str]

    def declared_wrong(self, image: SourceImage) -> bool:
        """Return whether the source declares a size that is neither that of the stored nor that of the upright image."""
        declared = Size(image.height_px, image.width_px)
        either = (self.source_size, self.source_size.turned(self.orientation))
        return image.height_px > 0 and image.width_px > 0 and declared not in either


def _prepare(job: ShardJob, content: bytes) -> _Sample:
    size, turn = measure(content), orientation(content)
    if job.encode:
        encoded = encode_again(content, job.encode, job.reading)
        found = [*notable(content, job.reading), CONVERTED]
        return _Sample(encoded, JPEG.suffix, measure(encoded), size, turn, found)
    CHECKS[job.check](content)
    as_read = size.turned(turn) if job.reading.orientation == "upright" else size
    return _Sample(content, kind_of(content).suffix, as_read, size, turn, notable(content, job.reading))


def _prepared(job: ShardJob, content: bytes) -> _Sample | SampleError:
    """Return what goes into the tar, or the reason why an image cannot."""
    try:
        return _prepare(job, content)
    except SampleError as error:
        return error


def _where_it_lies(image: SourceImage, sample: _Sample) -> tuple[str, int]:
    return key_of(image.file_name), image.offset_bytes


def _add(tar: TarWriter, job: ShardJob, image: SourceImage, sample: _Sample) -> tuple[str, int]:
    """Append an image and its JSON to a tar; return the key of the two, and the offset of the image."""
    key = f"{image.sample_id:012d}"
    offset_bytes = tar.add(f"{key}{sample.suffix}", sample.content)
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
    return key, offset_bytes


def _row(job: ShardJob, image: SourceImage, sample: _Sample, key: str, offset_bytes: int) -> dict[str, Any]:
    return {
        "sample_id": image.sample_id,
        "key": key,
        "split": job.plan.split,
        "shard": job.plan.file,
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
        with _read_or_explained(image.container or storage.join(job.images, image.file_name)):
            if image.container:
                return storage.read_bytes(image.container, image.offset_bytes, _read_bytes(image))
            with open_file(image.file_name) as file:
                return file.read(min(image.size_bytes, MAX_FILE_BYTES) + 1)

    images = job.samples
    depth = 1 if all(storage.is_local(image.container or job.images) for image in images) else READ_AHEAD
    if job.threads > 1:
        samples = read_ahead(lambda image: _prepared(job, read(image)), images, max(2 * job.threads, depth))
    else:
        samples = map(partial(_prepared, job), map(read, images) if depth == 1 else read_ahead(read, images, depth))
    return zip(images, samples, strict=True)


def _read_bytes(image: SourceImage) -> int:
    """Return how many bytes to read of an image in a container: one more than allowed is enough to be refused."""
    return min(image.size_bytes, MAX_FILE_BYTES + 1)


@contextmanager
def _read_or_explained(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, StorageError) as error:
        raise StorageError(
            f"{what} was there when the build began and cannot be read now: {error}; if several machines build, give a "
            "folder that all of them share, or a URI"
        ) from error


def _opener(folder: str) -> Callable[[str], IO[bytes]]:
    """Return what opens a file in `folder`; it connects to an object store once, not once a file."""
    if storage.is_local(folder):
        local = storage.local_path(folder)
        return lambda name: open(local / name, "rb")
    filesystem, path = storage.resolve(folder)
    return lambda name: cast(IO[bytes], filesystem.open_input_file(posixpath.join(path, name)))


CHECKS = {"decode": check_decodes, "header": check_header}
