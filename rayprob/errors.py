"""The exception tree. Every error takes one complete message, so that it can be pickled between processes.

RayprobError
├── SpecError          a recipe or run file with an invalid key or value
├── LabelError         an unknown label name, or two label spaces that differ
│   └── UnknownLabel   an unknown label name; a KeyError, too
├── StorageError       a path or URI cannot be read or written
├── DataError          a fault in the data itself
│   ├── SourceError    annotations or images before sharding
│   ├── DatasetError   a built dataset: manifest, shard, counts
│   └── SampleError    one sample: its bytes, crc or image
├── MetricError        rows missing, duplicated, or without what a metric needs
├── CalibrationError   predictions that do not allow the requested fit
├── ModelError         an unknown part, or weights that do not fit
├── BundleError        a bundle that this version cannot load
├── QueryError         a question that cannot be read or has no answer
├── ServeError         a server that does not start, does not answer, or refuses a request
│   └── UnknownImage   an image that the server does not remember
└── RunError           a run that cannot start, resume or continue
    ├── NonFiniteLoss  the loss became inf or nan
    └── OutOfMemory    a micro batch does not fit into the device
"""


class RayprobError(Exception):
    """Base of all errors that a user can fix; its message states what was found, what is allowed and what to do."""


class SpecError(RayprobError):
    """A recipe or run file has an invalid key or value."""


class LabelError(RayprobError):
    """An unknown label name, or two label spaces that differ."""


class UnknownLabel(LabelError, KeyError):
    """An unknown label name, where `KeyError` is what Python expects: `answer.marginals["frok"]`."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would put it in quotes


class StorageError(RayprobError):
    """A path or URI cannot be read or written."""


class DataError(RayprobError):
    """A fault in the data itself."""


class SourceError(DataError):
    """A fault in annotations or images, before sharding."""


class DatasetError(DataError):
    """A fault in a built dataset: its manifest, a shard, a count."""


class SampleError(DataError):
    """A fault in one sample: its bytes, crc or image."""


class MetricError(RayprobError):
    """Rows are missing, duplicated, or lack what a metric needs."""


class CalibrationError(RayprobError):
    """Predictions do not allow the requested calibrator, thresholds or guarantee to be fitted."""


class ModelError(RayprobError):
    """An unknown part of a model, or weights that do not fit it."""


class BundleError(RayprobError):
    """A bundle that this version of rayprob cannot load."""


class QueryError(RayprobError):
    """A question that cannot be read or has no answer; `at` is the position of the fault in a query's text, if it has one."""

    at: int | None = None


class ServeError(RayprobError):
    """A server that does not start, does not answer, or refuses a request."""


class UnknownImage(ServeError):
    """An image that the server does not remember; send it again."""


class RunError(RayprobError):
    """A run that cannot start, resume or continue."""


class NonFiniteLoss(RunError):
    """The loss became inf or nan; the message names the step and the samples."""


class OutOfMemory(RunError):
    """A micro batch does not fit into the memory of its device."""


def one_line(error: object, most: int | None = 300) -> str:
    """Return the message of an error on one line of at most `most` characters; the name of its type if it has no message."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def as_error(noted: dict[str, str]) -> RayprobError:
    """Return the error that another process noted by its `kind` and `message`; a RunError if rayprob has no such kind."""
    kind = globals().get(noted["kind"])
    is_ours = isinstance(kind, type) and issubclass(kind, RayprobError)
    return (kind if is_ours else RunError)(noted["message"])  # type: ignore[misc]
