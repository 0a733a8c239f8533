"""The kinds of YAML files that rayprob reads, recognised by their top-level keys, and the command that takes each."""

from collections.abc import Mapping
from dataclasses import dataclass

from rayprob.errors import SpecError


@dataclass(frozen=True)
class FileKind:
    """A kind of file: its name, the command that takes it, and the keys of which it has at least `least`, unlike others.

    `keys` are all its top-level keys where a command checks them before it imports what their values need.
    """

    name: str
    command: str
    marks: tuple[str, ...]
    least: int = 1
    keys: tuple[str, ...] = ()

    def describes(self, value: Mapping[str, object]) -> bool:
        """Return whether a mapping looks like this kind."""
        return sum(key in value for key in self.marks) >= self.least


RUN_KEYS = (
    *("plugins", "name", "folder", "seed", "data", "stream", "transforms", "model", "loss", "auxiliary", "optimizer"),
    *(
        "schedule",
        "duration",
        "ema",
        "evaluation",
        "precision",
        "checkpoint",
        "placement",
        "log_every_steps",
        "tracking",
        "card",
    ),
)
SEARCH_FILE = FileKind("a threshold search", "rayprob calibrate --search", ("thresholds",))
SWEEP_FILE = FileKind("a sweep file", "rayprob tune", ("search",), keys=(*RUN_KEYS, "search"))
SYSTEMS_FILE = FileKind("a systems file", "rayprob tune", ("systems",), keys=("name", "folder", "systems"))
SERVE_FILE = FileKind("a serve file", "rayprob serve", ("bundles",))
RECIPE = FileKind("a recipe", "rayprob shard", ("splits",))
RUN_FILE = FileKind(
    "a run file", "rayprob train", ("data", "stream", "transforms", "model", "duration"), least=2, keys=RUN_KEYS
)
KINDS = (SEARCH_FILE, SWEEP_FILE, SYSTEMS_FILE, SERVE_FILE, RECIPE, RUN_FILE)


def kind_of(value: Mapping[str, object]) -> FileKind | None:
    """Return the kind of a file with these keys; None where they belong to no kind."""
    return next((kind for kind in KINDS if kind.describes(value)), None)


def require_kind(value: Mapping[str, object], wanted: FileKind | None, path: object) -> None:
    """Raise SpecError, which names the right command, for a file that is clearly of another kind than `wanted`."""
    found = kind_of(value)
    if wanted is not None and found not in (None, wanted):
        assert found is not None
        add = ", or add `search:`" if (found, wanted) == (RUN_FILE, SWEEP_FILE) else ""
        raise SpecError(f"{path} is {found.name}, not {wanted.name}; use `{found.command} {path}`{add}")
