"""rayprob: distributed training of multi-label image classifiers whose probabilities can be trusted.

    import rayprob as rp

    run = rp.Run.read("tune_configs/demo.yaml", ["optimizer.lr=0.1"])
    rp.train(run)
    rp.calibrate(run.run_folder)
    answer = rp.load(run.run_folder).predict("photo.jpg", evidence={"dining table": True})
    answer.label_set, answer.marginals, answer.prob("P(fork | !person)")

The names in `__all__` are the public API; everything else may change. A name is imported when it is first used, so that
`import rayprob` costs nothing. Every error that a user can correct is a `RayprobError`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayprob.api.answer import Answer
    from rayprob.api.client import Client
    from rayprob.api.datasets import draw_scenes, shard
    from rayprob.api.model import Model, load
    from rayprob.api.verbs import calibrate, evaluate, train, tune
    from rayprob.data.building.recipe import Recipe
    from rayprob.data.manifest.dataset import Dataset
    from rayprob.errors import RayprobError
    from rayprob.metrics.ranking import mean_average_precision
    from rayprob.runs.listing import list_runs
    from rayprob.runs.spec import Run
    from rayprob.sweep.search import Sweep

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Client",
    "Dataset",
    "Model",
    "RayprobError",
    "Recipe",
    "Run",
    "Sweep",
    "calibrate",
    "draw_scenes",
    "evaluate",
    "list_runs",
    "load",
    "mean_average_precision",
    "shard",
    "train",
    "tune",
]

_MODULES = {
    "rayprob.api.answer": ("Answer",),
    "rayprob.api.client": ("Client",),
    "rayprob.api.datasets": ("draw_scenes", "shard"),
    "rayprob.api.model": ("Model", "load"),
    "rayprob.api.verbs": ("calibrate", "evaluate", "train", "tune"),
    "rayprob.data.building.recipe": ("Recipe",),
    "rayprob.data.manifest.dataset": ("Dataset",),
    "rayprob.errors": ("RayprobError",),
    "rayprob.metrics.ranking": ("mean_average_precision",),
    "rayprob.runs.listing": ("list_runs",),
    "rayprob.runs.spec": ("Run",),
    "rayprob.sweep.search": ("Sweep",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_WINGS = ("calibrate", "train")  # subpackages that share their name with a public function


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'rayprob' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    if name in _WINGS:  # the function's attributes are the wing's, so `import rayprob.train.launch as launch` works too
        value.__dict__ = vars(import_module(f"rayprob.{name}"))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Face(ModuleType):
    """This module: `train` and `calibrate` stay the functions when the wings of the same names are imported below it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _WINGS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
