"""How the run was made: data, training, hardware, duration and versions."""

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rayprob import __version__
from rayprob.config import strict_yaml
from rayprob.probability.families import family_of
from rayprob.report.run.files import RunFiles
from rayprob.text import counted

PACKAGES = ("torch", "torchvision", "ray", "numpy", "scipy", "matplotlib")


@dataclass(frozen=True)
class Made:
    """Facts by name, in the order of the page, and the run file."""

    facts: tuple[tuple[str, str], ...]
    run_file: str


def made(files: RunFiles) -> Made:
    """Return how the run was made."""
    facts = [*_of_predictions(files), *_of_dataset(files), *_of_training(files.history), *_of_versions(files)]
    return Made(tuple(facts), strict_yaml.dump(files.run))


def sentence(files: RunFiles) -> str:
    """Return what the run is, in one sentence."""
    model = files.run.get("model", {})
    head = model.get("head", {}) if isinstance(model, dict) else {}
    backbone = str(model.get("backbone", "a classifier")) if isinstance(model, dict) else "a classifier"
    says = family_of(files.predictions.family).describe(head)
    starts = [row for row in files.history if row.get("kind") == "start"]
    trained = f"trained on {starts[-1]['train_samples']:,} images" if starts and "train_samples" in starts[-1] else "trained"
    data = f" of {files.dataset.name}" if files.dataset else ""
    labels, images = len(files.predictions.label_space), len(files.predictions)
    judged = f"evaluated on the {images:,} images of its {files.split} split"
    return f"{backbone} with {says}, {trained}{data} with {labels:,} labels, {judged}."


def _of_predictions(files: RunFiles) -> list[tuple[str, str]]:
    facts = files.predictions.facts
    told = [("folder", files.folder), ("split", f"{files.split}, {len(files.predictions):,} images")]
    names = (("run fingerprint", "run_fingerprint"), ("checkpoint of step", "step"))
    told += [(name, str(facts[key])) for name, key in names if key in facts]
    calibration = files.bundle.facts.get("calibration") if files.bundle else None
    if isinstance(calibration, dict):
        num_samples = calibration.get("num_samples")
        images = f"{num_samples:,}" if isinstance(num_samples, int) else num_samples
        words = f"{calibration.get('method')}, fitted on {images} images of {calibration.get('split')}"
        told.append(("calibration", words))
    return told


def _of_dataset(files: RunFiles) -> list[tuple[str, str]]:
    if files.dataset is None:
        return [("dataset fingerprint", str(files.predictions.facts.get("dataset_fingerprint", "not recorded")))]
    splits = ", ".join(f"{split} {samples:,}" for split, samples in files.dataset.splits.items())
    return [("dataset", f"{files.dataset.name} ({splits})"), ("dataset fingerprint", files.dataset.fingerprint)]


def _of_training(history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    starts = [row for row in history if row.get("kind") == "start"]
    steps = [row for row in history if row.get("kind") == "step"]
    told = []
    if starts:
        last = starts[-1]
        hosts = ", ".join(dict.fromkeys(str(row["host"]) for row in starts if "host" in row))
        ranks = f"{counted(last.get('world_size', 1), 'rank')} on {last.get('device', 'an unknown device')}"
        told.append(("hardware", f"{ranks}, host {hosts}" if hosts else ranks))
        told.append(
            (
                "starts",
                f"{len(starts)}"
                + (", resumed at step " + ", ".join(str(s["step"]) for s in starts[1:]) if len(starts) > 1 else ""),
            )
        )
        if "trainable_parameters" in last:
            told.append(("trainable parameters", f"{last['trainable_parameters']:,}"))
        if steps and "total_steps" in last:
            told.append(("steps", f"{steps[-1]['step']:,} of {last['total_steps']:,}"))
    elapsed_s = _training_s(history)
    if elapsed_s:
        told.append(("time in training steps", duration(elapsed_s)))
    return told


def _training_s(history: list[dict[str, Any]]) -> float:
    """Return the time that the logged windows took: their images over their images per second."""
    starts = [row for row in history if row.get("kind") == "start" and row.get("steps_per_epoch")]
    if not starts:
        return 0.0
    images_a_step = starts[-1].get("train_samples", 0) / starts[-1]["steps_per_epoch"]
    total_s, before = 0.0, 0
    for row in history:
        if row.get("kind") == "step" and row.get("images_per_s"):
            total_s += max(row["step"] - before, 0) * images_a_step / row["images_per_s"]
            before = row["step"]
    return total_s


def _of_versions(files: RunFiles) -> list[tuple[str, str]]:
    found = {name: _version(name) for name in PACKAGES}
    listed = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    return [("this page", f"rayprob {__version__}, Python {platform.python_version()}, {listed}")]


def duration(elapsed_s: float) -> str:
    """Return seconds as words: 42 s, 3 min 20 s, 2 h 05 min."""
    seconds = round(elapsed_s)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
