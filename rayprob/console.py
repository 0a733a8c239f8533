"""What the verbs show a person: the live line of a run, and the table beside the paper's."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rayprob.train.assess import PAPER, Assessment


class RunView:
    """Shows a run from the events of `launch`: one line of facts, one live line, one line per evaluation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.fields[unit]} {task.completed}/{task.total}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            transient=True,
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
        """Show one event; kinds without a line of their own are passed over."""
        show = {
            "launch": self._launch,
            "features": self._features,
            "start": self._start,
            "step": self._step,
            "evaluation": self._evaluation,
            "stopping": self._stopping,
            "notice": self._notice,
            "waiting": self._waiting,
            "finished": self._finished,
        }.get(event["kind"])
        if show:
            show(event)

    def _launch(self, event: dict[str, Any]) -> None:
        self._launched_at_s = time.monotonic()
        device = "GPU" if event["use_gpu"] else f"{event['cpus_per_worker']} CPU(s)"
        word = f"resuming from step {event['step']}" if event["step"] else "starting"
        least = f"{event['least']} to " if event.get("least") else ""
        self._line(f"{word} with {least}{event['num_workers']} worker(s), {device} each; everything lies in {event['folder']}")
        self._progress.console.print("[dim]Ctrl-C saves and stops; the same command goes on[/dim]")

    def _features(self, event: dict[str, Any]) -> None:
        """Show features being computed; the bar of a split goes when it is full."""
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
            f"{event['train_samples']:,} training samples, {event['trainable_parameters'] / 1e6:.1f} M trainable parameters, "
            f"{event['total_steps']:,} steps on {event['world_size']} x {event['device']} (ready after {waited_s:.0f} s)"
        )
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
        each = f"{event['cpus_per_worker']} CPU(s){' and 1 GPU' if event['use_gpu'] else ''}"
        has = event["resources"]
        self._line(
            f"still waiting for {event['least'] or event['num_workers']} worker(s) with {each} each; the cluster has now "
            f"{has.get('CPU', 0):.0f} CPU(s) and {has.get('GPU', 0):.0f} GPU(s). `ray status` says whether "
            "nodes are coming; Ctrl-C stops"
        )

    def _notice(self, event: dict[str, Any]) -> None:
        left = f" in {event['seconds_left']:.0f} s" if event["seconds_left"] is not None else ""
        nodes = ", ".join(node[:8] for node in event["nodes"])
        self._line(f"step {event['step']:>6}  node {nodes} will be taken away{left}: saving now; training goes on until then")

    def _stopping(self, event: dict[str, Any]) -> None:
        self._line("saving at the next step, then stopping; Ctrl-C again abandons the steps since the last checkpoint")

    def _finished(self, event: dict[str, Any]) -> None:
        self._line(f"this run is already finished (step {event['step']}); --fresh starts anew")

    def _line(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def sample_progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (samples done, their number) that moves a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def show_assessment(console: Console, assessment: Assessment) -> None:
    """Print the seven numbers beside the paper's, mAP by size, and the best and worst labels."""
    table = Table(title=f"{assessment.run} on {assessment.split}: {assessment.num_samples:,} images", title_justify="left")
    table.add_column("")
    columns = {"at 0.5": assessment.at_half, f"at {assessment.threshold:.3f}": assessment.at_threshold}
    if assessment.tuned:
        columns["tuned (per label)"] = assessment.tuned
    columns |= {"top 3": assessment.top_3, "the paper, at 0.5": PAPER}
    for heading in columns:
        table.add_column(heading, justify="right")
    for name in ("mAP", "OP", "OR", "OF1", "CP", "CR", "CF1"):
        table.add_row(name, *(f"{getattr(column, name):.4f}" for column in columns.values()))
    console.print(table)
    console.print("thresholds were chosen on holdout; the paper's row is COCO-2014 val, ResNet-101 at 448 px", style="dim")
    sizes = "   ".join(f"{size} {'none' if v is None else format(v, '.3f')}" for size, v in assessment.map_by_size.items())
    console.print(f"mAP by size of the largest object: {sizes}")
    ranked = sorted(assessment.ap.items(), key=lambda item: -item[1])
    for word, part in (("best", ranked[:10]), ("worst", ranked[-10:][::-1])):
        console.print(f"{word} labels: " + ", ".join(f"{label} {ap:.3f}" for label, ap in part), soft_wrap=True)
