"""Every table that the CLI prints, in narrow terminals and with long, wide and odd names: numbers whole, names as they are."""

import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from rayprob.calibrate.candidates import RuleCandidates
from rayprob.calibrate.comparison import Comparison, SetNumbers
from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import CalibrationReport
from rayprob.calibrate.search import SearchReport
from rayprob.calibrate.winners import Gain, Reference, Winner
from rayprob.cli import table as console_table
from rayprob.cli.show_calibration import show_calibration
from rayprob.cli.show_compare import show_comparison
from rayprob.cli.show_data import show_inspection
from rayprob.cli.show_doctor import show_findings
from rayprob.cli.show_predictions import show_lines, show_record
from rayprob.cli.show_run import show_assessment
from rayprob.cli.show_search import show_threshold_search
from rayprob.cli.show_sweep import SweepView, show_sweep
from rayprob.cli.table import Bar, Table, show_table
from rayprob.data.inspect import Inspection, LabelFacts, Pair, SplitFacts
from rayprob.doctor.finding import Finding
from rayprob.metrics.bootstrap import Interval
from rayprob.metrics.counting import PaperMetrics
from rayprob.metrics.paired import Difference, PairedComparison, PairedRow
from rayprob.metrics.reliability import Honesty
from rayprob.predict.images import ImageFile
from rayprob.predict.record import AnswerLine, LabelLine, Record, SetLine
from rayprob.report.compare.comparison import ComparedModel, ModelComparison
from rayprob.report.run.files import Note
from rayprob.train.assess import Assessment
from rayprob.train.other_labels import OtherLabels

LONG = "a label of sixty letters, which nobody would write by hand: "
ODD = ("box [open]", "box [closed]", "[/b]", ":cat:", "a\\", "$x_{1}$", "new\nline", "\x1b[31mred")
SHOWN_ODD = ("box [open]", "box [closed]", "[/b]", ":cat:", "a\\", "$x_{1}$", "new\\nline", "\\x1b[31mred")
WIDE = "漢字" * 15
NAME_SETS = {"long": (f"{LONG}1", f"{LONG}2", "cat"), "wide": (f"{WIDE}一", f"{WIDE}二", "猫"), "odd": ODD}
WIDTHS = (60, 80)


def inspection(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    splits = [
        SplitFacts(split, samples, 123, 45_670_000, 2 * samples, 7, (333, 400, 427, 500, 1440), (1, 2, 3, 4, 5))
        for split, samples in (("train", 71_234), ("holdout", 8_123), ("val", 40_137))
    ]
    counts = {"train": 71_111, "holdout": 8_111, "val": 40_111}
    labels = [LabelFacts(name, counts, {"train": 0.1234, "val": 0.1, "holdout": 0.1}) for name in names]
    pairs = [Pair(names[0], names[1], 12_345, 67.8), Pair(names[1], names[2], 12_346, 67.9)]
    found = Inspection("shards/x", "f" * 16, splits, labels, {1: 54_321, 2: 54_322}, 9, [(list(names), 6_543)], pairs, 1_234)
    found.image_facts.update(exif_rotated=1_234)
    numbers = ["71,234", "8,123", "40,137", "45.7", "333..427..1440", "71,111", "8,111", "40,111", "12.34%", "54,321", "6,543"]
    return lambda console: show_inspection(console, found), [*numbers, "1,234", "12,345", "67.8", "67.9"]


def assessment(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    at = [PaperMetrics(*(place / 10 + digit / 10_000 for digit in range(7))) for place in range(1, 5)]
    ap = {name: 0.125 + place / 1000 for place, name in enumerate(names)}
    others = tuple(OtherLabels(m, 9_870 + m, 0.61 + m / 1000, 0.71, Interval(0.1, 0.081, 0.091 + m / 1000)) for m in range(4))
    found = Assessment(
        "run", "val", 12_345, 0.123, at[0], at[1], at[2], None, at[3], others, {"small": 0.321}, ap, is_coco=True
    )
    numbers = [f"{getattr(one, name):.4f}" for one in at for name in ("mAP", "OP", "OR", "OF1", "CP", "CR", "CF1")]
    numbers += ["0.7940", "0.125", "0.126", "9,870", "9,873", "0.610", "0.613", "0.710", "+0.100", "+0.081", "+0.094"]
    return lambda console: show_assessment(console, found), numbers


def test_the_papers_column_is_shown_for_cocos_labels_alone() -> None:
    at = PaperMetrics(*[0.5] * 7)
    for is_coco in (False, True):
        console = Console(file=io.StringIO(), width=100)
        found = Assessment("run", "val", 9, 0.3, at, at, None, None, at, None, {}, {"a": 0.5}, is_coco=is_coco)
        show_assessment(console, found)
        assert ("the paper" in console.file.getvalue()) is is_coco  # type: ignore[attr-defined]


@pytest.mark.parametrize(("num_labels", "lines"), [(3, ["labels, best first"]), (21, ["best labels", "worst labels"])])
def test_no_label_is_both_among_the_best_and_the_worst(num_labels: int, lines: list[str]) -> None:
    at = PaperMetrics(*[0.5] * 7)
    console = Console(file=io.StringIO(), width=100)
    ap = {f"label{place}": place / 100 for place in range(num_labels)}
    show_assessment(console, Assessment("run", "val", 9, None, at, None, None, None, at, None, {}, ap))
    shown = [line for line in console.file.getvalue().splitlines() if "label0 " in line or "label2 " in line]  # type: ignore[attr-defined]
    last = [line for line in console.file.getvalue().splitlines() if "labels" in line]  # type: ignore[attr-defined]
    assert [line.partition(":")[0] for line in last] == lines
    assert shown[-1:] == last[-1:]
    named = [label for line in last for label in line.partition(": ")[2].split(", ")]
    assert len(named) == len({*named}) == min(num_labels, 20)
    assert named[0].startswith(f"label{num_labels - 1} ")


def record(names: tuple[str, ...], *, has_evidence: bool) -> Record:
    lines = [LabelLine(name, 0.871 - place / 100, 0.543 if has_evidence else None) for place, name in enumerate(names)]
    return Record(
        image=ImageFile(f"{names[0]}.jpg"),
        notes=(),
        marginals_L=np.zeros(len(names)),
        labels=tuple(lines),
        label_set=names[:2],
        rule="0.5",
        guarantee=None,
        top_sets=(SetLine(names[:2], 0.25),),
        entropy_nats=1.0,
        entropy_standard_error=0.0,
        evidence={names[2]: True} if has_evidence else {},
        answers=(AnswerLine(f"P({names[0]})", 0.871),),
        why=(),
        uncertainty=None,
    )


def one_image(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    return lambda console: show_record(console, record(names, has_evidence=False)), ["0.871", "0.861", "0.851", "0.250"]


def one_image_with_evidence(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    return lambda console: show_record(console, record(names, has_evidence=True)), ["0.871", "0.861", "0.543", "known"]


def comparison(split: str) -> Comparison:
    honesty = Honesty(**dict.fromkeys(Honesty.__dataclass_fields__, 0.1234))
    numbers = SetNumbers(0.1, 0.2, 0.812, 0.4, 0.5, 0.723, 0.634, 2.9)
    rules = dict.fromkeys(("label_OF1", "recall@0.05", "expected_F1"), numbers)
    return Comparison(split, 12_345, honesty, honesty, numbers, rules, {"label_OF1": numbers})


def calibration(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    report = CalibrationReport(
        names[0], "platt", "trial", {}, comparison("holdout"), comparison("val"), {}, {}, (names[1],), CalibrateSpec()
    )
    return lambda console: show_calibration(console, "runs/x", report), ["0.1234", "0.812", "0.723", "0.634", "2.9"]


def threshold_search(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    aims = ("OF1", "CF1", "mean_F1")
    of = dict.fromkeys(aims, 0.6543)
    gains = tuple(Gain(0.0123, -0.0124, 0.0125, metric=aim, over="the optimum on holdout") for aim in aims)
    winners = tuple(Winner(aim, "shared_platt", "smoothed", 12.75, 0.7001, 0.7002, None, None, of, gains) for aim in aims)
    references = tuple(Reference("0.5", aim, 0.5, 0.5555, of) for aim in aims)
    families = tuple(RuleCandidates("temperature", policy, np.zeros(9), {}, of) for policy in ("single", "a label"))
    report = SearchReport(names[0], "runs/x", 9, 9, 9, 9, 1.0, winners, references, families, names)
    numbers = ["0.5555", "0.6543", "12.75", "0.7001", "0.7002", "+0.0123", "-0.0124", "+0.0125", "0.6420"]
    return lambda console: show_threshold_search(console, report), numbers


def sweep(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    row = {"kind": "search", "state": "finished", "values": {"mAP": 0.7654, "nll_nats": 12.3456}, "epochs": 11.5}
    rows = [
        {**row, "number": number, "params": {"loss.name": name, "data.path": name}, "images_per_s": 1234.0, "lasted_s": None}
        for number, name in enumerate(names)
    ]
    summary: dict[str, Any] = {"name": "x", "split": "holdout", "metrics": [{"name": "mAP", "mode": "max"}]}
    summary["metrics"].append({"name": "nll_nats", "mode": "min"})
    summary |= {"trials": rows, "best": 1, "default": 0, "noise": None, "val": None, "importance": {names[0]: 0.75}}
    summary |= {"total_epochs": 1.0, "full_epochs": 1.0}
    return lambda console: show_sweep(console, "sweeps/x", summary), ["000", "001", "0.7654", "12.3456", "11.5", "1234", "75%"]


def live_sweep(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    trials = [
        SimpleNamespace(number=number, what="search", params={"loss.name": name}, state="running", best=(0.7654,), epoch=11.5)
        for number, name in enumerate(names)
    ]
    study: Any = SimpleNamespace(metrics=("mAP",), trials=dict(enumerate(trials)), ranked=lambda: trials[:2], num_expected=9)
    return lambda console: console.print(SweepView(console)._table(study)), ["000", "001", "0.7654", "11.5", "running"]


def doctor(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    found = [Finding("memory", "fault", name, "12.5 GB", "at least 99.5 GB", "buy 87.0 GB") for name in names]
    return lambda console: show_findings(console, found), ["fault", "12.5", "99.5", "87.0"]


def compared(names: tuple[str, ...]) -> tuple[Callable[[Console], None], list[str]]:
    values = Interval(12.3456, 12.1, 12.5), Interval(13.4567, 13.2, 13.6)
    clear, chance = (Difference(1.1111, 0.9876, 1.2345, p_value=p_value) for p_value in (0.002, 0.345))
    numbers = tuple(PairedRow(name, values, (each,)) for name, each in (("mAP", clear), ("NLL", chance)))
    labels = tuple(PairedRow(name, values, (clear,), positives=7) for name in names)
    models = tuple(ComparedModel(letter, letter, "runs/x", "platt") for letter in "AB")
    paired = PairedComparison(numbers, labels, 40_137, 1000, 0)
    found = ModelComparison(models, "val", None, paired, (), len(names), (Note("a note", "rayprob calibrate x"),))
    shown = ["12.3456", "13.4567", "+1.1111", "+0.9876", "+1.2345", "0.002", "0.345", "better", "chance", "40,137"]
    return lambda console: show_comparison(console, found), shown


TABLES = (
    inspection, assessment, one_image, one_image_with_evidence, calibration, threshold_search, sweep, live_sweep, doctor,
    compared,
)  # fmt: skip


def printed(show: Callable[[Console], None], width: int) -> str:
    """Return what a console prints that reads markup, as rich's do where nobody stops them."""
    console = Console(file=io.StringIO(), width=width)
    show(console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("names", NAME_SETS.values(), ids=list(NAME_SETS))
@pytest.mark.parametrize("table", TABLES)
def test_numbers_are_whole_in_narrow_terminals(table: Any, names: tuple[str, ...], width: int) -> None:
    show, numbers = table(names)
    words = printed(show, width).replace("│", " ").replace(",\n", "\n").split()
    assert set(numbers) <= {word.strip("(),;") for word in words}


@pytest.mark.parametrize("table", TABLES)
def test_odd_names_are_printed_as_they_are(table: Any) -> None:
    text = printed(table(ODD)[0], 200)
    assert "\x1b" not in text
    shown = SHOWN_ODD if table not in (calibration, one_image, sweep) else SHOWN_ODD[:1]
    assert [name for name in shown if name not in text] == []


@pytest.mark.parametrize("names", [NAME_SETS["long"], NAME_SETS["wide"]], ids=["long", "wide"])
@pytest.mark.parametrize("table", [inspection, one_image, one_image_with_evidence, live_sweep])
def test_two_names_with_one_beginning_are_told_apart(table: Any, names: tuple[str, ...]) -> None:
    lines = printed(table(names)[0], 80).split("\n")
    cells = [cell for line in lines for cell in re.split(r"\s{2,}", line) if names[0][:3] in cell and cell.count("…") == 1]
    assert len(cells) >= 2
    assert len(set(cells[:2])) == 2


@pytest.mark.parametrize("table", TABLES)
def test_no_line_of_a_table_is_wider_than_eighty_cells(table: Any) -> None:
    text = printed(table(NAME_SETS["long"])[0], 80)
    rows = [line for line in text.split("\n") if "  " in line.strip() and not line.startswith(("next:", "written:", "  "))]
    assert all(cell_len(line) <= 80 for line in rows)


def test_several_images_are_lines_with_names_as_they_are() -> None:
    text = printed(lambda console: show_lines(console, record(ODD, has_evidence=False)), 60)
    assert all(name in text for name in SHOWN_ODD)
    assert text.split("\n")[0] == "box [open].jpg"


def test_a_table_whose_numbers_alone_are_wider_than_the_terminal_shows_them_all() -> None:
    table = Table()
    table.name("label")
    table.number(*(f"column {place}" for place in range(6)))
    table.bars(20)
    table.row("x" * 60, *(f"123,456,78{place}" for place in range(6)), Bar(1.0))
    text = printed(lambda console: show_table(console, table), 40)
    assert all(f"123,456,78{place}" in text for place in range(6))


def test_a_name_of_thousands_of_letters_measures_each_cell_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    table.name("label")
    table.name("another")
    for place in range(40):
        table.row("x" * 5_000, str(place))
    measured = []
    monkeypatch.setattr(console_table, "cell_len", lambda text: measured.append(text) or len(text))
    assert table._widths(80) == [73, 7]
    assert len(measured) <= 4 * 42


def test_a_bar_keeps_its_share_where_there_is_less_room() -> None:
    table = Table()
    table.name()
    table.bars(20)
    table.row("x" * 30, Bar(1.0))
    table.row("y", Bar(0.5))
    bars = [line.count("█") for line in printed(lambda console: show_table(console, table), 30).split("\n") if line]
    assert bars[0] < 20
    assert bars[1] == round(bars[0] / 2)
