"""`import rayprob`: the public names, their signatures, and what importing them costs."""

import inspect
import pickle
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import rayprob as rp

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchvision", "ray", "numpy", "pydantic", "pyarrow", "scipy", "cv2", "PIL", "rich", "typer", "yaml")

SIGNATURES = {
    "Answer": "(asked: rayprob.api.answer.Asked, record: rayprob.predict.record.Record) -> None",
    "Answer.explain": "(self, label: str) -> rayprob.probability.queries.explain.Why",
    "Answer.given": "(self, evidence: collections.abc.Mapping[str, bool]) -> 'Answer'",
    "Answer.maps": "(self, labels: str | collections.abc.Sequence[str] | None = None, method: str = 'auto') -> "
    "list[rayprob.explain.explanation.Explanation]",
    "Answer.prob": "(self, query: str) -> float",
    "Answer.to_dict": "(self) -> dict[str, object]",
    "Answer.top_sets": "(self, k: int = 5) -> list[rayprob.predict.record.SetLine]",
    "Client": "(url, *, token=None, bundle=None, timeout_s=120.0)",
    "Client.predict": "(self, images, *, evidence=None, rule=None, queries=(), top=5, explain=False)",
    "Dataset.open": "(root: str) -> 'Dataset'",
    "Dataset.split": "(self, name: str) -> rayprob.data.manifest.dataset.Manifest",
    "Model.explain": "(self, image, labels=None, method='auto')",
    "Model.predict": "(self, images, *, evidence=(), rule=None, queries=(), batch=16)",
    "Recipe.read": "(path: str | pathlib.Path, overrides: collections.abc.Sequence[str] = ()) -> Self",
    "Run.read": "(path: str | pathlib.Path, overrides: collections.abc.Sequence[str] = ()) -> Self",
    "Sweep.read": "(path: str | pathlib.Path, overrides: collections.abc.Sequence[str] = ()) -> Self",
    "calibrate": "(run_folder, *, method='auto', prior='auto', objectives=('OF1', 'CF1'), smoothing=None, precision=None, "
    "alphas=(0.05, 0.1, 0.2), known_rate=None)",
    "draw_scenes": "(folder, *, num_train=4000, num_val=1000, size_px=160, num_labels=80, seed=0, label_noise=0.0, "
    "num_processes=1, on_progress)",
    "evaluate": "(run_folder, split='val', *, data=None, out=None, on_progress)",
    "list_runs": "(folder='.', *, every=False)",
    "load": "(folder, *others, mc_dropout=0)",
    "mean_average_precision": "(scores_NL, targets_NL, known_NL=None, *, variant='exact')",
    "shard": "(recipe, *, grow=False, use_ray=True, on_progress)",
    "train": "(run, *, fresh=False, on_event)",
    "tune": "(sweep, *, fresh=False, on_event)",
}
PROPERTIES = {
    "Answer": "answers distribution entropy evidence guarantee label_set marginals marginals_L name notes rule uncertainty",
    "Client": "guarantees labels rules",
    "Model": "guarantees labels rules",
}


def run(code: str) -> str:
    """Return what a fresh process prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_public_names_are_these() -> None:
    assert rp.__all__ == sorted(rp.__all__)
    assert set(rp.__all__) == {name.split(".")[0] for name in SIGNATURES} | {"RayprobError", "Model"}
    assert dir(rp) == sorted([*rp.__all__, "__version__"])
    with pytest.raises(AttributeError, match="module 'rayprob' has no attribute 'trian'"):
        _ = rp.trian


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_a_promise(name: str) -> None:
    what = rp
    for part in name.split("."):
        what = getattr(what, part)
    found, pinned = inspect.signature(what), SIGNATURES[name]
    assert pinned in (str(found), _without_types(found))


def _without_types(signature: inspect.Signature) -> str:
    """Return a signature without annotations, and without defaults that are functions."""
    parameters = [
        parameter.replace(
            annotation=inspect.Parameter.empty,
            default=inspect.Parameter.empty if inspect.isfunction(parameter.default) else parameter.default,
        )
        for parameter in signature.parameters.values()
    ]
    names = [str(parameter) for parameter in parameters]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        names.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    return f"({', '.join(names)})"


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_are_a_promise(name: str) -> None:
    found = [key for key, value in vars(getattr(rp, name)).items() if isinstance(value, property) and key[0] != "_"]
    assert sorted(found) == PROPERTIES[name].split()


def test_import_rayprob_imports_nothing_heavy() -> None:
    found = run(f"import sys, rayprob; print([m for m in {HEAVY} if m in sys.modules], len(dir(rayprob)))")
    assert found == "[] 18\n"


@pytest.mark.parametrize(("name", "module"), [("train", "loop"), ("calibrate", "fitting")])
def test_functions_and_wings_of_the_same_names_are_both_found(name: str, module: str) -> None:
    wing = import_module(f"rayprob.{name}")
    setattr(rp, name, wing)  # as the import system does, when a module of the wing is imported first
    assert inspect.isfunction(getattr(rp, name))
    below: dict[str, object] = {}
    exec(f"import rayprob.{name}.{module} as found", below)
    assert below["found"] is sys.modules[f"rayprob.{name}.{module}"] is getattr(wing, module)
    assert pickle.loads(pickle.dumps(getattr(rp, name))) is getattr(rp, name)


@pytest.mark.parametrize("name", [name for name in rp.__all__ if name != "RayprobError"])
def test_every_public_name_is_documented_with_an_example(name: str) -> None:
    documented = inspect.getdoc(getattr(rp, name)) or ""
    assert "Example::" in documented
    assert "Raises" in documented or inspect.isclass(getattr(rp, name))


def test_types_are_shipped() -> None:
    assert (ROOT / "rayprob" / "py.typed").exists()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {"py.typed", "**/*.html"} <= set(settings["tool"]["setuptools"]["package-data"]["rayprob"])
