"""Which batches, lanes and workers fit together, and what to set if they do not. Every hint is checked before it is given."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rayprob.errors import SpecError
from rayprob.loader.order import divisors

KEYS = {
    "workers": "placement.num_workers",
    "lanes": "stream.lanes",
    "global_batch": "stream.global_batch",
    "micro_batch": "placement.micro_batch",
}


@dataclass(frozen=True)
class Sizes:
    """The sizes that divide a split into steps; `workers` is the maximum and `least` the minimum number of workers.

    `micro_batch` None means auto: a worker's whole share of the global batch.
    """

    num_samples: int
    global_batch: int
    lanes: int
    workers: int
    micro_batch: int | None = None
    least: int | None = None  # of an elastic run

    @property
    def fits(self) -> bool:
        """Whether the sizes satisfy every rule."""
        return not any(self._broken("train"))

    def check(self, split: str) -> None:
        """Raise SpecError for the first violated rule, with the nearest values that satisfy all rules."""
        broken = next(self._broken(split), None)
        if broken is None:
            return
        if self.num_samples == 0:
            raise SpecError(f"split {split} has no samples; train on another split: data.train_split")
        raise SpecError(f"{broken}; set {' or '.join(self._hints())}")

    def _broken(self, split: str) -> Iterator[str]:
        if self.global_batch % self.lanes:
            yield f"stream.global_batch {self.global_batch} is not a multiple of stream.lanes {self.lanes}"
        if self.global_batch > self.num_samples:
            yield f"split {split} has {self.num_samples} samples, fewer than one stream.global_batch of {self.global_batch}"
        if self.lanes % self.workers:
            most = "" if self.least is None else f"'s largest, {self.workers},"
            yield f"placement.num_workers{most or f' {self.workers}'} does not divide stream.lanes {self.lanes}"
        if self.micro_batch and (self.global_batch % self.workers or self.global_batch // self.workers % self.micro_batch):
            yield (
                f"placement.micro_batch {self.micro_batch} x {self.workers} workers does not divide "
                f"stream.global_batch {self.global_batch}"
            )

    def _hints(self) -> list[str]:
        alone = [changed for name in KEYS if (changed := self._nearest(name)) is not None]
        return [self._difference(changed) for changed in alone or [self._together()]]

    def _nearest(self, name: str) -> "Sizes | None":
        """Return sizes that fit with the smallest change to one of them; None if changing one is not enough."""
        now = getattr(self, name)
        candidates = sorted(self._candidates(name), key=lambda candidate: (abs(candidate - (now or 0)), -candidate))
        return next((changed for candidate in candidates if (changed := replace(self, **{name: candidate})).fits), None)

    def _candidates(self, name: str) -> list[int]:
        if name == "workers":  # there may not be more than were found
            return [number for number in divisors(self.lanes) if number <= self.workers]
        if name == "lanes":
            return divisors(self.global_batch)
        if name == "micro_batch":
            return divisors(max(1, self.global_batch // self.workers)) if self.micro_batch else []
        unit = math.lcm(self.lanes, self.workers * (self.micro_batch or 1))
        near = min(self.global_batch, self.num_samples) // unit * unit
        return [candidate for candidate in (near, near + unit) if candidate > 0]

    def _together(self) -> "Sizes":
        """Return sizes that fit, with lanes and global batch changed together; one worker and one lane if the split is tiny."""
        lanes = max(self.workers, round(self.lanes / self.workers) * self.workers)
        several = replace(self, lanes=lanes)._nearest("global_batch") or replace(self, lanes=self.workers)._nearest(
            "global_batch"
        )
        return several or replace(
            self, workers=1, lanes=1, global_batch=min(self.global_batch, self.num_samples), micro_batch=None
        )

    def _difference(self, other: "Sizes") -> str:
        changed = [name for name in KEYS if getattr(other, name) != getattr(self, name)]
        return " and ".join(f"{KEYS[name]} to {other._written(name)}" for name in changed)

    def _written(self, name: str) -> str:
        if name == "workers" and self.least is not None:
            return f"[{min(self.least, self.workers)}, {self.workers}]"
        return str(getattr(self, name) or "auto")
