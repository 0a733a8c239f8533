"""`Answer`: asked more, it says what a new prediction would say; its texts hold no markup that is not ours."""

import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import rayprob as rp
from rayprob.errors import LabelError, QueryError, UnknownLabel
from rayprob.labels import LabelSpace
from tests.loader.tiny import photo
from tests.predict.small import NAMES, make_bundle
from tests.probability.brute_force import all_sets, set_probabilities

TABLE = {"dining table": True}


@pytest.fixture(scope="module")
def answer(model: rp.Model) -> rp.Answer:
    return model.predict(photo(1))


def test_probabilities_equal_sums_over_label_sets(answer: rp.Answer) -> None:
    sets_SL, p_S = all_sets(6), set_probabilities(answer.distribution)[0]
    fork, person = sets_SL[:, NAMES.index("fork")].astype(bool), sets_SL[:, NAMES.index("person")].astype(bool)
    assert answer.prob("P(fork | !person)") == pytest.approx(p_S[fork & ~person].sum() / p_S[~person].sum(), rel=1e-9)
    assert list(answer.marginals) == list(NAMES)
    np.testing.assert_allclose(list(answer.marginals.values()), p_S @ sets_SL, rtol=1e-9)
    top = answer.top_sets(3)
    assert [line.probability for line in top] == pytest.approx(sorted(p_S)[:-4:-1], rel=1e-9)
    assert answer.entropy == pytest.approx(-(p_S * np.log(p_S)).sum(), rel=1e-9)


def test_an_unknown_label_names_the_nearest_and_is_a_key_error(answer: rp.Answer) -> None:
    with pytest.raises(KeyError) as caught:
        answer.marginals["frok"]
    assert isinstance(caught.value, UnknownLabel)
    assert str(caught.value).startswith("unknown label 'frok'; nearest: fork; allowed: ")
    assert answer.marginals.get("frok") is None
    assert pickle.loads(pickle.dumps(answer.marginals)) == dict(answer.marginals)


def test_more_evidence_gives_the_answer_of_a_new_prediction(model: rp.Model, answer: rp.Answer) -> None:
    asked_at_once = model.predict(photo(1), evidence=TABLE, rule="0.5")
    asked_later = model.predict(photo(1), rule="0.5").given({"dining table": False}).given(TABLE)
    assert asked_later.to_dict() == asked_at_once.to_dict()
    assert answer.evidence == {}
    assert answer.given(TABLE).prob("P(fork)") == pytest.approx(answer.prob("P(fork | dining table)"), rel=1e-12)
    assert answer.given(TABLE).marginals["fork"] == pytest.approx(answer.prob("P(fork | dining table)"), rel=1e-12)


def test_why_a_label_is_believed(answer: rp.Answer) -> None:
    given = answer.given(TABLE)
    why = given.explain("fork")
    p = given.marginals["fork"]
    assert (why.label, why.pieces[0].name) == ("fork", "dining table")
    assert why.log_odds == pytest.approx(np.log(p / (1 - p)), rel=1e-9)
    assert sum(scene.share for scene in why.scenes) == pytest.approx(1)
    with pytest.raises(LabelError, match="unknown label 'frok'; nearest: fork"):
        given.explain("frok")
    with pytest.raises(QueryError, match="is itself evidence"):
        given.explain("dining table")


def test_what_cannot_be_asked_of_an_answer_is_refused(answer: rp.Answer) -> None:
    with pytest.raises(QueryError, match=r"unknown label 'frok'(.|\n)*\^\^\^\^"):
        answer.prob("P(frok)")
    with pytest.raises(QueryError, match="contradictory evidence"):
        answer.given(TABLE).prob("P(fork | !dining table)")
    with pytest.raises(QueryError, match="k must be at least 1; got 0"):
        answer.top_sets(0)
    with pytest.raises(LabelError, match="nearest: dining table"):
        answer.given({"dinning table": True})


def test_the_table_names_image_labels_and_rule(model: rp.Model, answer: rp.Answer) -> None:
    lines = repr(answer).splitlines()
    assert lines[0] == f"image: {{{', '.join(answer.label_set)}}} by label_OF1"
    assert any(re.fullmatch(r"  fork +0\.\d{3}  in the set", line) for line in lines)
    known = repr(model.predict(photo(1), evidence=TABLE, queries="P(fork)", rule="recall@0.1"))
    assert "  dining table  1.000  known\n" in known
    assert re.search(r"\n  P\(fork\) = 0\.\d+\n  no guarantee: it holds for images without evidence$", known)


class Tags(HTMLParser):
    """Collects the elements of a page, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_notebook_view_is_self_contained_and_escapes_every_name(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "a&b", '"quoted"', "<img src=x onerror=y>", "five", "six")
    make_bundle(1, {"name": "mixture", "components": 3}, labels=LabelSpace(names, (1, 2, 3, 4, 5, 6))).save(str(tmp_path / "b"))
    path = tmp_path / "<b>.jpg"
    path.write_bytes(photo(1))
    answer = rp.load(tmp_path / "b").predict(path, rule="0", evidence={"a&b": True}, queries=['P("a&b")'])
    page = Tags(answer._repr_html_())
    assert set(page.elements) == {"div", "img", "b", "table", "tr", "td", "code"}
    assert {name for name, _ in page.attributes} == {"style", "src", "alt"}
    assert all(name != "src" or str(value).startswith("data:image/jpeg;base64,") for name, value in page.attributes)
    assert "url(" not in answer._repr_html_()
    assert all(name in page.text for name in names[:4])
    assert "<b>.jpg, label set by 0" in page.text


def test_the_notebook_view_lives_without_its_image_and_takes_the_colours_of_the_notebook(model: rp.Model, photos: Path) -> None:
    answer = model.predict(photos / "photo-0.jpg")
    assert "<img" in answer._repr_html_()
    (photos / "photo-0.jpg").unlink()
    assert "<img" not in answer._repr_html_()
    assert "<img" in model.predict(Pillow.new("RGB", (900, 30)))._repr_html_()
    colours = re.findall(r"(?<!-)color:([^;\"]+)", answer._repr_html_())
    assert set(colours) == {"inherit"}  # text follows a dark notebook
