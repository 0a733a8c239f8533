"""The parts of a card about trust: calibration, decision rules with their guarantees, and limits in sentences."""

from collections.abc import Iterator
from typing import Any

from rayprob.errors import RunError
from rayprob.files import storage
from rayprob.files.documents import Shape, read_json
from rayprob.probability.decisions.rules import JOINT_RULES, RECALL
from rayprob.runs.bundle import Bundle
from rayprob.runs.finished import REPORTED
from rayprob.runs.paths import RunFolder
from rayprob.text import counted, first_of

FEW_POSITIVES = 20
MOST_NAMED = 12
EXCHANGEABLE = (
    "Guarantees assume that new images are exchangeable with those of the holdout; they do not hold for images of another "
    "kind. The run chose its checkpoint on the same holdout, so that they hold up to that choice."
)


class _Comparison(Shape):
    """The parts of a comparison that a card tells."""

    split: str
    before: dict[str, float | None]
    after: dict[str, float | None]


class _Calibration(Shape):
    """calibration.json, as far as a card reads it."""

    holdout: _Comparison
    reported: _Comparison | None = None


def calibration_of(bundle: Bundle, folder: str | None) -> dict[str, Any] | None:
    """Return what was fitted on which images, and ECE and NLL before and after; None for a bundle without calibration."""
    fitted = bundle.facts.get("calibration")
    if not isinstance(fitted, dict):
        return None
    measured = []
    for name, one in _measured(folder).items():
        numbers = {metric: [one["before"].get(metric), one["after"].get(metric)] for metric in ("ECE", "nll_nats")}
        measured.append({"split": one["split"], "is_cross_fitted": name == "holdout", **numbers})
    return {**fitted, "measured": measured}


def _measured(folder: str | None) -> dict[str, dict[str, Any]]:
    """Return the comparisons that `rayprob calibrate` recorded, by name."""
    path = RunFolder(folder).calibration if folder is not None else ""
    if not path or not storage.exists(path):
        return {}
    try:
        found = read_json(path, _Calibration, error=RunError, remedy="run `rayprob calibrate` again")
    except RunError:  # the card does without; `rayprob report` names the damage
        return {}
    return {name: found[name] for name in ("holdout", "reported") if found.get(name) is not None}


def rules_of(bundle: Bundle) -> list[dict[str, Any]]:
    """Return each rule that chooses label sets: its name, what it is, and what it guarantees, or null."""
    rules: list[dict[str, Any]] = [
        {"name": name, "is": _threshold_words(name), "guarantee": None, "thresholds": sorted(set(fitted.values_L.tolist()))}
        for name, fitted in bundle.thresholds.items()
    ]
    rules += [
        {"name": f"{RECALL}{alpha}", "is": "one threshold, by conformal risk control", "guarantee": one.words}
        | {"thresholds": [one.threshold], "num_samples": one.num_samples}
        for alpha, one in bundle.guarantees.items()
    ]
    return rules + [{"name": name, "is": JOINT_WORDS[name], "guarantee": None, "thresholds": []} for name in JOINT_RULES]


def _threshold_words(name: str) -> str:
    of, _, aim = name.partition("_")
    kind = "one threshold per label" if of == "label" else "one threshold for all labels"
    return f"{kind}, fitted for {aim.replace('_', ' ')}"


JOINT_WORDS = {"best_F1": "the label set with the largest expected F1", "top_set": "the most probable label set"}


def limits_of(card: dict[str, Any], faults: list[str]) -> list[str]:
    """Return what a user of the model must know, in sentences, from the other sections of its card."""
    return [*_untested(card), *_few(card["data"]), *_unsure(card), *faults]


def _untested(card: dict[str, Any]) -> Iterator[str]:
    judged = [entry["split"] for entry in card["numbers"]]
    if not judged:
        yield "Not evaluated: this card has no numbers."
    elif REPORTED not in judged:
        yield f"Not evaluated on {REPORTED}; the run chose its checkpoint on the images judged, so the numbers are optimistic."
    yield (
        "Not tested on images of another origin, on changed images (blur, noise, another camera), or separately for groups of "
        "people or places."
    )


def _few(data: dict[str, Any]) -> Iterator[str]:
    few = [label for label in data["labels"] if label["positives"] is not None and label["positives"] < FEW_POSITIVES]
    if few:
        shown = [f"{label['name']} ({label['positives']})" for label in sorted(few, key=lambda label: label["positives"])]
        yield (
            f"{counted(len(few), 'label')} with fewer than {FEW_POSITIVES} training images: "
            f"{first_of(shown, MOST_NAMED)}; their probabilities are unreliable."
        )
    unknown = [split for split, state in data["rest"].items() if state == "unknown"]
    if unknown:
        yield (
            f"Labels that an image does not list are unknown in {', '.join(unknown)}; numbers are those of the stated labels."
        )


def _unsure(card: dict[str, Any]) -> Iterator[str]:
    if card["calibration"] is None:
        yield "Not calibrated: probabilities are the classifier's own, and no rule has a guarantee."
    elif any(rule["guarantee"] for rule in card["rules"]):
        yield EXCHANGEABLE
    if any(entry["metrics"] and entry["confidence"] is None for entry in card["numbers"]):
        yield "The numbers have no intervals yet; `rayprob evaluate` and `rayprob calibrate` add them."
