"""How samples reach the training processes: a part of run files."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from rayprob.config.spec import Spec


class StreamSpec(Spec):
    """How samples reach the training processes."""

    global_batch: PositiveInt = 64
    """Samples per optimizer step, over all workers."""
    lanes: PositiveInt = 8
    """Independent passes over parts of the data; a multiple of the number of workers (of the maximum, for an elastic run)."""
    window_shards: PositiveInt = 8
    """Number of shards of a lane that are shuffled together."""
    loader_workers: NonNegativeInt = 2
    """Processes per rank that read and decode; 0 decodes in the training process."""
    prefetch: PositiveInt = 2
    """Micro batches that each loader worker prepares ahead."""
    on_bad_sample: Literal["fail", "skip"] = "fail"
    """What to do with a sample that cannot be read: fail, or skip and report it."""
    max_bad_samples: NonNegativeInt = 100
    """With on_bad_sample: skip, fail after more than this many."""
    check_shards: bool = True
    """Check the sha256 of whole local shards during the first epoch."""
    cache_dir: str = "~/.cache/rayprob/shards"
    """Where shards of remote datasets are cached; the ranks of a node share it."""
    cache_bytes: PositiveInt = 64 * 2**30
    """Upper limit of that cache, in bytes."""
    retries: NonNegativeInt = 5
    """Number of retries of a failed download."""
