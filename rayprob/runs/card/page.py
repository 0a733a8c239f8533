"""A card as Markdown, with the front matter that Hugging Face reads. Names in it are foreign text, so they are escaped."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rayprob.config import strict_yaml
from rayprob.text import printable

NOT_STATED = "not stated"
TASK = "image-classification"
PERCENT = ("mAP", "OF1", "CF1", "ECE")
ON_HUB = re.compile(r"[a-z0-9][a-z0-9.-]*")  # how Hugging Face spells licenses
MOST_LABELS = 200  # rows of the table; card.json has all
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")
Rows = Iterable[Sequence[str]]


def page_of(card: Mapping[str, Any], *, library: str = "rayprob", use: str = "") -> str:
    """Return the card as a page; `library` is what loads the model, and `use` more Markdown on how, for a published folder."""
    sections = (_opening(card), _uses(card), use, _numbers(card), _trust(card), _limits(card), _data(card), _made(card))
    return _front_matter(card, library) + "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(card: Mapping[str, Any], library: str) -> str:
    weights = card["stated"]["weights_license"]
    license_of = {"license": "unknown"}
    if weights is not None:
        named = weights.strip().lower()
        license_of = {"license": named} if ON_HUB.fullmatch(named) else {"license": "other", "license_name": weights}
    tags = [TASK, "multi-label", "rayprob", *(["timm"] if library == "timm" else [])]
    results = [_result(card, entry) for entry in card["numbers"] if entry["metrics"]]
    index = {"model-index": [{"name": card["name"], "results": results}]} if results else {}
    return (
        "---\n"
        + strict_yaml.dump({**license_of, "library_name": library, "tags": tags, "pipeline_tag": TASK} | index)
        + "---\n\n"
    )


def _result(card: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    name = card["data"]["name"] or NOT_STATED
    metrics = [
        {"type": metric, "name": metric, "value": round(number["value"], 4)}
        for metric, number in entry["metrics"].items()
        if number["value"] is not None
    ]
    return {
        "task": {"type": TASK, "name": "Multi-label image classification"},
        "dataset": {"name": name, "type": name, "split": entry["split"]},
        "metrics": metrics,
    }


def _opening(card: Mapping[str, Any]) -> str:
    model, data = card["model"], card["data"]
    on = f", trained on {data['name']}" if data["name"] else ""
    pretraining = model["pretraining"]
    started = "from scratch" if pretraining is None else f"from the weights {pretraining['name']} ({pretraining['source']})"
    rows = [
        ("labels", f"{data['num_labels']:,}"),
        ("parameters", f"{model['num_parameters']:,}"),
        ("input", f"{model['size_px']} x {model['size_px']} px, transform {model['transform']}"),
        ("normalisation", f"mean {model['mean']}, standard deviation {model['std']}, of values from 0 to 1"),
        ("images are read", "upright, as their EXIF states" if model["orientation"] == "upright" else "as they are stored"),
        ("started", started),
    ]
    text = f"A multi-label image classifier: {model['backbone']} with {model['describes']}{on}."
    return f"# {_shown(card['name'])}\n\n{_shown(text)}\n\n{_table(('', ''), rows)}"


def _uses(card: Mapping[str, Any]) -> str:
    stated = card["stated"]
    rows = [
        ("license of the weights", stated["weights_license"]),
        ("license of the code", stated["code_license"]),
        ("license of the data", stated["data_license"]),
        ("authors", ", ".join(stated["authors"]) or None),
        ("intended use", stated["intended_use"]),
        ("out of scope", stated["out_of_scope"]),
    ]
    return "## Use and licenses\n\n" + _table(("", ""), [(name, text or NOT_STATED) for name, text in rows])


def _numbers(card: Mapping[str, Any]) -> str:
    judged = [entry for entry in card["numbers"] if entry["metrics"]]
    if not judged:
        return ""
    names = list(dict.fromkeys(name for entry in judged for name in entry["metrics"]))
    rows = [
        (
            f"{entry['split']} ({entry['num_samples']:,} images; {entry['role']})",
            "calibrated" if entry["is_calibrated"] else "as trained",
            entry["rule"],
            *(_with_interval(name, entry["metrics"].get(name)) for name in names),
        )
        for entry in judged
    ]
    titles = [f"{name}, %" if name in PERCENT else f"{name}, nats per image" for name in names]
    explained = (
        "In brackets: 95 % bootstrap intervals over images; as images are drawn twice, those of ECE, and of mAP if labels have "
        "few positives, are too high. OF1 and CF1 are of the label sets of the rule."
    )
    table = _table(("split", "probabilities", "rule", *titles), rows)
    return "\n\n".join(["## Numbers", table, *([explained] if any(entry["confidence"] for entry in judged) else [])])


def _with_interval(name: str, number: Mapping[str, float | None] | None) -> str:
    if number is None or number["value"] is None:
        return "-"
    scale, digits = (100, 2) if name in PERCENT else (1, 3)
    value, low, high = (
        (None if one is None else f"{one * scale:.{digits}f}") for one in map(number.get, ("value", "low", "high"))
    )
    return f"{value} ({low} to {high})" if low is not None and high is not None else str(value)


def _trust(card: Mapping[str, Any]) -> str:
    fitted = card["calibration"]
    lines = ["## Calibration and rules", ""]
    if fitted is None:
        lines.append("Not calibrated.")
    else:
        lines.append(
            f"Calibrated by {fitted.get('method')}, fitted on {fitted.get('num_samples')} images of {fitted.get('split')}."
        )
        lines += [f"- {line}" for line in _measured(fitted["measured"])]
    rows = [(rule["name"], rule["is"], rule["guarantee"] or "-") for rule in card["rules"]]
    return "\n".join([*lines, "", _table(("rule", "label sets", "guarantee"), rows)])


def _measured(measured: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for one in measured:
        before, after = one["ECE"]
        if before is not None and after is not None:
            how = ", cross-fitted" if one["is_cross_fitted"] else ""
            yield f"ECE on {one['split']}{how}: {before * 100:.2f} % before, {after * 100:.2f} % after"


def _limits(card: Mapping[str, Any]) -> str:
    return "## Limits\n\n" + "\n".join(f"- {_shown(line)}" for line in card["limits"])


def _data(card: Mapping[str, Any]) -> str:
    data = card["data"]
    splits = ", ".join(f"{split} {count:,} images" for split, count in data["splits"].items()) or NOT_STATED
    states = {state: [split for split, one in data["rest"].items() if one == state] for state in ("absent", "unknown")}
    rest = "; ".join(f"{state} in {', '.join(found)}" for state, found in states.items() if found) or NOT_STATED
    facts = [
        ("dataset", data["name"] or NOT_STATED),
        ("fingerprint", data["fingerprint"] or NOT_STATED),
        ("splits", splits),
        ("labels that an image does not list", rest),
    ]
    shown = data["labels"][:MOST_LABELS]
    rows = [
        (label["name"], "-", "-")
        if label["positives"] is None
        else (label["name"], f"{label['positives']:,}", "-" if label["prevalence"] is None else f"{label['prevalence']:.2%}")
        for label in shown
    ]
    more = f"\n\n{len(data['labels']) - len(shown):,} more labels are in card.json." if len(shown) < len(data["labels"]) else ""
    table = _table(("label", f"images of {data['train_split']} with it", "prevalence"), rows)
    return f"## Data\n\n{_table(('', ''), facts)}\n\n{table}{more}"


def _made(card: Mapping[str, Any]) -> str:
    training, model = card["training"], card["model"]
    rows = [(name.replace("_", " "), _setting(value)) for name, value in training.items() if value is not None]
    rows += [(name, _setting(model[name])) for name in ("backbone", "pooling", "head", "family")]
    rows += [("command", card["command"]), ("versions", _setting(card["versions"]))]
    return "## How it was made\n\n" + _table(("", ""), rows)


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting(one)}" for key, one in value.items() if one is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value))
    return str(value)


def _table(titles: Sequence[str], rows: Rows) -> str:
    lines = [titles, ["---"] * len(titles), *([_shown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(text: str) -> str:
    """Return text that Markdown shows literally, on one line."""
    return SPECIAL.sub(r"\\\1", printable(text))
