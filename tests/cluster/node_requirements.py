"""Writes cluster/node/requirements.txt: the part of constraints.txt that a training node needs."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
HEADER = """\
# What a node needs to train and to serve: the run-time part of constraints.txt, for Linux on x86-64. Written by
#   python -m tests.cluster.node_requirements > cluster/node/requirements.txt
"""


def node_requirements() -> str:
    """Return the pins of rayprob's dependencies, timm and serving, and of all that these need, as a requirements file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["timm"], *extras["serve"]]
    pins = read_pins(ROOT / "constraints.txt")
    names = closure(map(Requirement, wanted)) - {"setuptools"}  # every environment has one, and `pip freeze` leaves it out
    return HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(names))


def read_pins(path: Path) -> dict[str, str]:
    """Return {canonical name: version} of the lines `name==version`."""
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(), re.M)}


def closure(requirements: Iterator[Requirement]) -> set[str]:
    """Return the canonical names of the requirements and of all that these need on this machine, extras included."""
    found: set[tuple[str, str]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in found:
                found.add((name, extra))
                waiting += needed_by(name, extra)
    return {name for name, _ in found}


def needed_by(name: str, extra: str) -> list[Requirement]:
    needed = [Requirement(line) for line in requires(name) or ()]
    return [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]


if __name__ == "__main__":
    print(node_requirements(), end="")
