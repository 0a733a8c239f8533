"""A finding, and how equal findings of several nodes are merged."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "fault")
SHOWN = 4


@dataclass(frozen=True)
class Finding:
    """What one check found `where`; `wanted` is what it requires and `remedy` how to get there."""

    check: str
    level: Level
    where: str
    found: str
    wanted: str = ""
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return plain data."""
        return asdict(self)


def named(nodes: Mapping[str, object] | list[str]) -> str:
    """Return the nodes as text: at most SHOWN names, then the number of others."""
    names = list(nodes)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def everywhere(nodes: Mapping[str, object]) -> str:
    """Return the text for all nodes together."""
    return f"all {len(nodes)} nodes" if len(nodes) > 1 else named(nodes)


def by_level(
    check: str, levels: Mapping[str, Level], found: Callable[[list[str]], str], wanted: str, remedy: str
) -> list[Finding]:
    """Return one finding per level above ok, or a single ok if all nodes are ok; `found` describes what nodes have."""
    findings = []
    for level in reversed(LEVELS[1:]):
        nodes = [node for node, its in levels.items() if its == level]
        if nodes:
            findings.append(Finding(check, level, named(nodes), found(nodes), wanted, remedy))
    if findings or not levels:
        return findings
    return [Finding(check, "ok", everywhere(levels), found(list(levels)))]
