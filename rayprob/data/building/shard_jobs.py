"""The jobs that write the shards of a plan, each made when it is asked for."""

from collections.abc import Container, Mapping, Sequence
from typing import overload

from rayprob.data.building.plan import Outline, Plan
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.shard import Copy, ShardJob, read_report, report_of
from rayprob.data.sources.source import SourceData
from rayprob.files import uris


class ShardJobs(Sequence[ShardJob]):
    """One job per shard of a plan; that of a shard is made, with its samples, when it is asked for."""

    def __init__(self, recipe: Recipe, source: SourceData, shards: Plan, threads: int = 1) -> None:
        self.recipe, self.source, self.shards, self.threads = recipe, source, shards, threads
        self.root = uris.absolute(recipe.root)
        self.among = ""  # see ShardJob
        self.dropped: Mapping[tuple[str, str], Sequence[Copy]] = {}  # by shard and split

    def __len__(self) -> int:
        return len(self.shards)

    @overload
    def __getitem__(self, place: int) -> ShardJob: ...
    @overload
    def __getitem__(self, place: slice) -> "ShardJobs": ...
    def __getitem__(self, place: "int | slice") -> "ShardJob | ShardJobs":
        if isinstance(place, slice):
            return self._of(self.shards[place])
        shard = self.shards[place]
        return ShardJob(
            plan=shard,
            root=self.root,
            images=uris.absolute(self.source.folders[shard.source]),
            label_space=self.source.label_space,
            check=self.recipe.check,
            encode=self.recipe.encode,
            rest=self.source.rest[shard.source],
            reading=self.recipe.reading,
            threads=self.threads,
            among=self.among,
            dropped=tuple(self.dropped.get((shard.file, shard.split), ())),
        )

    @property
    def outlines(self) -> Sequence[Outline]:
        """The outline of each shard."""
        return self.shards.outlines

    def report(self, shard: Outline) -> str:
        """Return the location of a shard's report while the dataset is being built."""
        return report_of(self.root, shard.name)

    def without(self, done: Container[str]) -> "ShardJobs":
        """Return the jobs of the shards that are not among the names `done`."""
        return self._of(self.shards.of([shard for shard in self.outlines if shard.name not in done]))

    def dropping(self, copies: Sequence[Copy]) -> "ShardJobs":
        """Return the jobs that write shards with copies again without them; the same command finds them done after a stop."""
        of_shard: dict[tuple[str, str], list[Copy]] = {}
        for copy in copies:
            of_shard.setdefault((copy.shard, copy.split), []).append(copy)
        again = self._of(self.shards.of([shard for shard in self.outlines if (shard.file, shard.split) in of_shard]))
        before = {(shard.file, shard.split): read_report(self.report(shard))[0].dropped for shard in again.outlines}
        again.dropped = {shard: [*before[shard], *some] for shard, some in of_shard.items()}
        return again

    def _of(self, shards: Plan) -> "ShardJobs":
        jobs = ShardJobs(self.recipe, self.source, shards, self.threads)
        jobs.among, jobs.dropped = self.among, self.dropped
        return jobs
