"""Services that get the rows of a run's history, one module each. A module here ends with its table SINKS, as a plugin does."""

from rayprob.registry import join_modules
from rayprob.runs.tracking.sink import SINKS, ServiceSpec, Sink, SinkSpec, TrackedRun, Tracking, of_group, scalars

__all__ = ["SINKS", "ServiceSpec", "Sink", "SinkSpec", "TrackedRun", "Tracking", "of_group", "scalars"]

join_modules(__name__, __path__)
