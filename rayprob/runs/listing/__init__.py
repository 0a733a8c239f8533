"""The runs below a folder, at a glance."""

from rayprob.runs.listing.find import list_runs
from rayprob.runs.listing.row import ListedRun

__all__ = ["ListedRun", "list_runs"]
