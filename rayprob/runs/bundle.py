"""A bundle: everything needed to predict, in one folder of JSON and safetensors. Nothing in it is unpickled.

It may name plugins, which are imported by name and so run code of this machine: open bundles with plugins only from people
you trust.

<folder>/bundle.json              version, model, label space, evaluation transform, thresholds, guarantees, facts, checksums,
                              and how images are read: orientation, window
<folder>/weights.safetensors      the classifier's parameters and buffers
<folder>/calibrator.safetensors   only with a calibrator
<folder>/card.json, card.md       what the model is, for people (runs/card); no part of the bundle's fingerprint
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import Field

from rayprob import plugins
from rayprob.config.spec import fingerprint
from rayprob.errors import BundleError, RayprobError
from rayprob.files import storage
from rayprob.files.documents import read_json, require_shape
from rayprob.images.reading import READ_AS_STORED, ImageReading, ReadingShape
from rayprob.labels import LabelSpace
from rayprob.loader.augment import TransformSpec
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.classifier import Classifier
from rayprob.models.weights import HUB_WEIGHTS_FILE, WEIGHTS_FILE, classifier_bytes, load_strictly, own_names
from rayprob.probability.calibration.calibrators import calibrator_from_arrays
from rayprob.probability.calibration.candidates import OutputsCalibrator
from rayprob.probability.decisions.conformal import RiskControl
from rayprob.probability.decisions.rules import Rules
from rayprob.probability.decisions.thresholds import Thresholds
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.families import from_outputs
from rayprob.runs.kinds import require_bundle
from rayprob.runs.paths import DESCRIPTION_FILE, EXAMPLES

VERSION = 1
CALIBRATOR_FILE = "calibrator.safetensors"


class _Description(ReadingShape):
    """The contents of bundle.json."""

    model: dict[str, Any]
    label_space: dict[str, Any]
    transform: dict[str, Any]
    calibrator: str | None
    thresholds: dict[str, Any]
    guarantees: dict[str, Any]
    facts: dict[str, Any]
    files: dict[str, str]
    plugins: dict[str, str] = Field(default={})


@dataclass(frozen=True, eq=False)
class Bundle:
    """A classifier with its labels and evaluation transform, and what was fitted on holdout; facts are plain data.

    Thresholds are by name ("label_OF1"), guarantees by their alpha as text ("0.1"), each with the labels that it
    covers (`RiskControl.words`). `dataclasses.replace` returns a changed bundle.
    """

    classifier: Classifier
    model_spec: ModelSpec
    label_space: LabelSpace
    transform_spec: TransformSpec
    calibrator: OutputsCalibrator | None = None
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)
    guarantees: Mapping[str, RiskControl] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()  # modules of its parts, which must be importable where it is loaded
    reading: ImageReading = READ_AS_STORED  # how the images of its dataset were read, and those to predict are

    def distribution(self, outputs: Mapping[str, Any]) -> LabelDistribution:
        """Return the distributions that the classifier's raw outputs describe, calibrated if there is a calibrator.

        Outputs are arrays, or tensors of any device. Raises ModelError and CalibrationError if they are not this model's.
        """
        arrays = {name: _to_array(value) for name, value in outputs.items()}
        if self.calibrator is None:
            return from_outputs(self.classifier.family, arrays)
        return self.calibrator.as_distribution(self.calibrator.apply_outputs(arrays))

    @property
    def family(self) -> str:
        """The family of its distributions: the calibrator's if there is one, which may differ from the head's."""
        return self.calibrator.family if self.calibrator else self.classifier.family

    @property
    def has_prior(self) -> bool:
        """Whether the calibrator changes the kind of distribution, as a label prior does, and with it the ranking of labels."""
        return self.family != self.classifier.family

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that `label_sets` accepts, besides any number from 0 to 1."""
        return self._decisions.names

    def require_rule(self, rule: str) -> None:
        """Raise QueryError, with the available rules, for a rule that `label_sets` does not accept."""
        self._decisions.require(rule)

    def label_sets(self, distribution: LabelDistribution, rule: str) -> NDArray[np.bool_]:
        """Return the label sets [N, L] that a rule of `probability.decisions.rules` chooses from what `distribution` returned.

        Raises QueryError with the available rules.
        """
        return self._decisions.label_sets(distribution, rule)

    @property
    def _decisions(self) -> Rules:
        return Rules(self.thresholds, self.guarantees)

    def save(self, folder: str) -> None:
        """Write the bundle to a local folder or URI, replacing an existing one.

        No reader ever sees parts of two bundles: a local folder is renamed into place, elsewhere bundle.json is written last.
        Raises StorageError.
        """
        files = self.files({WEIGHTS_FILE: classifier_bytes(self.classifier, self.label_space)})
        if storage.is_local(folder):
            replace_local(storage.local_path(folder), files)
        else:
            replace_files(folder, files)

    def files(self, weights: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the content of each file, bundle.json last; `weights` is the name and content of that of the weights."""
        files = dict(weights)
        if self.calibrator is not None:
            arrays = {name: np.ascontiguousarray(array) for name, array in self.calibrator.to_arrays().items()}
            files[CALIBRATOR_FILE] = safetensors.numpy.save(arrays)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        described = json.loads(json.dumps(self._description(sums)))
        files[DESCRIPTION_FILE] = json.dumps({**described, "fingerprint": fingerprint(described)}, indent=1).encode()
        return files

    @classmethod
    def load(cls, folder: str) -> "Bundle":
        """Read a bundle; its classifier is in evaluation mode, on the CPU.

        Once all of its files are known to be as written, its plugins are imported by name. Raises BundleError for no bundle,
        another version, a missing or changed file, a missing plugin, and weights that do not fit.
        """
        described = _read_description(folder)
        _require_unchanged(described, folder)
        files = {name: _read_checked(folder, name, sha256) for name, sha256 in described["files"].items()}
        for name, file in described.get("plugins", {}).items():
            plugins.load([name], BundleError, of=f"the bundle at {folder}", was=file)
        try:
            bundle = _rebuild(described, files)
        except BundleError:
            raise
        except Exception as error:  # with a damaged description, the libraries that build its parts may raise anything
            found = f"{type(error).__name__}: {error}" if not isinstance(error, RayprobError) else str(error)
            raise BundleError(f"the bundle at {folder} cannot be rebuilt: {found}; {MAKE_ANEW}") from error
        return bundle

    def _description(self, sums: dict[str, str]) -> dict[str, Any]:
        return {
            "format": "rayprob bundle",
            "version": VERSION,
            "family": self.classifier.family,
            "model": self.model_spec.model_dump(mode="json"),
            "label_space": self.label_space.to_dict(),
            "transform": self.transform_spec.model_dump(mode="json"),
            "calibrator": self.calibrator.name if self.calibrator else None,
            "thresholds": {name: thresholds.to_dict() for name, thresholds in self.thresholds.items()},
            "guarantees": {alpha: control.to_dict() for alpha, control in self.guarantees.items()},
            "facts": dict(self.facts),
            "files": sums,
            **({"plugins": {name: str(plugins.file_of(name)) for name in self.plugins}} if self.plugins else {}),
            **self.reading.to_dict(),
        }


def bundle_fingerprint(folder: str) -> str:
    """Return 16 hex digits of the description, which contains the checksums of all other files but the card's."""
    return fingerprint_of(storage.read_bytes(storage.join(folder, DESCRIPTION_FILE)))


def fingerprint_of(description: bytes) -> str:
    """Return 16 hex digits of the content of bundle.json."""
    return hashlib.sha256(description).hexdigest()[:16]


# `train.loop.finish` writes it; a run that has taken all its steps gets there at once.
REMOVE = (
    "remove the bundle's folder and run `rayprob train` with the same run file, which writes the bundle again from the run's "
    "best checkpoint, without training; then run `rayprob calibrate`"
)
MAKE_ANEW = f"use the rayprob that wrote it; or {REMOVE}"


def _to_array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().float().cpu().numpy() if isinstance(value, torch.Tensor) else value)


def _rebuild(described: dict[str, Any], files: dict[str, bytes]) -> Bundle:
    spec = ModelSpec.parse(described["model"], "its model")
    label_space = LabelSpace.from_dict(described["label_space"])
    classifier = build_classifier(spec, len(label_space), load=False)
    weights = HUB_WEIGHTS_FILE if HUB_WEIGHTS_FILE in files else WEIGHTS_FILE
    tensors = own_names(files[weights], safetensors.torch.load(files[weights]), weights)
    load_strictly(classifier, tensors, weights, classifier.state_dict())
    calibrator = None
    if described["calibrator"] is not None:
        arrays = safetensors.numpy.load(files[CALIBRATOR_FILE])
        calibrator = calibrator_from_arrays(classifier.family, described["calibrator"], arrays)
    return Bundle(
        classifier=classifier.eval(),
        model_spec=spec,
        label_space=label_space,
        transform_spec=TransformSpec.parse(described["transform"], "its transform"),
        calibrator=calibrator,
        thresholds={name: _thresholds(name, value, len(label_space)) for name, value in described["thresholds"].items()},
        guarantees={alpha: RiskControl.from_dict(value) for alpha, value in described["guarantees"].items()},
        facts=described["facts"],
        plugins=tuple(described.get("plugins", {})),
        reading=ImageReading.of(described),
    )


def _thresholds(name: str, value: dict[str, Any], num_labels: int) -> Thresholds:
    thresholds = Thresholds.from_dict(value)
    if len(thresholds.values_L) != num_labels:
        raise BundleError(f"thresholds {name!r} have {len(thresholds.values_L)} labels, but the bundle has {num_labels}")
    return thresholds


def _read_description(folder: str) -> dict[str, Any]:
    require_bundle(folder)
    path = storage.join(folder, DESCRIPTION_FILE)
    described = read_json(path, error=BundleError, remedy=MAKE_ANEW)
    if (version := described.get("version")) != VERSION:
        raise BundleError(f"the bundle at {folder} has version {version!r}, but this rayprob reads {VERSION}; {MAKE_ANEW}")
    return require_shape(described, _Description, path, error=BundleError, remedy=MAKE_ANEW)


def _require_unchanged(described: dict[str, Any], folder: str) -> None:
    """Raise BundleError if the description was changed after writing; bundles of rayprob 0.1 have no fingerprint to check."""
    written = {key: value for key, value in described.items() if key != "fingerprint"}
    if "fingerprint" in described and described["fingerprint"] != fingerprint(written):
        raise BundleError(
            f"{storage.join(folder, DESCRIPTION_FILE)} was changed after it was written: its fingerprint does not match; copy "
            f"the whole folder again, or {REMOVE}"
        )


def _read_checked(folder: str, name: str, sha256: str) -> bytes:
    path = storage.join(folder, name)
    if not storage.exists(path):
        raise BundleError(f"{name} is missing from the bundle at {folder}; copy the whole folder")
    content = storage.read_bytes(path)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BundleError(
            f"{path} has sha256 {found[:16]}..., but {DESCRIPTION_FILE} has {str(sha256)[:16]}...; the file was changed or cut "
            "short; copy the whole folder again"
        )
    return content


def replace_local(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder next to the old one and swap them; for an instant a reader may find neither.

    The images in its folder `examples`, which people put there, are kept.
    """
    folder = folder.absolute()
    temporary, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.{what}") for what in ("tmp", "old"))
    try:
        for name, content in files.items():
            storage.write_bytes(str(temporary / name), content)
        if (folder / EXAMPLES).is_dir():
            shutil.copytree(folder / EXAMPLES, temporary / EXAMPLES)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def replace_files(folder: str, files: Mapping[str, bytes]) -> None:
    """Write the files of a bundle into a folder whose other files are kept: a bundle only once the last one is written."""
    storage.remove(storage.join(folder, DESCRIPTION_FILE))
    for name, content in files.items():
        storage.write_bytes(storage.join(folder, name), content)
