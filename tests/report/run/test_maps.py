"""The maps of where a label is seen, on the page of a run."""

import base64
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rayprob.report.run.facts import gather
from rayprob.report.run.files import open_run_files
from rayprob.report.run.maps import LONG_SIDE_PX, maps
from rayprob.report.run.page import render
from tests.report.page_checks import Page
from tests.report.run_folders import write_run


def test_the_tiles_show_the_most_probable_or_most_wrong_label(root: str, tmp_path: Path) -> None:
    facts = gather(open_run_files(write_run(tmp_path / "run", root), None))
    tiles = [(one.row, one.mapped) for one in (*facts.images.best, *facts.images.worst)]
    tiles += [(one.row, one.label) for one in facts.images.suspects]
    assert set(facts.maps) == set(tiles)
    assert all(one.mapped == one.guesses[0].name for one in facts.images.best)
    for one in facts.images.worst:
        of_truth_L = np.where(facts.judged.targets_NL, facts.judged.best_scores_NL, -facts.judged.best_scores_NL)[one.row]
        assert one.mapped == facts.judged.names[np.where(facts.judged.known_NL[one.row], of_truth_L, np.inf).argmin()]
    page = Page(render(facts))
    assert page.faults() == []
    assert sum(tag == "img" and attributes.get("class") == "map" for tag, attributes in page.tags) == len(tiles)
    assert "by the method contributions" in page.text


def test_a_map_has_the_shape_of_its_image(root: str, tmp_path: Path) -> None:
    files = open_run_files(write_run(tmp_path / "run", root), None)
    label = files.predictions.label_space.names[0]
    found = maps(files.bundle, {7: np.zeros((60, 120, 3), np.uint8)}, [(7, label), (8, label)])
    assert set(found) == {(7, label)}
    png = np.frombuffer(base64.b64decode(found[7, label].picture.split(",")[1]), np.uint8)
    assert cv2.imdecode(png, cv2.IMREAD_UNCHANGED).shape == (LONG_SIDE_PX // 2, LONG_SIDE_PX, 4)


def test_without_captum_the_page_of_a_mixture_is_as_before(mixture_run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    facts = gather(open_run_files(mixture_run, None))
    assert facts.maps == {}
    assert "show-maps" not in {attributes.get("id") for _, attributes in Page(render(facts)).tags}


def test_the_tiles_of_a_mixture_show_its_gradients(mixture_page: str) -> None:
    assert "by the method gradcam" in Page(mixture_page).text
