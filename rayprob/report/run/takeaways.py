"""The sentence above each chart: what it shows, computed from its numbers."""

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
        return f"At threshold 0.5, OF1 is {half.OF1:.3f}; tuning the threshold changes it by less than half a point."
    word = "gains" if change > 0 else "loses"
    points = abs(change) * 100
    return f"OF1 is {half.OF1:.3f} at 0.5 and {tuned.OF1:.3f} at the tuned threshold, which {word} {points:.1f} points."


def on_labels(labels: Labels) -> str:
    """How much harder rare labels are."""
    counted = [row for row in labels.rows if row.ap is not None]
    if not counted:
        return "No label has a positive in this split."
    best, worst = max(counted, key=lambda row: row.ap or 0), min(counted, key=lambda row: row.ap or 0)
    text = f"AP ranges from {worst.ap:.3f} ({worst.name}) to {best.ap:.3f} ({best.name})"
    groups = [group for group in labels.groups if group.mean_ap is not None]
    if len(groups) < 2:
        return f"{text}."
    rare, frequent = groups[0].mean_ap or 0, groups[-1].mean_ap or 0
    return f"{text}; the rarest third of the labels has mean AP {rare:.3f}, the most frequent third {frequent:.3f}."


def on_reliability(numbers: Headline, *, is_calibrated: bool) -> str:
    """What calibration did to the marginals."""
    before = numbers.before.ECE
    if numbers.after is None and is_calibrated:
        return f"Marginals are off by {before * 100:.2f} points on average (ECE) as trained, and no calibrator improves them."
    if numbers.after is None:
        return f"Marginals are off by {before * 100:.2f} points on average (ECE), before any calibration."
    after = numbers.after.ECE
    if after < before:
        return f"Calibration reduces the mean error of marginals (ECE) from {before * 100:.2f} to {after * 100:.2f} points."
    return f"Calibration does not help here: ECE {before * 100:.2f} points before, {after * 100:.2f} after."


def on_thresholds(chart: ThresholdChart) -> str:
    """How close the chosen threshold is to the best one for this split."""
    name, at, value = chart.marks[-1]
    short = max(chart.best_value - value, 0)
    return (
        f"The threshold {name} ({at:.3f}) reaches OF1 {value:.3f}, {short * 100:.1f} points below the best possible on this "
        f"split ({chart.best_value:.3f} at {chart.best_threshold:.2f})."
    )


def on_co_occurrence(pairs: CoOccurrence, is_joint: bool) -> str:
    """Where the model's expected co-occurrence is furthest from the annotations."""
    row, column, true, expected = pairs.worst
    kind = "joint model" if is_joint else "independent model"
    return (
        f"The {kind}'s conditional probabilities are off by {pairs.mean_gap * 100:.1f} points on average; the largest error is "
        f"P({column} | {row}), expected {expected:.2f}, annotated {true:.2f}."
    )


def on_scenes(scenes: Scenes) -> str:
    """How many components the model uses."""
    heaviest = scenes.scenes[0]
    return (
        f"{scenes.num_components} components, equivalent to {scenes.effective:.1f} of equal weight; the heaviest, "
        f"“{heaviest.name}”, has {heaviest.weight:.0%} of the weight."
    )


def on_suspects(images: Images) -> str:
    """How many annotations surprise the model."""
    if not images.suspects:
        return "No annotation contradicts the model."
    shown = len(images.suspects)
    added = sum(not suspect.is_annotated for suspect in images.suspects)
    return (
        f"{images.surprises:,} annotations have a probability below 5 %; of the {shown} shown, {added} may be "
        f"missing labels and {shown - added} wrong labels. Each is a mistake of either the annotation or the model."
    )


def on_training(curves: TrainingCurves) -> str:
    """The best holdout mAP and when it was reached."""
    if not curves.holdout_map.y:
        return "The run has not been evaluated yet."
    best = max(curves.holdout_map.y)
    last = curves.holdout_map.y[-1]
    rest = "its last evaluation" if best == last else f"step {curves.best_step:,}; it ended at {last:.3f}"
    return f"The best holdout mAP is {best:.3f}, at {rest}."
