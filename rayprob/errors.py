"""The exception tree. Every error takes one finished message, so that it survives pickling between processes.

RayprobError
├── SpecError          a recipe or run file says something that cannot be
├── LabelError         an unknown label name, or two label spaces that differ
├── StorageError       a path or URI cannot be read or written
├── DataError          the data itself is at fault
│   ├── SourceError    annotations or images before sharding
│   ├── DatasetError   a built dataset: manifest, shard, counts
│   └── SampleError    one sample: its bytes, crc or JPEG
├── MetricError        rows missing, double, or without what a metric needs
├── CalibrationError   predictions that cannot carry what is to be fitted on them
├── ModelError         an unknown part, or weights that do not fit
├── BundleError        a bundle that this version cannot load
├── QueryError         a question that cannot be read or has no answer
└── RunError           a run that cannot start, resume or go on
    ├── NonFiniteLoss  the loss became inf or nan
    └── OutOfMemory    a micro batch does not fit into the device
"""


class RayprobError(Exception):
    """Base of all errors that a user can mend; its message says what was found, what is allowed and what to do."""


class SpecError(RayprobError):
    """A recipe or run file says something that cannot be."""


class LabelError(RayprobError):
    """An unknown label name, or two label spaces that differ."""


class StorageError(RayprobError):
    """A path or URI cannot be read or written."""


class DataError(RayprobError):
    """The data itself is at fault."""


class SourceError(DataError):
    """Annotations or images are at fault before sharding."""


class DatasetError(DataError):
    """A built dataset is at fault: its manifest, a shard, a count."""


class SampleError(DataError):
    """One sample is at fault: its bytes, crc or JPEG."""


class MetricError(RayprobError):
    """Rows are missing, double, or lack what a metric needs."""


class CalibrationError(RayprobError):
    """Predictions cannot carry the calibrator, thresholds or guarantee that is to be fitted on them."""


class ModelError(RayprobError):
    """An unknown part of a model, or weights that do not fit it."""


class BundleError(RayprobError):
    """A bundle that this version of rayprob cannot load."""


class QueryError(RayprobError):
    """A question that cannot be read or has no answer."""


class RunError(RayprobError):
    """A run that cannot start, resume or go on."""


class NonFiniteLoss(RunError):
    """The loss became inf or nan; the message names the step and the samples."""


class OutOfMemory(RunError):
    """A micro batch does not fit into the memory of its device."""


def one_line(error: object, most: int | None = 300) -> str:
    """Return the message of an error on one line of at most `most` letters; the name of its type where it has none."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def as_error(noted: dict[str, str]) -> RayprobError:
    """Return the error that another process noted by its `kind` and `message`; a RunError where rayprob has no such kind."""
    kind = globals().get(noted["kind"])
    is_ours = isinstance(kind, type) and issubclass(kind, RayprobError)
    return (kind if is_ours else RunError)(noted["message"])  # type: ignore[misc]
