"""What `gpu.py` has found: its lines, its files, and the sentences that follow from its numbers."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpu_measure import Measurement

UNITS = ("images/s", "ms per step", "MFU", "GiB", "data wait")
HEAD = ("system", "backbone", "settings", "micro batch", "loop", *UNITS)


@dataclass
class Results:
    """What has been found so far, printed and written as it comes."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def machine(self, facts: dict[str, Any]) -> None:
        """Print the machine that the numbers hold for, once."""
        if not self.facts:
            print(words_of(facts), flush=True)
        self.facts = facts or self.facts

    def add(self, one: Measurement, found: dict[str, Any]) -> None:
        """Print a measurement, and write the files."""
        row = {**asdict(one), **found}
        self.rows.append(row)
        print(f"{one}: {in_words(row)}", flush=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "gpu.json").write_text(json.dumps({"machine": self.facts, "rows": self.rows}, indent=1))
        (self.folder / "gpu.md").write_text(self.markdown())

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [
            ", ".join(f"{name} {value}" for name, value in self.facts.items() if value is not None),
            "",
            _cells(HEAD),
            _cells(["---"] * len(HEAD)),
        ]
        for row in self.rows:
            named = (row["name"], row["system"]["backbone"], row["settings"], row["micro_batch"], row["loop"])
            lines.append(_cells((*named, *(row["error"], "", "", "", "")) if "error" in row else (*named, *numbers(row))))
        return "\n".join([*lines, "", *(f"- {sentence}" for sentence in self.sentences()), ""])

    def sentences(self) -> list[str]:
        """Return what the measurements say: our loop against the bare one, and the fastest settings against the default."""
        speed = {
            (row["settings"], row["micro_batch"], row["loop"]): row["images_per_s"]
            for row in self.rows
            if row["name"] == "paper" and "error" not in row
        }
        said = [
            f"rayprob / bare, {settings}, micro batch {size}: {rate / speed[settings, size, 'bare']:.3f}"
            for (settings, size, loop), rate in speed.items()
            if loop == "rayprob" and (settings, size, "bare") in speed
        ]
        ours = {key: rate for key, rate in speed.items() if key[2] == "rayprob"}
        default = max((rate for (settings, *_), rate in ours.items() if settings == "default"), default=None)
        if default:
            settings, size, _ = max(ours, key=ours.__getitem__)
            said.append(f"fastest: {settings} at micro batch {size}, {max(ours.values()) / default:.2f} times the default")
        return said

    def finish(self) -> None:
        """Print the sentences and where the files are."""
        print("\n".join(["", *self.sentences(), f"written: {self.folder / 'gpu.md'}, {self.folder / 'gpu.json'}"]))


def words_of(facts: dict[str, Any]) -> str:
    """Return facts in a line, without those that a machine lacks."""
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)


def in_words(row: dict[str, Any]) -> str:
    """Return the numbers of a row, or its error."""
    if "error" in row:
        return str(row["error"])
    return ", ".join(f"{number} {unit}" for number, unit in zip(numbers(row), UNITS, strict=True) if number)


def numbers(row: dict[str, Any]) -> tuple[str, ...]:
    """Return images/s, ms per step, MFU, memory and data wait as text, empty where a machine has none."""
    mfu, gib = row["mfu"], row["memory_gib"]
    return (
        f"{row['images_per_s']:.1f}",
        f"{row['step_ms']:.1f}",
        f"{mfu:.1%}" if mfu else "",
        f"{gib:.1f}" if gib else "",
        f"{row['data_wait']:.1%}" if row["loop"] == "stream" else "",
    )


def _cells(values: Any) -> str:
    return f"| {' | '.join(map(str, values))} |"
