"""One sentence over each chart: what it shows, said from its numbers."""

from rayprob.probability.families import Family
from rayprob.report.run.curves import ThresholdChart, TrainingCurves
from rayprob.report.run.headline import Headline
from rayprob.report.run.images import Images
from rayprob.report.run.labels import Labels
from rayprob.report.run.together import CoOccurrence, Scenes


def on_label_sets(numbers: Headline) -> str:
    """What tuning the threshold is worth."""
    half, tuned = numbers.at_half.numbers, numbers.tuned.numbers
    change = tuned.OF1 - half.OF1
    if abs(change) < 0.005:
        return f"At 0.5 label sets reach OF1 {half.OF1:.3f}; a tuned threshold changes that by less than half a point."
    word = "gains" if change > 0 else "loses"
    points = abs(change) * 100
    return f"Same ranking, other threshold: OF1 {half.OF1:.3f} at 0.5, {tuned.OF1:.3f} tuned, which {word} {points:.1f} points."


def on_labels(labels: Labels) -> str:
    """How much harder rare labels are."""
    counted = [row for row in labels.rows if row.ap is not None]
    if not counted:
        return "No label has a positive in this split."
    best, worst = max(counted, key=lambda row: row.ap or 0), min(counted, key=lambda row: row.ap or 0)
    text = f"From {worst.name} ({worst.ap:.3f}) to {best.name} ({best.ap:.3f})"
    groups = [group for group in labels.groups if group.mean_ap is not None]
    if len(groups) < 2:
        return f"{text}."
    rare, frequent = groups[0].mean_ap or 0, groups[-1].mean_ap or 0
    return f"{text}; the rarest third of the labels has mean AP {rare:.3f}, the most frequent third {frequent:.3f}."


def on_reliability(numbers: Headline, *, is_calibrated: bool) -> str:
    """What calibration did to the marginals."""
    before = numbers.before.ECE
    if numbers.after is None and is_calibrated:
        return f"Marginals are honest as trained, off by {before * 100:.2f} points on average (ECE): no calibrator did better."
    if numbers.after is None:
        return f"Marginals are off by {before * 100:.2f} points on average (ECE), before any calibration."
    after = numbers.after.ECE
    if after < before:
        return f"Calibration takes the mean error of marginals (ECE) from {before * 100:.2f} to {after * 100:.2f} points."
    return f"Calibration does not help here: ECE {before * 100:.2f} points before, {after * 100:.2f} after."


def on_thresholds(chart: ThresholdChart) -> str:
    """How near the chosen threshold is to the best of this very split."""
    name, at, value = chart.marks[-1]
    short = max(chart.best_value - value, 0)
    return (
        f"The threshold {name} ({at:.3f}) reaches OF1 {value:.3f}, {short * 100:.1f} points short of the best that this very "
        f"split allows ({chart.best_value:.3f} at {chart.best_threshold:.2f})."
    )


def on_co_occurrence(pairs: CoOccurrence, family: Family) -> str:
    """Where the model's idea of co-occurrence is furthest from the truth."""
    row, column, true, expected = pairs.worst
    kind = "joint model" if family.is_joint else "independent model"
    return (
        f"The {kind} expects pairs to within {pairs.mean_gap * 100:.1f} points on average; furthest off is "
        f"P({column} | {row}), expected {expected:.2f}, annotated {true:.2f}."
    )


def on_scenes(scenes: Scenes) -> str:
    """How many components the model uses."""
    heaviest = scenes.scenes[0]
    return (
        f"{scenes.num_components} components, as varied as {scenes.effective:.1f} equally heavy ones; the heaviest, "
        f"“{heaviest.name}”, carries {heaviest.weight:.0%} of the images."
    )


def on_suspects(images: Images) -> str:
    """How many annotations surprise the model."""
    if not images.suspects:
        return "No annotation contradicts the model."
    shown = len(images.suspects)
    added = sum(not suspect.is_annotated for suspect in images.suspects)
    return (
        f"{images.surprises:,} annotations have less than 5 % probability; of the {shown} shown, {added} may be "
        f"labels left out and {shown - added} labels too many. Each is a mistake, the annotation's or the model's."
    )


def on_training(curves: TrainingCurves) -> str:
    """Where the run got to."""
    if not curves.holdout_map.y:
        return "The run has not been evaluated yet."
    best = max(curves.holdout_map.y)
    last = curves.holdout_map.y[-1]
    rest = "its last evaluation" if best == last else f"step {curves.best_step:,}; it ended at {last:.3f}"
    return f"Holdout mAP is best, {best:.3f}, at {rest}."
