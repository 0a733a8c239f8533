"""The output of `scenes`, `shard`, `verify` and `inspect`."""

import posixpath
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import DownloadColumn as BytesColumn
from rich.progress import MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

from rayprob.cli.progress import bar, progress
from rayprob.cli.show_images import show_images
from rayprob.cli.table import Bar, Table, show_table
from rayprob.cli.terminal import show_line
from rayprob.data.building import build
from rayprob.data.building.list_files import COPIES_FILE, REJECTS_FILE
from rayprob.data.building.recipe import HOLDOUT
from rayprob.data.in_place import TarsInPlace, tars_in_place
from rayprob.data.inspect import Inspection, LabelFacts, SplitFacts
from rayprob.data.manifest.shard_list import Shards
from rayprob.data.manifest.versions import split_version
from rayprob.data.sources.kept_rows import NOTHING_STATED
from rayprob.files import uris
from rayprob.scenes.generate import ScenesSummary
from rayprob.text import counted, first_of

BAR_COLUMNS = 20
SCENES = "demo/scenes"  # where shards/scenes.yaml expects them
MOST_OFF = 0.03  # of a holdout's share, which is only said if it is further from the recipe's


@contextmanager
def scenes_progress(console: Console, num_images: int) -> Iterator[Callable[[int], None]]:
    """Yield a callback (images done since the last call) that moves a progress bar."""
    columns = ("drawing", bar(), MofNCompleteColumn(), "images", TimeElapsedColumn(), TimeRemainingColumn())
    with progress(console, *columns) as shown:
        task = shown.add_task("drawing", total=num_images)
        yield lambda done: shown.advance(task, done)


def show_scenes(console: Console, folder: str, summary: ScenesSummary) -> None:
    """Print the contents of a folder of drawn scenes and the next command."""
    show_line(console, f"{'scenes:' if summary.drawn_images else 'already drawn:'} {folder}")
    show_line(
        console,
        f"  {summary.images:,} images, {summary.objects:,} objects, {summary.labels_per_image:.2f} labels per image, "
        f"{summary.empty_images:,} images without labels",
    )
    if summary.drawn_images:
        speed = summary.drawn_images / max(summary.elapsed_s, 1e-9)
        show_line(console, f"  drew {summary.drawn_images:,} images in {summary.elapsed_s:.1f} s: {speed:,.0f} images/s")
    moved = "" if posixpath.normpath(folder) == SCENES else f"    (its paths must point to {folder})"
    show_line(console, f"next: rayprob shard shards/scenes.yaml{moved}")


@contextmanager
def shard_progress(console: Console) -> Iterator[Callable[[build.BuildProgress], None]]:
    """Yield the callback of a build that moves a progress bar of images and shows the number of shards and rejects."""
    columns = (
        "sharding",
        bar(),
        MofNCompleteColumn(),
        "images, {task.description}",
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with progress(console, *columns) as shown:
        task = shown.add_task("reading the annotations", total=None)

        def show(at: build.BuildProgress) -> None:
            rejected = f", {at.rejected:,} rejected" if at.rejected else ""
            words = f"{at.shards:,} of {at.num_shards:,} shards{rejected}"
            shown.update(task, completed=at.images, total=at.num_images, description=words)

        yield show


@contextmanager
def bytes_progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (bytes done, total) that moves a progress bar."""
    with progress(console, "{task.description}", bar(), BytesColumn(), TimeRemainingColumn()) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def show_summary(console: Console, summary: build.Summary) -> None:
    """Print what a build wrote, where, and the next command."""
    facts = summary.facts
    samples, shards = sum(facts["splits"].values()), Shards.read(summary.root, facts)
    in_place = tars_in_place(summary.root, facts, shards)
    splits = ", ".join(f"{split} {count:,}" for split, count in facts["splits"].items())
    show_line(
        console, f"{'already built: ' if summary.already_built else ''}{summary.root} (fingerprint {facts['fingerprint']})"
    )
    show_line(console, f"  {counted(samples, 'image')} ({splits}){_own_shards(shards, in_place)}")
    _show_in_place(console, in_place)
    _show_growth(console, summary)
    if not summary.already_built:
        speed = summary.images_written / max(summary.writing_s, 1e-9)
        gone_on = f"; {summary.shards_continued:,} shards were already done" if summary.shards_continued else ""
        done = "wrote" if in_place is None else "checked"
        written = f"  {done} {counted(summary.images_written, 'image')} in {summary.writing_s:.1f} s, {speed:,.0f} images/s"
        show_line(console, f"{written} ({summary.elapsed_s:.1f} s including reading annotations and starting Ray){gone_on}")
    for line in (*_ways_of_splitting(facts["recipe"], facts["splits"]), _rest(facts)):
        show_line(console, f"  {line}")
    for split, counts in facts.get("dropped", {}).items():
        for reason, count in counts.items():
            show_line(console, f"  {split}: left out {_left_out(reason, count)}")
    if num_rejected := facts.get("rejected", 0):
        show_line(console, f"  rejected {counted(num_rejected, 'image')}, listed in {summary.root.rstrip('/')}/{REJECTS_FILE}")
    if num_corrected := facts.get("sizes_corrected", 0):
        show_line(console, f"  {counted(num_corrected, 'image')} with a wrong declared size; the manifest has the actual size")
    show_images(console, facts)
    _show_duplicates(console, facts.get("duplicates"), f"{summary.root.rstrip('/')}/{COPIES_FILE}")
    show_line(console, f"next: rayprob inspect {summary.root}    rayprob verify {summary.root}    rayprob train RUN.yaml")


def _show_growth(console: Console, summary: build.Summary) -> None:
    """Print how a dataset grew, or how it can."""
    if summary.already_built:
        show_line(console, "  images that its source has gained since are added by --grow")
    if summary.grown is None:
        return
    if not summary.images_added:
        show_line(console, "  its source has no image to add")
        return
    parent = summary.facts["parent"]["fingerprint"]
    show_line(
        console,
        f"  grew by {counted(summary.images_added, 'image')}; its version before: {uris.beside(summary.root, f'@{parent}')}",
    )


def _own_shards(shards: Shards, in_place: TarsInPlace | None) -> str:
    """Return the number and size of the dataset's own shards; "" if all of its images are read in place."""
    own = [span for split, span in shards.splits.items() if in_place is None or split not in in_place.splits]
    size_bytes = sum(int(shards.size_bytes_S[span.start : span.stop].sum()) for span in own)
    return f" in {counted(sum(map(len, own)), 'shard')}, {_bytes(size_bytes)}" if own else ""


def _show_in_place(console: Console, found: TarsInPlace | None) -> None:
    """Print where the images that are read in place are, if there are any."""
    if found is not None:
        where = f"{counted(found.tars, 'tar')}, {_bytes(found.size_bytes)}, in {first_of(found.folders, 3, in_all=True)}"
        show_line(console, f"  images of {', '.join(found.splits)} are read in place, not copied: {where}")


def _left_out(reason: str, count: int) -> str:
    if reason == NOTHING_STATED:
        return f"{counted(count, 'image')} without a label (keep_unlabelled: true keeps them)"
    return f"{count:,} x {reason}"


def _ways_of_splitting(recipe: dict[str, Any], num_samples: Mapping[str, int]) -> list[str]:
    """Return how the splits of a recipe, with these numbers of samples, were made from its sources."""
    lines = []
    if divide := recipe.get("divide"):
        parts = [f"{name} {part if isinstance(part, str) else f'{part:.3g}'}" for name, part in divide["into"].items()]
        by = "" if all(isinstance(part, str) for part in divide["into"].values()) else f", {_by(divide)}"
        lines.append(f"{divide['of']} divided into {', '.join(parts)}{by}")
    if holdout := recipe.get("holdout"):
        lines.append(f"holdout: {_holdout(holdout, num_samples)}")
    grouped = [
        f"{split} by {source.get('group') or source.get('group_pattern')}"
        for split, source in recipe.get("splits", {}).items()
        if source.get("group") or source.get("group_pattern")
    ]
    return lines + ([f"groups stay in one split: {', '.join(grouped)}"] if grouped else [])


def _holdout(part: dict[str, Any], num_samples: Mapping[str, int]) -> str:
    """Return how holdout was made, with its actual share if that is far from the one asked for."""
    held, rest = (num_samples.get(split, 0) for split in (HOLDOUT, part["of"]))
    if not held or abs(held / (held + rest) - part["fraction"]) <= MOST_OFF:
        return f"{part['fraction']:.3g} of {part['of']}, {_by(part)}"
    found = f"{held:,} of {counted(held + rest, 'image')} of {part['of']} ({part['fraction']:.3g} asked), {_by(part)}"
    if part.get("by") == "stratified":
        return found
    return f"{found}, which is uneven for few of them; `by: stratified` is closer"


def _by(part: dict[str, Any]) -> str:
    return "stratified by labels" if part.get("by") == "stratified" else "by a hash of sample ids or groups"


def _show_duplicates(console: Console, found: dict[str, Any] | None, listed: str) -> None:
    """Print the number of images with the same bytes as another, and where they are listed."""
    if found:
        pairs = [f"{pair['images']:,} of {pair['split']} as in {pair['of']}" for pair in found["splits"]]
        verb = "dropped" if found["dropped"] else "kept"
        other = f", {found['other_labels']:,} with other labels" if found["other_labels"] else ""
        images = counted(found["images"], "image")
        show_line(console, f"  {verb} {images} with the same bytes as another ({', '.join(pairs)}{other}), listed in {listed}")


def _rest(facts: dict[str, Any]) -> str:
    """Return the state of labels that the source does not list for an image, by split."""
    rest = facts.get("rest", {})
    unknown = [split for split, one in rest.items() if one == "unknown"]
    absent = [split for split in facts["splits"] if split not in unknown]
    parts = [f"{state} in {', '.join(splits)}" for state, splits in (("absent", absent), ("unknown", unknown)) if splits]
    return f"labels not listed for an image: {'; '.join(parts)}"


def show_inspection(console: Console, found: Inspection) -> None:
    """Print counts, prevalence per label, label-set sizes, frequent label sets and strong pairs."""
    show_line(console, f"{found.root} (fingerprint {found.fingerprint}), {len(found.labels):,} labels")
    show_line(console, f"  fingerprint of ids and labels alone: {found.label_fingerprint}")
    show_images(console, found.image_facts)
    _show_in_place(console, found.in_place)
    _show_versions(console, found)
    show_table(console, _splits_table(found.splits))
    show_table(console, _labels_table(found.labels, [split.split for split in found.splits]))
    show_table(console, _set_sizes_table(found))
    show_table(console, _sets_table(found))
    show_table(console, _pairs_table(found))


def _show_versions(console: Console, found: Inspection) -> None:
    """Print the versions that a dataset grew from, and how each is named."""
    folder, _ = split_version(found.root)
    for version in found.versions[1:]:
        splits = ", ".join(f"{split} {count:,}" for split, count in version.splits.items())
        show_line(console, f"  grew from {uris.beside(folder, f'@{version.fingerprint}')} ({splits})")


def _splits_table(splits: list[SplitFacts]) -> Table:
    table = Table("splits", caption="short side: smallest..median..largest; unknown: labels not annotated")
    table.name()
    table.number("images", "shards", "size", "labels/image", "unknown", "short side px")
    for split in splits:
        per_image = f"{split.labels / max(split.samples, 1):.2f}"
        side_px = f"{split.short_side_px[0]}..{split.short_side_px[2]}..{split.short_side_px[-1]}"
        counts = (f"{split.samples:,}", f"{split.shards:,}", _bytes(split.size_bytes), per_image, f"{split.unknown_labels:,}")
        table.row(split.split, *counts, side_px)
    return table


def _labels_table(labels: list[LabelFacts], splits: list[str]) -> Table:
    table = Table("labels, most frequent first")
    table.name("label")
    table.number(*splits, f"in {splits[0]}")
    table.bars(BAR_COLUMNS)
    ranked = sorted(labels, key=lambda label: -sum(label.samples.values()))
    greatest = max((label.prevalence[splits[0]] for label in labels), default=0.0) or 1.0
    for label in ranked:
        prevalence = label.prevalence[splits[0]]
        counts = (f"{label.samples[split]:,}" for split in splits)
        table.row(label.label, *counts, f"{prevalence:.2%}", Bar(prevalence / greatest))
    return table


def _set_sizes_table(found: Inspection) -> Table:
    table = Table("labels per image")
    table.number("labels", "images")
    table.bars(BAR_COLUMNS)
    greatest = max(found.set_sizes.values(), default=1)
    for size, samples in found.set_sizes.items():
        table.row(str(size), f"{samples:,}", Bar(samples / greatest))
    return table


def _sets_table(found: Inspection) -> Table:
    table = Table(f"most frequent of {found.distinct_sets:,} label sets")
    table.number("images")
    table.prose("label set")
    for names, samples in found.top_sets:
        table.row(f"{samples:,}", ", ".join(names) or "(none)")
    return table


def _pairs_table(found: Inspection) -> Table:
    table = Table("strongest co-occurrences")
    table.number("images", "lift")
    table.name("labels")
    table.name()
    for pair in found.pairs:
        table.row(f"{pair.samples:,}", f"{pair.lift:.1f}", pair.first, f"+ {pair.second}")
    return table


def _bytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
