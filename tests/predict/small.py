"""Bundles of a small network with random weights, six labels and everything that can be fitted on a holdout."""

from dataclasses import replace

import numpy as np
import torch

from rayprob.labels import LabelSpace
from rayprob.loader.augment import TransformSpec
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.candidates import AsItIs, OutputsCalibrator
from rayprob.probability.calibration.mixture import MixtureCalibrator
from rayprob.probability.decisions.conformal import RiskControl
from rayprob.probability.decisions.thresholds import Thresholds
from rayprob.probability.families import family_of
from rayprob.runs.bundle import Bundle

NAMES = ("person", "cat", "dog", "fork", "knife", "dining table")
LABELS = LabelSpace(NAMES, (1, 2, 3, 4, 5, 6))
SCALE, SHIFT = np.array([0.8]), np.array([0.2])


def make_bundle(seed: int, head: dict[str, object], *, size_px: int = 32, labels: LabelSpace = LABELS) -> Bundle:
    """Return a bundle whose answers differ between images."""
    torch.manual_seed(seed)
    spec = ModelSpec.parse({"backbone": "squeezenet1_1", "head": head})
    random = np.random.default_rng(seed)
    probabilities_KL = random.uniform(0.05, 0.9, (int(str(head.get("components", 1))), len(labels)))
    weights_K = random.dirichlet(np.ones(len(probabilities_KL)))
    mixture = (weights_K, probabilities_KL) if head["name"] == "mixture" else None
    classifier = build_classifier(spec, len(labels), mixture=mixture).eval()
    torch.nn.init.normal_(classifier.head.get_submodule("linear").weight, std=0.3)
    calibrator: OutputsCalibrator = AffineCalibrator("shared_platt", SCALE, SHIFT)
    if mixture:
        calibrator = MixtureCalibrator("shared_platt", 0.9, SCALE, SHIFT)
    return Bundle(
        classifier=classifier,
        model_spec=spec,
        label_space=labels,
        transform_spec=TransformSpec(size_px=size_px),
        calibrator=calibrator,
        thresholds={"label_OF1": Thresholds(np.linspace(0.3, 0.6, len(labels)), "OF1", 0.0, 0.7, 100)},
        guarantees={"0.1": RiskControl(0.2, 0.1, 100, 0.09)},
    )


def sampled_like(bundle: Bundle) -> Bundle:
    """Return a bundle with a recurrent head, whose answers are estimated from samples."""
    spec = ModelSpec.parse({"backbone": "squeezenet1_1", "head": {"name": "recurrent", "embedding": 4, "state": 4}})
    classifier = build_classifier(spec, len(bundle.label_space), prevalence_L=np.full(len(bundle.label_space), 0.3)).eval()
    torch.nn.init.normal_(classifier.head.get_parameter("project"))
    same = AsItIs("recurrent", family_of("recurrent").distribution)
    return replace(bundle, classifier=classifier, model_spec=spec, calibrator=same, guarantees={})
