"""`rayprob report` of several runs: the page of a comparison, with links to the runs' own pages."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.errors import RunError
from rayprob.report.compare.page import own_page
from tests.report.page_checks import Page


def report(*arguments: str) -> str:
    return CliRunner().invoke(app, ["report", *arguments], env={"COLUMNS": "80"}, catch_exceptions=False).output


def test_a_page_links_to_the_own_page_of_a_run_on_the_same_disk(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a b"
    run.mkdir(parents=True)
    assert own_page(str(run), str(tmp_path / "both.html")) == ""
    (run / "report.html").touch()
    assert own_page(str(run), str(tmp_path / "both.html")) == "runs/a%20b/report.html"
    assert own_page(str(run), str(tmp_path / "pages" / "both.html")) == "../runs/a%20b/report.html"
    assert own_page(str(run), "s3://bucket/both.html") == ""


def test_several_runs_are_compared_with_the_first_on_one_page(
    folders: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = shutil.copytree(folders[1], tmp_path / "mine")
    (mine / "report.html").touch()
    text = report(folders[0], "mine")
    assert "A is first and B is other, on 48 images of val with 6 labels." in text
    assert "comparison.html: 0." in text
    html = (tmp_path / "comparison.html").read_text()
    page = Page(html)
    assert page.faults() == []
    assert 'href="mine/report.html"' in html
    assert f"rayprob compare {folders[0]} mine" in page.text
    assert html.count("report.html") == 1  # the first run has no page of its own


def test_a_sweep_or_another_folder_among_several_runs_is_named(folders: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").touch()
    with pytest.raises(RunError, match="is the folder of a sweep; give that of one of its runs"):
        report(folders[0], str(tmp_path))
