"""`rayprob predict --explain`: in JSON, in the terminal and in figures."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image as Pillow
from typer.testing import CliRunner

from rayprob import figures
from rayprob.cli.app import app
from rayprob.explain.explanation import Explanation
from rayprob.predict.figure import draw
from rayprob.predict.images import ImageFile
from rayprob.predict.record import LabelLine, Record
from tests.predict.small import NAMES, make_bundle


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("linear") / "bundle")
    make_bundle(2, {"name": "bernoulli"}, size_px=64).save(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def said(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_has_the_maps_only_when_they_are_asked_for(linear: str, photos: Path) -> None:
    plain, explained = (said(run(linear, photos, "--json", *more)) for more in ((), ("--explain",)))
    assert all("explanations" not in one for one in plain)
    for before, after in zip(plain, explained, strict=True):
        maps = after.pop("explanations")
        assert after == before
        chosen = {*before["label_set"], *[line["label"] for line in before["labels"][:3]]}
        assert {one["label"] for one in maps} == chosen
        for one in maps:
            grid_HW = np.array(one["values"])
            assert (one["method"], one["exact"], grid_HW.shape) == ("contributions", True, (one["height"], one["width"]))
            np.testing.assert_allclose(grid_HW.sum() + one["rest"], one["logit"], atol=1e-3)


def test_labels_and_method_can_be_named(linear: str, photos: Path) -> None:
    named = ("--explain-label", "fork", "--explain-label", "cat", "--explain-method", "gradcam")
    (one,) = said(run(linear, photos / "photo-0.jpg", "--json", *named))
    assert [(found["label"], found["method"]) for found in one["explanations"]] == [("fork", "gradcam"), ("cat", "gradcam")]


def test_the_terminal_names_the_place_of_each_label(linear: str, photos: Path) -> None:
    lines = run(linear, photos / "photo-0.jpg", "--explain-label", "fork").output.splitlines()
    assert (
        sum(line.startswith("seen ") and ": fork, by contributions: " in line and " of the logit " in line for line in lines)
        == 1
    )


def test_an_ensemble_is_explained_by_all_of_its_members(linear: str, bundle_path: str, photos: Path) -> None:
    (one,) = said(run(linear, photos / "photo-0.jpg", "--ensemble", bundle_path, "--explain", "--json"))
    assert {found["method"] for found in one["explanations"]} == {"gradcam"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--explain-method", "gradcm"), "unknown explanation method 'gradcm'; nearest: gradcam"),
        (("--explain-method", "attention"), "needs a head with attention (decoder, srn); possible: contributions"),
        (("--explain-label", "frok"), "unknown label 'frok'; nearest: fork"),
        (("--explain", "--parquet", "t.parquet"), "--parquet cannot be combined with --explain"),
    ],
)
def test_what_cannot_be_explained_is_refused_before_any_image(
    linear: str, photos: Path, asked: tuple[str, ...], message: str
) -> None:
    result = run(linear, photos, *asked)
    said_text = " ".join((result.output + str(result.exception)).replace("│", " ").split())
    assert result.exit_code != 0
    assert message in said_text
    assert "photo-0" not in result.stdout


def test_figures_grow_by_the_maps(linear: str, photos: Path, tmp_path: Path) -> None:
    for name, more in (("plain", ()), ("maps", ("--explain",))):
        assert run(linear, photos / "photo-0.jpg", "--figure", tmp_path / name, *more).exit_code == 0
    heights = [Pillow.open(tmp_path / name / "photo-0.png").height for name in ("plain", "maps")]
    assert heights[1] > heights[0]


def test_a_map_is_drawn_over_the_part_of_the_image_that_it_covers() -> None:
    record = Record(
        **{"image": ImageFile("a.jpg"), "notes": (), "marginals_L": np.zeros(2), "label_set": NAMES[:1], "rule": "0.5"},
        **{"labels": tuple(LabelLine(name, 0.5, None) for name in NAMES[:2]), "guarantee": None, "top_sets": None},
        **{"entropy_nats": 1.0, "entropy_standard_error": 0.0, "evidence": {}, "answers": (), "why": (), "uncertainty": None},
        explanations=tuple(
            Explanation(name, "gradcam", np.eye(2) * size, exact=False, box=(0.25, 0, 1, 0.5))
            for name, size in (("a$b", 3), ("c", 0))
        ),
    )
    figure = draw(record, np.zeros((40, 80, 3), np.uint8))
    figures.rendered(figure, format="png", dpi=30)
    panels = [axes for axes in figure.axes if len(axes.images) == 2]
    assert [axes.get_title(loc="left") for axes in panels] == ["a$b\ngradcam, up to 3", "c\ngradcam: 0 everywhere"]
    assert panels[0].images[1].get_extent() == [20, 80, 20, 0]
    assert panels[0].images[1].get_array().max() == 1
