"""A finding, and how equal ones of several nodes become one."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "fault")
SHOWN = 4


@dataclass(frozen=True)
class Finding:
    """What one check found `where`; `wanted` and `remedy` say what would be better and how to get there."""

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
    """Return the nodes as words: at most SHOWN names, then how many more."""
    names = list(nodes)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def everywhere(nodes: Mapping[str, object]) -> str:
    """Return how all nodes are called together."""
    return f"all {len(nodes)} nodes" if len(nodes) > 1 else named(nodes)


def by_level(
    check: str, levels: Mapping[str, Level], found: Callable[[list[str]], str], wanted: str, remedy: str
) -> list[Finding]:
    """Return a finding for each level above ok that nodes have, or one ok where all are; `found` says what nodes have."""
    findings = []
    for level in reversed(LEVELS[1:]):
        nodes = [node for node, its in levels.items() if its == level]
        if nodes:
            findings.append(Finding(check, level, named(nodes), found(nodes), wanted, remedy))
    if findings or not levels:
        return findings
    return [Finding(check, "ok", everywhere(levels), found(list(levels)))]
