"""What `rayprob serve` is given, as frozen specs: which bundles, how many replicas, what a request may ask for."""

import re
from typing import ClassVar, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator
from yaml import YAMLError

from rayprob.config.kinds import SERVE_FILE, FileKind
from rayprob.config.spec import PluginSpec, Spec
from rayprob.errors import QueryError, RayprobError
from rayprob.files import storage, uris
from rayprob.images.header import MAX_FILE_BYTES, MAX_PIXELS
from rayprob.runs.listing.row import yaml_mapping
from rayprob.runs.paths import RunFolder
from rayprob.serve.options import Options

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
OF_DATASET = 12  # examples of a run's dataset, by default


class Limits(Spec):
    """What one request, and all requests together, may take."""

    upload_bytes: int = Field(default=16 * 2**20, gt=0, le=MAX_FILE_BYTES)
    """Bytes of a request's body, with the image in it."""
    pixels: int = Field(default=MAX_PIXELS, gt=0, le=MAX_PIXELS)
    """Pixels of an image, read from its header before it is decoded."""
    queries: PositiveInt = 100
    """Queries per request."""
    query_letters: PositiveInt = 2000
    """Characters per query."""
    top: PositiveInt = 100
    """The largest `top`: labels and label sets to list; also the most labels to explain."""
    timeout_s: PositiveFloat = 60.0
    """Seconds until a request without an answer is given up, from its first byte."""
    in_flight: PositiveInt = 128
    """Requests that wait or are computed at the same time; more are refused with 503."""
    seen_images: PositiveInt = 1000
    """Images per replica that are remembered for further questions."""
    seen_bytes: PositiveInt = 256 * 2**20
    """Bytes per replica of what is remembered."""

    def check(self, options: Options) -> None:
        """Raise QueryError if a question has too many or too long queries, or lists too much."""
        if len(options.queries) > self.queries:
            raise QueryError(f"got {len(options.queries):,} queries; at most {self.queries:,} are allowed per request")
        for place, text in enumerate(options.queries, start=1):
            if len(text) > self.query_letters:
                raise QueryError(f"query {place} has {len(text):,} characters; at most {self.query_letters:,} are allowed")
        if options.top > self.top:
            raise QueryError(f"top must be at most {self.top:,} here; got {options.top:,}")
        if not isinstance(options.explain, bool) and len(options.explain) > self.top:
            raise QueryError(f"explain takes at most {self.top:,} labels here; got {len(options.explain):,}")


class BatchSpec(Spec):
    """How images of several requests share a forward pass."""

    images: PositiveInt = 16
    """The most images per forward pass."""
    wait_ms: NonNegativeFloat = 5.0
    """How long the first image of a batch waits for others that are being decoded; images that come while a forward pass is
    computed share the next one in any case.
    """


class ReplicaSpec(Spec):
    """How many processes serve each bundle."""

    number: PositiveInt | None = None
    """Replicas per bundle; null starts one per GPU, or a single one without GPUs."""
    most: PositiveInt | None = None
    """Start more replicas under load, up to this many; null never does."""
    cpus: PositiveFloat | None = None
    """CPU cores per replica, as many threads compute; null shares the cores evenly."""
    gpus: NonNegativeFloat | None = None
    """GPUs per replica; null shares those that there are, so set it where a cluster adds nodes."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most is not None and self.most < (self.number or 1):
            raise ValueError(f"the most replicas must be at least the number of replicas, {self.number}; got {self.most}")
        return self


class ServeSpec(PluginSpec):
    """Everything that decides what a server answers, and how."""

    bundles: dict[str, str] = Field(min_length=1)
    """The folder or URI of each bundle or run, by the name that requests use; the first one is the default."""
    replicas: ReplicaSpec = ReplicaSpec()
    """Replicas of each bundle."""
    batch: BatchSpec = BatchSpec()
    """Batches of images."""
    limits: Limits = Limits()
    """What requests may take."""
    examples: NonNegativeInt | None = None
    """How many images of its run's `val` split the page offers, for a bundle without a folder `examples`. null offers 12 if
    `rayprob serve` needs no token, because only this machine can connect, and else none.
    """
    token_file: str | None = None
    """A file with the token that requests must send; null asks for none."""
    token_variable: str | None = None
    """An environment variable with that token, such as Kubernetes sets from a Secret."""
    reload_s: NonNegativeFloat = 5.0
    """Seconds between two checks whether a bundle has changed; 0 never checks."""
    drain_s: NonNegativeFloat = 30.0
    """How long open requests may take to finish when the server stops."""

    @field_validator("bundles")
    @classmethod
    def _usable_names(cls, bundles: dict[str, str]) -> dict[str, str]:
        for name in bundles:
            if not re.fullmatch(NAME, name):
                raise ValueError(
                    f"the name of a bundle may have up to 63 letters, digits, dots, dashes and underscores; got {name!r:.80}"
                )
        return bundles

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token_file and self.token_variable:
            raise ValueError("give token_file or token_variable, not both")
        return self

    @property
    def most_examples(self) -> int:
        """The number of examples of a run's dataset."""
        return self.examples or 0


class ServeFile(ServeSpec):
    """A serve file: what to serve, and where. A Serve config has the same keys as `args`, but its own host and port."""

    file_kind: ClassVar[FileKind | None] = SERVE_FILE

    host: str = "127.0.0.1"
    """The address to listen at; another than this machine's own requires a token."""
    port: int = Field(default=8000, gt=0, lt=2**16)
    """The port to listen at."""

    @property
    def most_examples(self) -> int:
        """The number of examples of a run's dataset."""
        needs_token = self.token_file is not None or self.token_variable is not None
        return OF_DATASET if self.examples is None and not needs_token else super().most_examples


def run_name(folder: str) -> str:
    """Return the name of the run in a folder; "" if there is none, or if a bundle cannot have it."""
    path = RunFolder(folder).run_file
    try:
        name = str(yaml_mapping(path).get("name", "")) if storage.exists(path) else ""
    except (RayprobError, ValueError, YAMLError):  # a damaged run file is not what is served
        return ""
    return name if re.fullmatch(NAME, name) else ""


def name_and_folder(text: str) -> tuple[str, str]:
    """Return the name and folder of `NAME=FOLDER`, or of a folder, whose name is that of the run or bundle."""
    name, equals, folder = text.partition("=")
    if equals and "/" not in name:
        return name, folder
    above, last = uris.split(text)
    return (uris.split(above)[1] if above and RunFolder(above).bundle == text.rstrip("/") else last) or text, text
