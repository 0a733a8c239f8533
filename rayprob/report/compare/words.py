"""The wording of a comparison: verdicts, the summary, and how differences are judged."""

from collections.abc import Sequence

from rayprob.metrics.paired import LEAST_POSITIVES, Difference, PairedRow
from rayprob.report.compare.comparison import ModelComparison

CHANCE, EQUAL, FEW = "may be chance", "equal", "too few"
LEGEND = (
    "intervals: 95 %, separately for each number, from {draws:,} draws of images; p is adjusted for all numbers and labels of "
    "the comparison, and a difference is more than chance at .05"
)
CAUTION = (
    "This compares these trained models on images like these. Whether one recipe is better than another also depends on the "
    "seed: train several."
)


def heading(comparison: ModelComparison) -> str:
    """Return the title of the page."""
    names = [model.name for model in comparison.models]
    return f"{names[1]} compared with {names[0]}" if len(names) == 2 else f"{_listed(names)} compared"


def lead(comparison: ModelComparison) -> str:
    """Return what is compared, and the result for each model."""
    of = f" of {comparison.data}" if comparison.data else ""
    models = _listed([f"{model.letter} is {model.name}" for model in comparison.models])
    images = (
        f"{models}, on {comparison.paired.num_images:,} images of {comparison.split}{of} with {comparison.num_labels:,} labels."
    )
    places = range(len(comparison.models) - 1)
    pairs = [f"{comparison.models[place + 1].letter} compared with {comparison.models[0].letter}: " for place in places]
    found = [
        f"{pair if len(pairs) > 1 else ''}{summary(comparison, place)}." for place, pair in zip(places, pairs, strict=True)
    ]
    return " ".join([images, *(capitalized(one) for one in found)])


def capitalized(text: str) -> str:
    """Return a text with its first letter capitalized and the rest unchanged."""
    return text[:1].upper() + text[1:]


def verdict(row: PairedRow, place: int, letters: Sequence[str]) -> str:
    """Return which model is better, or that the difference may be chance; `place` is the index of the difference."""
    difference = row.differences[place]
    if difference.p_value is None:
        return FEW
    if difference.value == difference.low == difference.high == 0:
        return EQUAL
    if not difference.is_clear:
        return CHANCE
    is_higher = difference.value > 0
    return f"{letters[place + 1] if is_higher != row.is_better_lower else letters[0]} is better"


def summary(comparison: ModelComparison, place: int) -> str:
    """Return a sentence: which numbers of a model differ from the first one's, and how many labels do."""
    letters = [model.letter for model in comparison.models]
    first, other = letters[0], letters[place + 1]
    clear = [row for row in comparison.paired.numbers if row.differences[place].is_clear]
    by_winner = {
        letter: [row.name for row in clear if verdict(row, place, letters).startswith(letter)] for letter in (other, first)
    }
    told = [f"{letter} has the better {_listed(names)}" for letter, names in by_winner.items() if names]
    numbers = "; ".join(told) if told else f"no number of {other} differs from {first}'s by more than chance"
    return f"{numbers}; {_count_clear(comparison, place)}"


def labels_clear(comparison: ModelComparison, place: int) -> str:
    """Return how many labels differ by more than chance, and how many have too few images to tell."""
    if not _tested(comparison, place):
        return _count_clear(comparison, place)
    few = sum(row.differences[place].p_value is None for row in comparison.paired.labels)
    rest = f" ({few} more have fewer than {LEAST_POSITIVES} images with or without it)" if few else ""
    return f"{_count_clear(comparison, place)}{rest}"


def _count_clear(comparison: ModelComparison, place: int) -> str:
    tested = _tested(comparison, place)
    if not tested:
        return f"no label has {LEAST_POSITIVES} images with it and {LEAST_POSITIVES} without, which a test of its AP takes"
    num_clear = sum(each.is_clear for each in tested)
    verb = "differs" if num_clear < 2 else "differ"
    return f"{num_clear or 'none'} of {len(tested)} labels {verb} in AP by more than chance"


def _tested(comparison: ModelComparison, place: int) -> list[Difference]:
    """Return the differences in AP of the labels with enough images to tell them from chance."""
    differences = (row.differences[place] for row in comparison.paired.labels)
    return [difference for difference in differences if difference.p_value is not None]


def by_clearness(rows: Sequence[PairedRow], place: int) -> list[PairedRow]:
    """Return labels with the clearest difference first, those with too few positives last."""

    def order(row: PairedRow) -> tuple[float, float]:
        difference = row.differences[place]
        return (2.0 if difference.p_value is None else difference.p_value), -abs(difference.value)

    return sorted(rows, key=order)


def p_words(p_value: float | None) -> str:
    """Return a p-value with three digits; "" for a label with too few images."""
    return "" if p_value is None else f"{p_value:.3f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
