"""Every key of a recipe, run, sweep and search file says what it means; the reference in docs/ is made from that."""

import importlib.util
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import rayprob
from rayprob.config.parts import PartSpec
from rayprob.config.spec import Spec

pytest.importorskip("sphinx", reason="the reference is made by Sphinx; pip install rayprob[docs]")
EXTENSION = Path(__file__).resolve().parents[2] / "docs" / "_extensions" / "spec_reference.py"


def all_specs() -> set[type[Spec]]:
    for module in pkgutil.walk_packages(rayprob.__path__, "rayprob."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found, open_ = set(), [Spec]
    while open_:
        found |= (below := {spec for kind in open_ for spec in kind.__subclasses__() if spec.__module__.startswith("rayprob")})
        open_ = list(below)
    return found


def test_every_key_says_what_it_means() -> None:
    specification = importlib.util.spec_from_file_location("spec_reference", EXTENSION)
    assert specification
    assert specification.loader
    reference = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(reference)
    specs = all_specs()
    assert len(specs) > 30
    specs -= {PartSpec}  # what kinds of parts have in common: each kind says what its names are
    silent = [f"{spec.__name__}.{name}" for spec in specs for name, text in reference.meanings(spec).items() if not text]
    assert sorted(silent) == []
