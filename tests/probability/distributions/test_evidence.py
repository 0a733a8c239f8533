"""Evidence and queries about labels of any name: blanks, quotes, =, !, and accents in either spelling of Unicode."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprob.errors import LabelError, QueryError
from rayprob.labels import LabelSpace, composed
from rayprob.probability.distributions.evidence import parse_evidence
from rayprob.probability.queries.answer import parse
from rayprob.probability.queries.expression import And, Count, Exactly, Label, Not, Or, Query, quoted

NAMES = st.text(st.characters(codec="utf-8") | st.sampled_from('"=!&|(){},<> \té'), min_size=1, max_size=8) | st.sampled_from(
    ["count", "exactly", "P", "a=1", "a", "!a", '"a"', 'a"', " a", "a ", "a  b", "e\u0301", "\u00e9", '""', "0", "=1", "a=1=0"]
)


def space(*names: str) -> LabelSpace:
    return LabelSpace(names, tuple(range(1, len(names) + 1)))


@given(st.lists(NAMES, min_size=2, max_size=6, unique=True))
def test_every_label_can_be_stated_and_asked_for_whatever_its_name(names: list[str]) -> None:
    labels = space(*names)
    for column, name in enumerate(names):
        text = quoted(name)
        assert parse_evidence([text], labels) == parse_evidence([f"{text}=1"], labels) == {column: True}
        assert parse_evidence([f"!{text}"], labels) == parse_evidence([f" {text} = no"], labels) == {column: False}
        assert parse(f"P({text})", labels) == Query(Label(column, name), (), labels)


@given(st.lists(NAMES, min_size=3, max_size=6, unique=True))
def test_a_query_is_written_as_it_is_read(names: list[str]) -> None:
    labels = space(*names)
    a, b, c = (Label(column, name) for column, name in enumerate(names[:3]))
    event = And((Or((a, Not(b))), Count((a, c), ">=", 1)))
    for query in (Query(event, (Not(c),), labels), Query(Exactly((a, b)), (), labels), Query(a, (b, c), labels)):
        assert parse(str(query), labels) == query


@pytest.mark.parametrize(
    ("text", "names", "presence"),
    [
        ("a=b=0", ("a", "a=b"), {1: False}),
        ("a=b", ("a", "a=b"), {1: True}),
        ("!x", ("!x", "y"), {0: True}),
        ("hot  dog = yes", ("hot  dog", "y"), {0: True}),
        (" a", ("a", " a"), {1: True}),
        (" a", ("a", "b"), {0: True}),
        ('"a', ('"a', "a"), {0: True}),
        ('5" nut=0', ('5" nut', "a"), {0: False}),
    ],
)
def test_a_name_that_can_be_read_in_one_way_needs_no_quotes(
    text: str, names: tuple[str, ...], presence: dict[int, bool]
) -> None:
    assert parse_evidence([text], space(*names)) == presence


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("a=1", ("a", "a=1"), r"""'a=1' can be read in more than one way; write "a=1"=1 or "a"=1"""),
        ("!a", ("a", "!a"), r"""'!a' can be read in more than one way; write "!a"=1 or "a"=0"""),
        ("a=2", ("a", "b"), "evidence 'a=2' gives '2'; write LABEL=1"),
    ],
)
def test_evidence_that_can_be_read_in_no_or_two_ways_is_refused(text: str, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        parse_evidence([text], space(*names))


@pytest.mark.parametrize("text", ['"dgo"=1', "dgo=1", "!dgo", "dgo", '!"dgo"'])
def test_an_unknown_label_is_named_without_its_quotes(text: str) -> None:
    with pytest.raises(LabelError, match="unknown label 'dgo'; nearest: dog"):
        parse_evidence([text], space("cat", "dog"))


def test_both_spellings_of_an_accent_are_one_label() -> None:
    one, two = (unicodedata.normalize(form, "café crème") for form in ("NFC", "NFD"))
    assert one != two
    for stored, asked in ((one, two), (two, one)):
        labels = space("tea", stored)
        assert labels.column(asked) == 1
        assert parse_evidence([f"{asked}=1"], labels) == {1: True}
        assert str(parse(f"P({asked})", labels)) == f"P({stored})"
    space("tea", one).require_same(space("tea", two), "ours", "theirs")
    assert composed(two) == one


def test_an_old_dataset_whose_names_differ_in_the_spelling_of_accents_opens() -> None:
    names = ("caf\u00e9", "cafe\u0301")
    old = LabelSpace(names, (3, 8))
    assert [old.column(name) for name in names] == [0, 1]
