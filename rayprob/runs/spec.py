"""A run file as frozen specs; `rules.py` has the rules between its parts."""

import math
import platform
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, SerializeAsAny, field_validator, model_validator

from rayprob.config.kinds import RUN_FILE, FileKind
from rayprob.config.spec import PluginSpec, Spec
from rayprob.files import storage, uris
from rayprob.loader.augment import TransformSpec
from rayprob.loader.streams import StreamSpec
from rayprob.models.auxiliaries import AuxiliarySpec
from rayprob.models.build import ModelSpec
from rayprob.models.losses import LossSpec
from rayprob.runs.card_spec import CardSpec
from rayprob.runs.data_spec import DataSpec
from rayprob.runs.optimizers import OptimizerSpec
from rayprob.runs.schedules import ScheduleSpec
from rayprob.runs.tracking import Tracking


class Duration(Spec):
    """A length of training in exactly one unit; `steps` converts it, once."""

    epochs: float | None = Field(default=None, gt=0, le=1_000_000)
    """Passes over the training split; fractions are allowed."""
    steps: PositiveInt | None = None
    """Optimizer steps."""
    samples: PositiveInt | None = None
    """Training samples, rounded up to whole steps."""

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        given = [unit for unit in ("epochs", "steps", "samples") if getattr(self, unit) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a duration takes exactly one of epochs, steps and samples, the others null; got {', '.join(given) or 'none'}"
            )
        return self

    def in_steps(self, steps_per_epoch: int, global_batch: int) -> int:
        """Return the duration in optimizer steps, rounded up, at least 1."""
        if self.steps is not None:
            return self.steps
        if self.samples is not None:
            return math.ceil(self.samples / global_batch)
        assert self.epochs is not None
        return max(1, round(self.epochs * steps_per_epoch))


class TransformsSpec(Spec):
    """The training transform and the evaluation transform; the bundle stores the latter."""

    train: SerializeAsAny[TransformSpec]
    """The transform of training images."""
    evaluate: SerializeAsAny[TransformSpec]
    """The transform of evaluation images; prediction uses it as well."""


class EvaluationSpec(Spec):
    """When to evaluate on which split, and when to stop early. `val` is only for reporting, so it also needs `spends_val`."""

    split: str = "holdout"
    """The split used for early stopping and for choosing the best checkpoint."""
    spends_val: bool = False
    """Allow `split: val`. Its numbers are then too optimistic to report."""
    every: Duration = Duration(epochs=1)
    """How often to evaluate."""
    micro_batch: PositiveInt = 64
    """Samples per forward pass in evaluation."""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a better mAP; null never stops early."""
    min_gain: float = Field(default=0.0, ge=0)
    """Smallest gain in mAP that counts as better."""


class EmaSpec(Spec):
    """Exponential moving average of the weights: a past sample's influence halves every `half_life_samples`."""

    half_life_samples: PositiveInt
    """Training samples after which the influence of a weight in the average has halved."""


class PrecisionSpec(Spec):
    """Arithmetic and memory layout. `auto` is channels_last, with bf16 on a GPU and float32 on a CPU.

    On a GPU, `tf32` and `cudnn_benchmark` apply while the run trains, evaluates or computes features; predictions for images do
    not use them. `benchmarks/gpu.py` measures the gain of each on a machine.
    """

    later_keys: ClassVar[frozenset[str]] = frozenset({"tf32", "cudnn_benchmark"})

    autocast: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Number format of the forward pass: auto is bf16 on a GPU and float32 on a CPU."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory layout NHWC; auto is true."""
    compile: bool = False
    """Compile the classifier with torch.compile."""
    tf32: bool | Literal["auto"] = "auto"
    """Round the inputs of float32 operations to TF32 on a GPU: in all of them (true), in none (false), or, as PyTorch does
    by default, in convolutions but not in matrix products (auto). With bf16, only pooling, head and loss are in float32.
    """
    cudnn_benchmark: bool = False
    """Let cuDNN time its algorithms for every new shape of a convolution, and use the fastest. Results then differ between runs
    by rounding, because the choice may.
    """


class CheckpointSpec(Spec):
    """Checkpoints are written at every evaluation, and optionally every given number of steps or minutes."""

    every_steps: PositiveInt | None = None
    """Write a checkpoint every this many steps, in addition to those at evaluations."""
    every_minutes: PositiveFloat | None = 10.0
    """Write a checkpoint every this many minutes; null for none."""
    keep_best: PositiveInt = 1
    """How many of the best checkpoints to keep; the two newest are always kept."""


class PlacementSpec(Spec):
    """Where a run computes: by default one Ray worker on every GPU of the cluster, or one on the CPU."""

    num_workers: PositiveInt | Literal["auto"] | tuple[PositiveInt, PositiveInt] = "auto"
    """Training processes, one per GPU; [min, max] trains on as many as are available, and adapts when nodes are lost or
    return.
    """
    resize_every_s: PositiveInt = 600
    """How often an elastic run looks for more workers, in seconds. Growing repeats the steps since the last checkpoint."""
    use_gpu: bool | Literal["auto"] = "auto"
    """Train on GPUs; auto uses them if the cluster has any."""
    cpus_per_worker: PositiveInt | Literal["auto"] = "auto"
    """CPU cores reserved per worker; auto divides the cores of a node among its workers."""
    micro_batch: PositiveInt | Literal["auto"] = "auto"
    """Samples per forward pass; auto uses a worker's whole share of the global batch."""
    max_failures: int = Field(default=3, ge=-1)
    """Restarts from the last checkpoint before the run fails; -1 for no limit."""
    collective_timeout_s: PositiveInt = 1800
    """How long a rank waits for the others, in seconds."""
    storage_patience_s: NonNegativeInt = 900
    """How long to retry remote storage that fails, in seconds from the first error."""

    @field_validator("num_workers", mode="before")
    @classmethod
    def _whole_gpus(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            whole = [number for number in value if isinstance(number, int) and not isinstance(number, bool) and number > 0]
            if not (len(whole) == len(value) == 2 and whole[0] <= whole[1]):
                raise ValueError("expected an integer or [min, max] of integers from 1, min <= max")
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(
                "expected an integer or [min, max]: a worker uses a whole GPU, because trainings that share one halve "
                "each other's speed and run out of memory together; use 1 and smaller batches"
            )
        return value

    @model_validator(mode="after")
    def _storage_before_collectives(self) -> "PlacementSpec":
        if self.storage_patience_s >= self.collective_timeout_s:
            raise ValueError(
                f"storage_patience_s {self.storage_patience_s} must be less than collective_timeout_s "
                f"{self.collective_timeout_s}: while one rank waits for storage, the others wait for it"
            )
        return self

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change."""
        return isinstance(self.num_workers, tuple)

    @property
    def most_workers(self) -> int | Literal["auto"]:
        """The number of workers when none is missing."""
        return self.num_workers[1] if isinstance(self.num_workers, tuple) else self.num_workers


class Run(PluginSpec):
    """One training run; frozen. `read` and `parse` raise a SpecError that lists every fault with its key.

    Example::

        run = rp.Run.read("tune_configs/demo.yaml", ["optimizer.lr=0.1", "duration.epochs=3"])
        run.run_folder                                      # demo/run
        print(run.to_yaml())                                # all keys, defaults included
    """

    file_kind: ClassVar[FileKind | None] = RUN_FILE
    later_keys: ClassVar[frozenset[str]] = PluginSpec.later_keys | {"auxiliary", "card", "tracking"}

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run: letters, digits, ., _ and -."""
    folder: str | None = None
    """Folder or URI of everything the run writes; by default runs/NAME."""
    seed: int = 0
    """Seed of weights, order, augmentation and dropout."""
    data: DataSpec
    """The dataset."""
    stream: StreamSpec
    """How training processes read samples."""
    transforms: TransformsSpec
    """How images become inputs."""
    model: ModelSpec
    """The classifier."""
    loss: SerializeAsAny[LossSpec] = LossSpec()
    """The loss."""
    auxiliary: SerializeAsAny[AuxiliarySpec] | None = None
    """A second term next to the loss, which shapes the features; null for none."""
    optimizer: SerializeAsAny[OptimizerSpec] = OptimizerSpec()
    """The optimizer."""
    schedule: SerializeAsAny[ScheduleSpec] = ScheduleSpec()
    """The learning-rate schedule."""
    duration: Duration
    """How long to train."""
    ema: EmaSpec | None = None
    """Average the weights over training and evaluate the average; null for no average."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """When and on which split to evaluate."""
    precision: PrecisionSpec = PrecisionSpec()
    """Number format and memory layout."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When to write checkpoints."""
    placement: PlacementSpec = PlacementSpec()
    """Where the run computes; does not change any result."""
    log_every_steps: PositiveInt = 10
    """How often to log loss, learning rate and speed."""
    tracking: Tracking = Field(default={})
    """Services that get the history of the run next to TensorBoard, each by its name: mlflow, wandb, or one of a plugin."""
    card: CardSpec = CardSpec()
    """What only people know about the model, for its card."""

    @property
    def run_folder(self) -> str:
        """The folder of everything that this run writes."""
        return self.folder or f"runs/{self.name}"

    def shares(self, world_size: int) -> int:
        """Return the number of equal shares of a global batch: one per rank, or one per rank of the largest allowed world size.

        Micro batches are parts of a share, so neither they nor their memory change with the world size.
        """
        return self.placement.num_workers[1] if isinstance(self.placement.num_workers, tuple) else world_size

    def micro_batch(self, world_size: int) -> int:
        """Return the samples per rank and forward pass."""
        if self.placement.micro_batch == "auto":
            return self.stream.global_batch // self.shares(world_size)
        return self.placement.micro_batch


# Keys that change where or how work is done but no number of the result.
FREE_KEYS = ("folder", "placement", "checkpoint", "log_every_steps", "card", "tracking")
# The dataset is identified by its fingerprint, wherever it is.
FREE_STREAM_KEYS = ("loader_workers", "prefetch", "check_shards", "cache_dir", "cache_bytes", "retries")


def identity(run: Run) -> dict[str, object]:
    """Return the identity of the run: all its keys except those that do not change its result."""
    value = run.model_dump(mode="json", exclude=set(FREE_KEYS))
    value["data"].pop("root")
    if set(run.data.weight_of_each) == {1.0}:
        value["data"].pop("weights", None)
    if not run.evaluation.spends_val:
        value["evaluation"].pop("spends_val")  # runs of 0.1 did not record it
    value["stream"] = {key: part for key, part in value["stream"].items() if key not in FREE_STREAM_KEYS}
    return value


def described(run: Run) -> dict[str, Any]:
    """Return the `run` and `run_fingerprint` that bundles and tables record, which do not depend on where it is tracked."""
    untracked = run.model_copy(update={"tracking": {}})
    return {"run": untracked.model_dump(mode="json"), "run_fingerprint": untracked.fingerprint}


def received(sent: dict[str, Any]) -> Run:
    """Return the run that another process sent as plain data. Raises SpecError if this node lacks one of its plugins."""
    return Run.parse(sent, where=f"the run, as node {platform.node()} reads it,")


def absolute(run: Run) -> Run:
    """Return the run with absolute paths, because workers run in their own folders; URIs are unchanged."""
    paths = {
        "folder": uris.absolute(run.run_folder),
        "data": run.data.moved(uris.absolute),
        "tracking": {name: spec.absolute() for name, spec in run.tracking.items()},
    }
    model = run.model.model_copy(update={"head": run.model.head.with_absolute_paths(_absolute_where_local)})
    if model.weights is not None:
        model = model.model_copy(update={"weights": _absolute_where_local(model.weights)})
    return run.model_copy(update={**paths, "model": model})


def _absolute_where_local(uri: str) -> str:
    """Return the absolute path of a file on this machine; URIs and a library's names are returned unchanged."""
    return uris.absolute(uri) if storage.is_local(uri) and storage.local_path(uri).exists() else uri
