"""The query language: what it reads, what it refuses, and its answers against sums over all 2^L label sets."""

import operator
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from rayprob.errors import LabelError, QueryError
from rayprob.labels import COCO_80, LabelSpace
from rayprob.probability.distributions import distribution as distribution_module
from rayprob.probability.distributions.distribution import BernoulliDistribution, MixtureDistribution
from rayprob.probability.distributions.evidence import parse_evidence
from rayprob.probability.queries.answer import answers, parse, probabilities, probability
from tests.probability.brute_force import ask, both_families, letters, random_bernoulli, random_mixture

EXACT = {"rtol": 0, "atol": 1e-10}
L = 6
Meaning = Callable[[frozenset[int]], bool]
COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}


def always(columns: frozenset[int]) -> bool:
    return True


# ---- expressions drawn as (text, meaning), the meaning being plain Python on the set of columns present


def group_text(columns: list[int]) -> str:
    return "{" + ", ".join("abcdef"[c] for c in columns) + "}"


def label(column: int) -> tuple[str, Meaning]:
    return "abcdef"[column], lambda present: column in present


def count(columns: list[int] | None, symbol: str, number: int) -> tuple[str, Meaning]:
    group = set(range(L)) if columns is None else set(columns)
    text = f"count{'' if columns is None else group_text(columns)} {symbol} {number}"
    return text, lambda present: COMPARE[symbol](len(present & group), number)


def exactly(columns: list[int]) -> tuple[str, Meaning]:
    return f"exactly {group_text(columns)}", lambda present: present == set(columns)


def negated(part: tuple[str, Meaning]) -> tuple[str, Meaning]:
    return f"!({part[0]})", lambda present: not part[1](present)


def joined(symbol: str, parts: list[tuple[str, Meaning]]) -> tuple[str, Meaning]:
    both = all if symbol == "&" else any
    return f"({f' {symbol} '.join(text for text, _ in parts)})", lambda present: both(meaning(present) for _, meaning in parts)


COLUMNS = st.lists(st.integers(0, L - 1), unique=True, min_size=1, max_size=4)
LEAVES = st.one_of(
    st.builds(label, st.integers(0, L - 1)),
    st.builds(count, st.one_of(st.none(), COLUMNS), st.sampled_from(sorted(COMPARE)), st.integers(0, L + 1)),
    st.builds(exactly, st.lists(st.integers(0, L - 1), unique=True, max_size=L)),
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.builds(negated, parts),
        st.builds(partial(joined, "&"), st.lists(parts, min_size=1, max_size=4)),
        st.builds(partial(joined, "|"), st.lists(parts, min_size=1, max_size=4)),
    ),
    max_leaves=8,
)
DISTRIBUTIONS = both_families(0, num_images=2, num_labels=L)


@settings(deadline=None, max_examples=150)
@for_all(EXPRESSIONS)
def test_any_expression_equals_brute_force(expression: tuple[str, Meaning]) -> None:
    text, meaning = expression
    query = parse(f"P({text})", letters(L))
    for given in DISTRIBUTIONS:
        np.testing.assert_allclose(given.prob(query), ask(given, meaning, always), **EXACT)


@settings(deadline=None, max_examples=150)
@for_all(EXPRESSIONS, st.lists(EXPRESSIONS, min_size=1, max_size=3))
def test_any_expression_given_any_evidence_equals_brute_force(
    event: tuple[str, Meaning], evidence: list[tuple[str, Meaning]]
) -> None:
    text = f"P({event[0]} | {', '.join(part for part, _ in evidence)})"

    def holds(present: frozenset[int]) -> bool:
        return all(meaning(present) for _, meaning in evidence)

    possible = any(holds(frozenset(c for c in range(L) if bits >> c & 1)) for bits in range(2**L))
    if not possible:
        with pytest.raises(QueryError, match="contradictory evidence"):
            parse(text, letters(L))
        return
    query = parse(text, letters(L))
    for given in DISTRIBUTIONS:
        np.testing.assert_allclose(given.prob(query), ask(given, event[1], holds), **EXACT)


@settings(deadline=None, max_examples=150)
@for_all(EXPRESSIONS, st.lists(EXPRESSIONS, max_size=2))
def test_a_query_written_back_reads_as_the_same_query(event: tuple[str, Meaning], evidence: list[tuple[str, Meaning]]) -> None:
    try:
        query = parse(f"P({event[0]}{' | ' if evidence else ''}{', '.join(text for text, _ in evidence)})", letters(L))
    except QueryError:
        return
    again = parse(str(query), letters(L))
    assert again == query
    assert str(again) == str(query)


@pytest.mark.parametrize(
    ("text", "event", "given"),
    [
        ("P(a & b)", lambda s: {0, 1} <= s, always),
        ("P(a | b)", lambda s: 0 in s, lambda s: 1 in s),
        ("P(a | c d, !b)", lambda s: 0 in s, lambda s: 2 in s and 1 not in s),
        ("P(a & (b | c d))", lambda s: 0 in s and bool({1, 2} & s), always),
        ("P(a & !(b & !c d) | (d | e))", lambda s: 0 in s and not (1 in s and 2 not in s), lambda s: bool({3, 4} & s)),
        ("P(count >= 3)", lambda s: len(s) >= 3, always),
        ("P(a | count >= 3)", lambda s: 0 in s, lambda s: len(s) >= 3),
        ("P(count{a, b, d} = 1 | count <= 4, !e)", lambda s: len({0, 1, 3} & s) == 1, lambda s: len(s) <= 4 and 4 not in s),
        ("P(exactly {a, c d})", lambda s: s == {0, 2}, always),
        ("P(exactly{})", lambda s: not s, always),
        ("P(a, b)", lambda s: {0, 1} <= s, always),
        ("P(a | a)", always, lambda s: 0 in s),
        ("P(!a | a)", lambda s: False, lambda s: 0 in s),
        ("P(b & !b)", lambda s: False, always),
        ("P(count > 100)", lambda s: False, always),
        ('P("count" & "a | b")', lambda s: {5, 6} <= s, always),
        ("P(count & count >= 2)", lambda s: 5 in s and len(s) >= 2, always),
        ("P(exactly | exactly {exactly})", always, lambda s: s == {7}),
        ("  P( a   &\tc   d )  ", lambda s: {0, 2} <= s, always),
    ],
)
def test_the_language_means_what_it_says(text: str, event: Meaning, given: Meaning) -> None:
    space = LabelSpace(("a", "b", "c d", "d", "e", "count", "a | b", "exactly"), tuple(range(8)))
    query = parse(text, space)
    assert parse(str(query), space) == query
    for distribution in both_families(1, num_labels=8):
        np.testing.assert_allclose(probability(query, distribution), ask(distribution, event, given), **EXACT)


@pytest.mark.parametrize(
    "text",
    [
        "P(fork & knife)",
        "P(cat | dog)",
        "P(fork | dining table, !person)",
        "P(person & (car | bus))",
        "P(count >= 3)",
        "P(exactly {person, dog})",
        "P(count{fork, knife, spoon} >= 2 | dining table & !(pizza | sandwich), count < 9)",
    ],
)
def test_documented_queries_are_written_back_as_they_were(text: str) -> None:
    assert str(parse(text, COCO_80)) == text


@pytest.mark.parametrize(
    ("text", "message", "fault"),
    [
        ("", "the query is empty; ask for example", None),
        ("   ", "the query is empty", None),
        ("fork & knife", r"a query starts with P\(", "fork"),
        ("P fork", r"a query starts with P\(", "P fork"),
        ("P()", "a label is missing here", ")"),
        ("P(fork &)", "a label is missing here", ")"),
        ("P(fork & knife", r"the query needs '\)' here", ""),
        ("P(fork) & knife", "the query ended before this", "&"),
        ("P(fork! knife)", r"the query needs '\)' here", "!"),
        ("P(forkk & knife)", "unknown label 'forkk'; nearest: fork; 80 are allowed", "forkk"),
        ("P(fork | dinning table)", "unknown label 'dinning table'; nearest: dining table", "dinning table"),
        ("P(fork and knife)", "unknown label 'fork and knife'", "fork and knife"),
        ("P(Fork)", "unknown label 'Fork'; nearest: fork", "Fork"),
        ("P(fork | knife | cup)", "the evidence has begun already; write `or` in parentheses", "| cup"),
        ("P(fork | )", "a label is missing here", ")"),
        ("P((fork | knife)", r"the query needs '\)' here", ""),
        ("P((fork, knife))", r"the parenthesis needs '\)' here", ", knife"),
        ("P(count >= many)", "count compares with a whole number", "many"),
        ("P(count >= -1)", "count compares with a whole number", "-1"),
        ("P(count{fork} fork)", "count needs a comparison, one of <", "fork)"),
        ("P(count{} > 1)", "an empty group has nothing to count", "{} >"),
        ("P(exactly {fork knife})", "unknown label 'fork knife'", "fork knife"),
        ("P(exactly {fork; knife})", "unknown label 'fork; knife'", "fork; knife"),
        ("P(exactly {fork (knife)})", "the group needs ',' or '}' here", "(knife"),
        ("P(exactly {fork, )", "a label is missing here", ")"),
        ('P("fork)', "this quote is not closed", '"fork)'),
        ("P(" + "(" * 101 + "fork" + ")" * 102, "more than 100 levels of parentheses", None),
    ],
)
def test_faulty_queries_are_refused_with_a_caret_under_the_fault(text: str, message: str, fault: str | None) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        parse(text, COCO_80)
    if fault is not None:
        _, shown, carets = str(caught.value).rsplit("\n", 2)
        assert shown == f"  {text}"
        place = text.rindex(fault) if fault else len(text)
        assert carets.index("^") == 2 + place
        assert set(carets) <= {" ", "^"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("P(cat | dog, !dog)", r"contradictory evidence: 'dog' is given as present and as absent in P\(cat \| dog, !dog\)"),
        ("P(cat | dog & bird, !bird)", "'bird' is given as present and as absent"),
        ("P(cat | (dog | bird), !dog, !bird)", "the condition can never be true"),
        ("P(cat | count >= 81)", "the condition can never be true"),
        ("P(cat | exactly {dog}, bird)", "the condition can never be true"),
    ],
)
def test_contradictory_evidence_is_refused_when_the_query_is_read(text: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        parse(text, COCO_80)


def test_evidence_that_an_image_rules_out_is_refused_with_the_image() -> None:
    logits_BL = np.zeros((3, 4))
    logits_BL[1, 2] = -np.inf
    with pytest.raises(QueryError, match=r"the evidence of P\(a \| c\) has probability 0 for 1 of 3 images, first image 1"):
        BernoulliDistribution(logits_BL).prob(parse("P(a | c)", letters(4)))


def test_expressions_of_too_many_labels_are_refused_but_long_conjunctions_are_not() -> None:
    names = COCO_80.names
    with pytest.raises(QueryError, match=r"joins 21 labels: more than 1,048,576 cases to enumerate; ask for parts of it"):
        parse(f"P(({' | '.join(names[:21])}))", COCO_80)
    with pytest.raises(QueryError, match=r"joins 19 labels and 5 cases of its counts: more than"):
        parse(f"P(({' | '.join(names[:19])}) & count > 3)", COCO_80)
    given = random_mixture(0, num_labels=80)
    everything = parse(f"P({' & '.join(names)})", COCO_80)
    np.testing.assert_allclose(np.log(given.prob(everything)), given.log_prob(np.ones((4, 80), dtype=bool)), rtol=1e-9)
    twenty = parse(f"P(({' | '.join(names[:20])}))", COCO_80)
    none = parse(f"P({' & '.join('!' + name for name in names[:20])})", COCO_80)
    np.testing.assert_allclose(given.prob(twenty), 1 - given.prob(none), **EXACT)


def test_a_query_about_other_labels_is_refused() -> None:
    with pytest.raises(QueryError, match=r"P\(a\) asks about 5 labels, but the distribution has 8"):
        random_bernoulli(0).prob(parse("P(a)", letters(5)))


def test_queries_condition_as_distributions_do() -> None:
    for given in both_families(3):
        conditioned = given.condition({1: True, 4: False})
        for event in ("a", "count >= 3", "(a | c) & !h", "exactly {b, c}"):
            found_B = given.prob(parse(f"P({event} | b, !e)", letters(8)))
            np.testing.assert_allclose(found_B, conditioned.prob(parse(f"P({event})", letters(8))), **EXACT)


def test_evidence_too_unlikely_for_a_product_is_still_weighed() -> None:
    logits_BKL = np.array([[[-500.0, -400.0, 3.0], [-490.0, -420.0, -3.0]]])
    given = MixtureDistribution(np.zeros((1, 2)), logits_BKL)
    found = given.prob(parse("P(c | a, b)", letters(3)))
    np.testing.assert_allclose(found, given.condition({0: True, 1: True}).marginals()[:, 2], **EXACT)


def test_many_queries_in_many_chunks_equal_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    given = random_mixture(4, num_images=9)
    queries = [parse(text, letters(8)) for text in ("P(a)", "P(a & !b | c)", "P(count > 2)", "P((a | b) & (c | d))")]
    expected_QB = np.stack([given.prob(query) for query in queries])
    monkeypatch.setattr(distribution_module, "CHUNK_BYTES", 500)
    assert len(list(answers(queries, given))) > 3
    np.testing.assert_allclose(probabilities(queries, given), expected_QB, **EXACT)
    assert probabilities(queries, given[:0]).shape == (4, 0)


def test_evidence_is_read_from_assignments_and_from_names() -> None:
    texts = ["dining table=1", "person = no", "!cat", "dog", "fork=present"]
    named = {"dining table": True, "person": False, "cat": False, "dog": True, "fork": True}
    assert parse_evidence(texts, COCO_80) == {COCO_80.column(name): value for name, value in named.items()}


def test_faulty_evidence_is_refused() -> None:
    with pytest.raises(QueryError, match="evidence 'dog=maybe' gives 'maybe'; write LABEL=1"):
        parse_evidence(["dog=maybe"], COCO_80)
    with pytest.raises(LabelError, match="unknown label 'dogg'; nearest: dog"):
        parse_evidence(["dogg=1"], COCO_80)
    with pytest.raises(QueryError, match="'dog' is stated as present and as absent; keep one"):
        parse_evidence(["dog", "cat", "!dog"], COCO_80)
