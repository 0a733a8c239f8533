"""Writes and reads a bundle's card: two files next to those of the bundle, which its fingerprint does not cover."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rayprob.config import strict_yaml
from rayprob.errors import BundleError, RayprobError
from rayprob.files import storage
from rayprob.files.documents import Shape, read_json
from rayprob.runs.bundle import Bundle, bundle_fingerprint
from rayprob.runs.card.content import data_of, model_of, run_of, stated_in, training_of, versions
from rayprob.runs.card.numbers import numbers_of
from rayprob.runs.card.page import page_of
from rayprob.runs.card.promises import calibration_of, limits_of, rules_of
from rayprob.runs.history_rows import read_history
from rayprob.runs.paths import CARD_FILE, CARD_PAGE, RunFolder, bundle_folder

FORMAT, VERSION = "rayprob card", 1


class _Label(Shape):
    name: str
    positives: int | None
    prevalence: float | None


class _Data(Shape):
    """The section about the dataset, which is kept where the dataset cannot be opened."""

    name: str | None
    fingerprint: str | None
    splits: dict[str, int]
    rest: dict[str, str]
    train_split: str
    num_labels: int
    labels: list[_Label]


class _Card(Shape):
    """The parts of card.json that are read before it is written again."""

    bundle: str
    data: _Data


def stored_card(folder: str, fingerprint: str) -> dict[str, Any] | None:
    """Return the card that was written for the bundle of this fingerprint in its folder; None if there is none."""
    stored = _stored(folder)
    return stored if stored is not None and stored["bundle"] == fingerprint else None


def read_card(path: str) -> dict[str, Any]:
    """Return the card of the bundle at `path`, a bundle's folder or a run's.

    A bundle without a card, or with one that was written for another bundle, gets one that is not written, from what the bundle
    records and, for a run's folder, from its files. Raises BundleError if there is no bundle.
    """
    folder = bundle_folder(path)
    stored = _stored(folder)
    if stored is not None and stored["bundle"] == bundle_fingerprint(folder):
        return stored
    run_folder = path if folder != path else None
    return card_of(Bundle.load(folder), run_folder, bundle_fingerprint(folder), data=None, intervals=False)


@contextmanager
def carded(run_folder: str, bundle: Bundle, *, intervals: bool = True) -> Iterator[None]:
    """Write the card of a run's bundle when the block, which writes that bundle, ends.

    What the old card tells about the dataset is kept for a dataset that cannot be opened here.
    """
    known, stated = _known_data(RunFolder(run_folder).bundle), _stated(run_folder, bundle)  # before anything is written
    yield
    _write(run_folder, bundle, known, stated, intervals=intervals)


def write_card(run_folder: str, bundle: Bundle) -> None:
    """Write the card of a run's bundle from the run's files as they are now.

    Raises StorageError, and SpecError for a part `card` of the run file that cannot be read.
    """
    with carded(run_folder, bundle):
        pass


def _write(run_folder: str, bundle: Bundle, known: dict[str, Any] | None, stated: dict[str, Any], *, intervals: bool) -> None:
    folder = RunFolder(run_folder).bundle
    card = card_of(bundle, run_folder, bundle_fingerprint(folder), data=known, intervals=intervals) | {"stated": stated}
    for name, text in ((CARD_PAGE, page_of(card)), (CARD_FILE, json.dumps(card, indent=1))):
        storage.write_text(storage.join(folder, name), text)


def card_of(
    bundle: Bundle, run_folder: str | None, digest: str, *, data: dict[str, Any] | None, intervals: bool
) -> dict[str, Any]:
    """Return the card of a bundle, with what the files of its run add; `data` is the section about the dataset if known."""
    found = data_of(bundle) if data is None or data["fingerprint"] != bundle.facts.get("dataset_fingerprint") else data
    numbers, faults = numbers_of(bundle, run_folder, intervals=intervals) if run_folder is not None else ([], [])
    card: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": str(run_of(bundle).get("name") or "unnamed"),
        "bundle": digest,
        "stated": stated_in(run_of(bundle), "the run that the bundle records"),
        "data": found,
        "model": model_of(bundle),
        "training": training_of(bundle, read_history(run_folder) if run_folder is not None else []),
        "numbers": numbers,
        "calibration": calibration_of(bundle, run_folder),
        "rules": rules_of(bundle),
        "command": "rayprob train run.yaml",
        "versions": versions(),
    }
    return card | {"limits": limits_of(card, faults)}


def _stated(run_folder: str, bundle: Bundle) -> dict[str, Any]:
    """Return what people state in the run file, which may be newer than what the bundle records of it."""
    path = RunFolder(run_folder).run_file
    if not storage.exists(path):
        return stated_in(run_of(bundle), "the run that the bundle records")
    run = strict_yaml.plain(strict_yaml.load(storage.read_bytes(path), path))
    return stated_in(run if isinstance(run, dict) else {}, path)


def _known_data(folder: str) -> dict[str, Any] | None:
    """Return the section about the dataset of a stored card, unless its dataset could not be opened."""
    stored = _stored(folder)
    return stored["data"] if stored is not None and stored["data"].get("splits") else None


def _stored(folder: str) -> dict[str, Any] | None:
    """Return card.json; None if it is missing or damaged, since it can be written again at any time."""
    path = storage.join(folder, CARD_FILE)
    if not storage.exists(path):
        return None
    try:
        return read_json(path, _Card, error=BundleError, remedy="")
    except RayprobError:
        return None
