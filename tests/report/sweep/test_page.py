"""The page of a sweep: what it says of its summary, what it leaves out, and that nothing in it escapes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.errors import RunError
from rayprob.report.sweep.page import sweep_report
from tests.report.page_checks import Page
from tests.report.sweep.sweep_summaries import SPACE, summary, write
from tests.report.test_browser import CHROMIUM, browse

TWO = [{"name": "nll_nats", "mode": "min"}, {"name": "mAP", "mode": "max"}]
NASTY = "<script>alert(1)</script>"


def page_of(value: dict[str, Any], folder: Path) -> Page:
    written = sweep_report(write(folder, value))
    return Page(Path(written.path).read_text())


def bare(value: dict[str, Any]) -> dict[str, Any]:
    """Return a summary with nothing that a young or unlucky sweep may lack."""
    return {**value, "importance": None, "noise": None, "val": None, "pareto": [], "total_epochs": None, "elapsed_s": None}


def all_failed() -> dict[str, Any]:
    value = bare(summary(3, confirms=0))
    failed = {"state": "failed", "values": {}, "curve": [], "reason": "NonFiniteLoss: step 3", "images_per_s": None}
    return {**value, "trials": [{**row, **failed} for row in value["trials"]], "best": None, "importance": {}}


def nasty() -> dict[str, Any]:
    value = summary(8)
    space = {NASTY: value["space"]["loss.name"], "$x_2$": value["space"]["optimizer.lr"]}
    for row in value["trials"]:
        row["params"] = {NASTY: f"{row['params']['loss.name']}<b>", "$x_2$": row["params"]["optimizer.lr"]}
    names = {"name": NASTY, "description": NASTY, "dataset": NASTY, "versions": {NASTY: NASTY}, "sampler": NASTY}
    return {**value, **names, "space": space, "importance": {NASTY: 1.0}}


CASES = {
    "as usual": summary,
    "one trial": lambda: bare(summary(1, confirms=0)),
    "all failed": all_failed,
    "no trial at all": lambda: {**bare(summary(1, confirms=0)), "trials": [], "best": None, "default": None},
    "two metrics": lambda: summary(30, metrics=TWO),
    "no default": lambda: {**summary(), "default": None, "noise": None},
    "nasty names": nasty,
    "nothing searched": lambda: {**summary(), "space": {}, "importance": None},
}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """The page of a usual sweep: its path and what is in it."""
    folder = tmp_path_factory.mktemp("usual")
    return folder / "report.html", page_of(summary(), folder)


@pytest.mark.parametrize("case", CASES)
def test_every_sweep_has_a_whole_page(case: str, tmp_path: Path) -> None:
    page = page_of(CASES[case](), tmp_path)
    assert page.faults() == []
    assert "None" not in page.text.split()
    assert not re.search(r"\bnan\b|\binf\b", page.text)


def test_the_page_names_no_address_and_allows_nothing(usual: tuple[Path, Page]) -> None:
    path, page = usual
    html = path.read_text()
    assert re.findall(r"https?://[^\"' <]+", html) == []
    policies = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert [policy.split(";")[0] for policy in policies] == ["default-src 'none'"]
    assert "unsafe" not in policies[0]


def test_every_chart_has_a_description_and_a_table(usual: tuple[Path, Page]) -> None:
    _, page = usual
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) == sum(tag == "figure" for tag, _ in page.tags) == 7 + len(SPACE)
    assert all(len(attributes["aria-label"]) > 15 for attributes in charts)
    assert page.text.count("The numbers") >= len(charts)


def test_names_are_text_everywhere(tmp_path: Path) -> None:
    page = page_of(nasty(), tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<script" not in html
    assert "<b>" not in html
    assert page.text.count(NASTY) > 5
    assert "$x_2$" in page.text
    assert "OutOfMemoryError: <b>no</b> memory at micro_batch 4" in page.text


def test_less_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    value = summary(30, metrics=TWO)
    text = page_of(value, tmp_path).text
    gain = value["noise"]["default"]["mean"] - value["noise"]["best"]["mean"]
    assert gain > 0
    assert f"The best is {gain:.3f} better than the default in mean nll_nats" in text
    assert "that axis is inverted: lower is better" in text
    assert "the goal is the lowest nll_nats and highest mAP" in text
    assert "no other trial is better in both nll_nats and mAP" in text
    table = text.split("those without a value last")[1]
    values = [float(found) for found in re.findall(r"(?:finished|pruned) (\d+\.\d+)", table)]
    assert values == sorted(values)


def test_what_is_not_known_is_left_out_with_its_reason(tmp_path: Path) -> None:
    value = bare(summary(confirms=0))
    for row in value["trials"]:
        row |= {"images_per_s": 0.0, "elapsed_s": 0.0, "epochs": None, "curve": []}
    page = page_of(value, tmp_path)
    for reason in (
        "No setting was trained with several seeds",
        "Too few trials have a value to estimate importance",
        "No trial has a learning curve",
        "Neither the time nor the epochs of the trials are known",
        "Fewer than two trials have both mAP and images per second",
        "one seed each: the standard error is unknown",
    ):
        assert reason in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 1 + len(SPACE)
    assert "epochs trained" not in page.text
    assert "val mAP" not in page.text


def test_without_a_value_there_are_reasons_and_no_charts(tmp_path: Path) -> None:
    page = page_of(all_failed(), tmp_path)
    assert not any(tag == "svg" for tag, _ in page.tags)
    assert "No trial reached a value, so there are no charts" in page.text
    assert page.text.count("NonFiniteLoss: step 3") == 3
    assert "rayprob train" not in page.text


def test_every_trial_is_in_the_table_once(tmp_path: Path) -> None:
    value = summary(200)
    page = page_of(value, tmp_path)
    assert page.faults() == []
    html = (tmp_path / "report.html").read_text()
    table = html.split("those without a value last")[1].split("</table>")[0]
    assert sorted(int(n) for n in re.findall(r'<th scope="row">(\d+)</th>', table)) == list(range(len(value["trials"])))
    assert len(html) < 2_000_000


def test_the_resolution_table_has_the_best_of_each(usual: tuple[Path, Page]) -> None:
    value, text = summary(), usual[1].text
    for px in SPACE["resolution_px"]["choices"]:
        found = [t for t in value["trials"] if t["kind"] != "confirm" and t["values"] and t["params"]["resolution_px"] == px]
        speed = np.median([trial["images_per_s"] for trial in found])
        assert f" {px} {len(found)} {max(t['values']['mAP'] for t in found):.3f} {speed:,.0f} " in text


def test_the_front_is_named(usual: tuple[Path, Page]) -> None:
    assert f"Trials {', '.join(map(str, summary()['pareto']))} are on the front" in usual[1].text


def test_the_verb_writes_the_page_of_a_sweep(tmp_path: Path) -> None:
    folder = write(tmp_path / "demo", summary(6))
    result = CliRunner().invoke(app, ["report", folder])
    assert result.exit_code == 0, result.output
    assert f"{folder}/report.html: 12 trials" in result.output
    refused = CliRunner().invoke(app, ["report", folder, "--split", "val"])
    assert refused.exit_code == 2
    assert "--split does not apply to a sweep" in refused.output


def test_the_verb_knows_a_sweep_that_has_not_got_far(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(json.dumps({}))
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(result.exception, RunError)
    assert "has no summary.json" in str(result.exception)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")
def test_the_page_renders_without_complaint(usual: tuple[Path, Page], tmp_path: Path) -> None:
    path, page = usual
    document, console = browse(path, tmp_path)
    assert console == []
    assert Page(document).faults() == []
    assert Page(document).text == page.text
