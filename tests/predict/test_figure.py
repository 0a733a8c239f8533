"""The figures of `predict`: one for each image, names and letters as they are."""

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image as Pillow

from rayprob import figures
from rayprob.predict.figure import draw, write_figure
from rayprob.predict.figure_files import MARK, FigureFiles, file_stem, mark_of
from rayprob.predict.images import ImageFile
from rayprob.predict.record import AnswerLine, LabelLine, Record, SetLine
from tests.loader.tiny import photo

ODD = "cost $5_{ to $9 \\frac{ ^2 %"
PIXELS = np.zeros((24, 32, 3), np.uint8)


def record(*labels: str, name: str = "a.jpg") -> Record:
    return Record(
        image=ImageFile(name),
        notes=(),
        marginals_L=np.zeros(len(labels)),
        labels=tuple(LabelLine(label, 0.5, 0.4) for label in labels),
        label_set=labels[:2],
        rule="0.5",
        guarantee=None,
        top_sets=(SetLine(labels[:2], 0.25),),
        entropy_nats=1.0,
        entropy_standard_error=0.0,
        evidence={labels[-1]: True},
        answers=(AnswerLine(f"P({labels[0]} | {labels[-1]})", 0.5),),
        why=(),
        uncertainty=None,
    )


def texts(figure: Figure) -> list[str]:
    """Return all texts of a figure, once it has been drawn."""
    figures.rendered(figure, format="png", dpi=30)
    return [text.get_text() for text in figure.findobj(Text)]  # type: ignore[union-attr]


def names(folder: Path, *images: str) -> list[str]:
    """Return the files that one call writes for images, marked as figures are."""
    files, written = FigureFiles(str(folder)), []
    for image in images:
        path = files.path_for(ImageFile(image))
        about: dict[str, Any] = {MARK: mark_of(ImageFile(image))}
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(figures.rendered(Figure(figsize=(0.1, 0.1)), format="png", metadata=about))
        written.append(Path(path).name)
    return written


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (["a/x.jpg", "b/x.png", "s3://bucket/y.jpg", "c/x.jpg"], ["x.png", "x-2.png", "y.png", "x-3.png"]),
        (["c/1/a-2.jpg", "c/1/a.jpg", "c/2/a.jpg"], ["a-2.png", "a.png", "a-3.png"]),
        (["c/1/a.jpg", "c/2/a.jpg", "c/1/a-2.jpg"], ["a.png", "a-2.png", "a-2-2.png"]),
        (["a.jpg", "A.jpg", "\u00e9.jpg", "e\u0301.jpg"], ["a.png", "A-2.png", "\u00e9.png", "e\u0301-2.png"]),
        ([".hidden.jpg", "..a.jpg", "a\nb.jpg", "..."], ["hidden.png", "a.png", "a_b.png", "image.png"]),
    ],
)
def test_each_image_gets_a_file_of_its_own(tmp_path: Path, images: list[str], expected: list[str]) -> None:
    assert names(tmp_path, *images) == expected


def test_long_names_are_cut_to_what_a_file_system_takes_and_stay_apart(tmp_path: Path) -> None:
    written = names(tmp_path, *(f"{'漢' * 80}{end}.jpg" for end in "xyz"))
    assert len(set(written)) == 3
    assert all(len(name.encode()) < 220 for name in written)


def test_the_same_command_replaces_its_own_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ["c/1/a-2.jpg", "c/1/a.jpg", "c/2/a.jpg"]
    first = names(tmp_path / "figures", *images)
    assert names(tmp_path / "figures", *images) == first
    assert names(tmp_path / "figures", *reversed(images)) == first[::-1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    inside = names(tmp_path / "figures", "x.jpg")
    monkeypatch.chdir(tmp_path / "deep")
    assert names(tmp_path / "figures", "../x.jpg") != inside  # a path is compared as it is written, links unresolved
    assert names(tmp_path / "figures", str(tmp_path / "x.jpg")) == inside


def test_another_call_overwrites_neither_other_figures_nor_photos(tmp_path: Path) -> None:
    names(tmp_path, "c/1/a.jpg")
    (tmp_path / "B.PNG").write_bytes(b"a photo")
    files = FigureFiles(str(tmp_path))
    assert [Path(files.path_for(ImageFile(name))).name for name in ("c/2/a.jpg", "c/1/a.jpg", "b.png")] == [
        "a-2.png", "a.png", "b-2.png"
    ]  # fmt: skip
    assert files.summary() == (
        f"{tmp_path}: 3 figures written, 1 replaced an earlier figure of the same image, "
        "2 with a number added, because the name was taken"
    )


def test_an_image_with_an_empty_name_has_a_figure() -> None:
    assert [file_stem(name) for name in ("", ".", "a/", ".jpg", "a.b.jpg")] == ["image", "image", "a", "jpg", "a.b"]


def test_formulas_in_names_labels_queries_and_evidence_are_letters(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(record(f"{ODD} a", "$x^2$", "US$ and C$", name=f"{ODD}.jpg"), PIXELS)
        shown = texts(figure)
    assert f"{ODD}.jpg" in shown
    assert {f"{ODD} a", "$x^2$", "US$ and C$"} <= {*shown}
    assert f"{ODD} a, $x^2$" in shown
    assert "answers, given US$ and C$" in shown
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())  # type: ignore[union-attr]


def test_control_characters_are_written_out() -> None:
    assert {"a\\nb", "\\x1b[31m"} <= {*texts(draw(record("a\nb", "\x1b[31m", "c"), PIXELS))}


def test_long_labels_are_cut_and_stay_apart() -> None:
    long = "a label with a long beginning that all of them share, "
    shown = texts(draw(record(*(f"{long}{end}" for end in ("one", "two", "three"))), PIXELS))
    cut = [text for text in shown if text.startswith("a label with") and len(text) <= 30]
    assert len({*cut}) == 3


def test_a_label_as_long_as_a_book_is_sampled() -> None:
    content = figures.rendered(draw(record("x" * 200_000, "word " * 20_000, "y"), PIXELS), format="png", dpi=30)
    with Pillow.open(io.BytesIO(content)) as figure:
        assert figure.height < 1000


def test_a_figure_of_a_file_carries_the_mark_of_its_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(0))
    path = FigureFiles(str(tmp_path / "figures")).path_for(image := ImageFile(str(tmp_path / "a.jpg")))
    write_figure(record("x", "y", "z", name=image.name), path)
    again = FigureFiles(str(tmp_path / "figures"))
    assert again.path_for(image) == path
    assert "1 replaced an earlier figure" in again.summary()


@pytest.fixture
def font(tmp_path: Path) -> Any:
    """A font of this machine, for the time of a test, with the one letter 漢."""
    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, 900)), (pen.lineTo, (900, 900))):
        move(point)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "han"])
    builder.setupCharacterMap({ord("漢"): "han"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "han": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "han": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Made Sans", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "made.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "made.ttf")
    forget_fonts()
    yield "Made Sans"
    font_manager.fontManager.ttflist[:] = before
    forget_fonts()


def forget_fonts() -> None:
    """Look at the fonts of this machine again, and say again what they lack."""
    figures.fonts_with.cache_clear()
    figures._letters_of.cache_clear()
    figures._told.clear()


def test_letters_come_from_a_font_that_has_them(font: str, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        figure = draw(record("漢", "b", "c"), PIXELS)
        figures.rendered(figure, format="png", dpi=30)
    fonts = {tuple(text.get_fontfamily()) for text in figure.findobj(Text) if "漢" in text.get_text()}  # type: ignore[union-attr]
    assert fonts == {("sans-serif", font)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each letter that it has no glyph for
        figure.savefig(io.BytesIO(), dpi=30)
    assert caplog.messages == []


def test_letters_that_no_font_has_are_named_once_in_plain_words(caplog: pytest.LogCaptureFixture) -> None:
    forget_fonts()
    unassigned = "\U000eabcd\U000eabce"
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        for _ in range(2):
            figures.rendered(draw(record(unassigned, "b", "c"), PIXELS), format="png", dpi=30)
    assert caplog.messages == [
        "figures show boxes for \U000eabcd \U000eabce: no font on this machine has these letters; install one that does, "
        "such as Noto Sans CJK for Chinese, Japanese and Korean"
    ]


def test_fonts_are_not_looked_at_for_plain_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "fonts_with", lambda letters: pytest.fail("looked at the fonts"))
    figures.rendered(draw(record("café", "naïve ½", "Ω"), PIXELS), format="png", dpi=30)
