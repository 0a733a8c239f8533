"""The table of published systems: what each row states, and that the documents and the page say the same."""

from pathlib import Path

from rayprob.metrics.protocols import PROTOCOLS
from rayprob.report.run.published import NOT_STATED, PUBLISHED
from tests.report.page_checks import Page

NUMBERS = Path(__file__).resolve().parents[3] / "docs" / "numbers.md"


def test_weights_are_named_with_their_source_or_not_stated() -> None:
    assert {row.protocol for row in PUBLISHED} <= PROTOCOLS.keys()
    assert all((row.weights == NOT_STATED) == (not row.weights_source) for row in PUBLISHED)
    assert all(row.source and 0 < row.mAP < 1 for row in PUBLISHED)


def test_the_documents_have_the_same_rows() -> None:
    lines = NUMBERS.read_text().splitlines()
    for row in PUBLISHED:
        weights = f"{row.weights} ({row.weights_source})" if row.weights_source else row.weights
        cells = (row.system, row.model, row.image_size_px, weights, f"{row.mAP:.3f}", f"`{row.protocol}`", row.source)
        assert f"| {' | '.join(map(str, cells))} |" in lines


def test_the_page_shows_size_and_weights(mixture_page: str) -> None:
    text = Page(mixture_page).text
    for row in PUBLISHED:
        assert row.weights in text
        assert row.weights_source in text
    assert "448" in text
