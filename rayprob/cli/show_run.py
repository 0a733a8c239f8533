"""The output of `train` and `evaluate`: the live line of a run, and the table with the paper's numbers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import MofNCompleteColumn, TaskID, TimeElapsedColumn, TimeRemainingColumn

from rayprob.cli.progress import bar, progress
from rayprob.cli.table import Table, show_table
from rayprob.cli.terminal import show_line
from rayprob.text import counted
from rayprob.train.assess import NUMBERS, PAPER, Assessment
from rayprob.train.other_labels import OtherLabels

MOST_RANKED = 10  # best labels, and worst ones
OTHER_LABELS_LEGEND = (
    "given: the number of an image's present labels that are revealed, drawn at random; mean over images with more labels than "
    "that, and the gain's 95 % interval"
)


class RunView:
    """Shows a run from the events of `launch`: one line of facts, one live line, one line per evaluation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = progress(
            console,
            "{task.fields[unit]} {task.completed}/{task.total}",
            bar(24),
            "{task.description}",
            TimeElapsedColumn(),
            "left",
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self._task: TaskID | None = None
        self._features_task: TaskID | None = None
        self._launched_at_s = time.monotonic()
        self._steps_per_epoch = 1

    def __enter__(self) -> "RunView":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, event: dict[str, Any]) -> None:
        """Show one event; kinds without a line of their own are ignored."""
        show = {
            "launch": self._launch,
            "features": self._features,
            "start": self._start,
            "step": self._step,
            "evaluation": self._evaluation,
            "stopping": self._stopping,
            "notice": self._notice,
            "warning": self._warning,
            "waiting": self._waiting,
            "restart": self._restart,
            "finished": self._finished,
        }.get(event["kind"])
        if show:
            show(event)

    def _launch(self, event: dict[str, Any]) -> None:
        self._launched_at_s = time.monotonic()
        device = "GPU" if event["use_gpu"] else counted(event["cpus_per_worker"], "CPU")
        word = f"resuming from step {event['step']}" if event["step"] else "starting"
        least = f"{event['least']} to " if event.get("least") else ""
        self._line(f"{word} with {least}{counted(event['num_workers'], 'worker')}, {device} each; folder: {event['folder']}")
        self._line("Ctrl-C saves and stops; the same command continues the run", style="dim")

    def _features(self, event: dict[str, Any]) -> None:
        """Show features being computed; a split's bar disappears when it is full."""
        if self._features_task is None:
            self._features_task = self._progress.add_task("", total=event["total"], unit=f"features of {event['split']}")
        self._progress.update(self._features_task, completed=event["done"])
        if event["done"] == event["total"]:
            self._progress.remove_task(self._features_task)
            self._features_task = None

    def _start(self, event: dict[str, Any]) -> None:
        waited_s = time.monotonic() - self._launched_at_s
        self._steps_per_epoch = event["steps_per_epoch"]
        self._line(
            f"{event['train_samples']:,} training samples, {_millions(event['trainable_parameters'])} trainable parameters, "
            f"{event['total_steps']:,} steps on {event['world_size']} x {event['device']} (ready after {waited_s:.0f} s)"
        )
        for note in (*event.get("datasets", ()), *event.get("notes", ())):
            self._line(note)
        if self._task is None:
            self._task = self._progress.add_task("", total=event["total_steps"], completed=event["step"], unit="step")

    def _step(self, event: dict[str, Any]) -> None:
        if self._task is not None:
            facts = f"loss {event['loss']:.4f}  {event['images_per_s']:.0f} images/s  waiting {event['data_wait']:.0%}"
            self._progress.update(self._task, completed=event["step"], description=facts)

    def _evaluation(self, event: dict[str, Any]) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=event["step"])
        best = "  best so far" if event["is_best"] else ""
        in_use = f"  {event['components_in_use']:.1f} components in use" if "components_in_use" in event else ""
        self._line(
            f"step {event['step']:>6} (epoch {event['step'] / self._steps_per_epoch:.1f})  holdout mAP {event['mAP']:.4f}  "
            f"OF1 {event['OF1']:.3f} at 0.5, {event['best_OF1']:.3f} at {event['best_threshold']:.2f}  "
            f"NLL {event['nll_nats']:.2f} nats{in_use}{best}"
        )

    def _waiting(self, event: dict[str, Any]) -> None:
        self._line(waiting_line(event))

    def _notice(self, event: dict[str, Any]) -> None:
        self._line(notice_line(event))

    def _warning(self, event: dict[str, Any]) -> None:
        self._line(event["text"], "yellow")

    def _restart(self, event: dict[str, Any]) -> None:
        limit = f" of {event['of']}" if event["of"] >= 0 else ""
        self._line(f"{event['reason']}; restarting from the last checkpoint (restart {event['number']}{limit})")

    def _stopping(self, event: dict[str, Any]) -> None:
        self._line("saving after the next step, then stopping; Ctrl-C again discards the steps since the last checkpoint")

    def _finished(self, event: dict[str, Any]) -> None:
        self._line(f"this run is already finished (step {event['step']}); --fresh starts over")

    def _line(self, text: str, style: str = "") -> None:
        show_line(self._progress.console, text, style)


def _millions(number: int) -> str:
    return f"{number:,}" if number < 100_000 else f"{number / 1e6:.1f} M"


def waiting_line(event: dict[str, Any]) -> str:
    """Return what a run that has not taken a step yet is waiting for."""
    if "log" in event:
        return f"still waiting for the worker's first step; its log is {event['log']}; Ctrl-C stops"
    num_workers = event["least"] or event["num_workers"]
    each = f"{counted(event['cpus_per_worker'], 'CPU')}{' and 1 GPU' if event['use_gpu'] else ''}"
    cpus, gpus = (round(event["resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
    waiting = f"still waiting for {counted(num_workers, 'worker')}"
    if num_workers * event["cpus_per_worker"] > cpus or (event["use_gpu"] and num_workers > gpus):
        return (
            f"{waiting} with {each} each; the cluster currently has {counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}. `ray "
            "status` shows whether nodes are starting; Ctrl-C stops"
        )
    if event.get("is_shared"):
        return f"{waiting} with {each} each: they are starting, or others use the cluster, as `ray status` shows; Ctrl-C stops"
    return f"{waiting}: they are starting, which takes longer on a busy machine; Ctrl-C stops"


def notice_line(event: dict[str, Any]) -> str:
    """Return the message that nodes of a run will be removed, and when."""
    left = f" in {event['seconds_left']:.0f} s" if event["seconds_left"] is not None else ""
    nodes = ", ".join(node[:8] for node in event["nodes"])
    return f"step {event['step']:>6}  node {nodes} will be removed{left}: saving now; training continues until then"


@contextmanager
def sample_progress(console: Console, what: str, then: str = "") -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (samples done, total) that moves a progress bar; after the last sample it shows what follows, `then`."""
    with progress(console, "{task.description}", bar(), MofNCompleteColumn(), TimeRemainingColumn()) as shown:
        task = shown.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            is_last = bool(then) and done == total
            shown.update(task, completed=done, total=total, visible=not is_last)
            if is_last and len(shown.tasks) == 1:
                shown.add_task(then, total=None)

        yield show


def show_assessment(console: Console, assessment: Assessment) -> None:
    """Print the seven numbers, with COCO's labels next to the paper's; mAP by object size, and the best and worst labels."""
    of = f" of {assessment.data}" if assessment.data else ""
    title = f"{assessment.run} on {assessment.split}{of}: {assessment.num_samples:,} images"
    table = Table(title, title_style="italic", box=box.HEAVY_HEAD)
    table.word()
    columns = {**assessment.by_rule(), **({"the paper, at 0.5": PAPER} if assessment.is_coco else {})}
    table.number(*columns)
    for name in NUMBERS:
        table.row(name, *(f"{getattr(column, name):.4f}" for column in columns.values()))
    show_table(console, table)
    for sentence in assessment.labels.sentences() if assessment.labels else ():
        show_line(console, sentence)
    chosen = ["thresholds were chosen on holdout"] if assessment.at_threshold or assessment.tuned else []
    paper = ["the paper's column is COCO-2014 val, ResNet-101 at 448 px"] if assessment.is_coco else []
    show_line(console, "; ".join(chosen + paper), "dim")
    if assessment.other_labels:
        show_table(console, _other_labels_table(assessment.other_labels))
        show_line(console, OTHER_LABELS_LEGEND, "dim")
    sizes = "   ".join(f"{size} {'none' if v is None else format(v, '.3f')}" for size, v in assessment.map_by_size.items())
    show_line(console, f"mAP by size of the largest object: {sizes}")
    for words, part in _ranked(assessment.ap):
        show_line(console, f"{words}: " + ", ".join(f"{label} {ap:.3f}" for label, ap in part))


def _ranked(ap: Mapping[str, float]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return the labels with the highest and the lowest AP, or all of them if there are few: no label is listed twice."""
    ranked = sorted(ap.items(), key=lambda item: -item[1])
    if len(ranked) <= 2 * MOST_RANKED:
        return [("labels, best first", ranked)]
    return [("best labels", ranked[:MOST_RANKED]), ("worst labels", ranked[-MOST_RANKED:][::-1])]


def _other_labels_table(others: Sequence[OtherLabels]) -> Table:
    table = Table("AP of an image's other labels")
    table.name()
    table.number(*(f"{row.num_given} given" for row in others))
    table.row("labels alone", *(f"{row.alone:.3f}" for row in others))
    table.row("together", *(f"{row.joint:.3f}" for row in others))
    table.row("gain", *(f"{row.gain.value:+.3f}" for row in others))
    table.row("  from", *(f"{row.gain.low:+.3f}" for row in others))
    table.row("  to", *(f"{row.gain.high:+.3f}" for row in others))
    table.row("images", *(f"{row.num_images:,}" for row in others))
    return table
