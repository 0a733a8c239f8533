"""What an exported file tells about itself: the meaning of its outputs, and the facts that its user needs."""

from typing import Any

from rayprob.runs.bundle import Bundle

METADATA_KEY = "rayprob"
DESCRIPTION = """\
Calibrated probabilities of labels. Input `images`: uint8 [N, H, W, 3], RGB, all of one size, {turned}. The graph
resizes images to size_px squares as the model's evaluation does, normalises, classifies, calibrates.
Output `marginals` [N, L]: P(label present), labels in the order of the metadata. A mixture also has `mixing_weights` [N, K] and
`component_probabilities` [N, K, L], which give the probability of a whole label set; under a label prior these are
sigmoid(`logits` [N, 1, L] + `component_offsets` [K, L]), and the graph outputs both. Metadata `rayprob` is JSON: labels,
thresholds and guarantees (a label is chosen if its marginal >= the value), size_px, calibrator, bundle."""
TURNED = {"stored": "decoded without their EXIF rotation", "upright": "turned upright as their EXIF states"}


def described(bundle: Bundle) -> str:
    """Return what the inputs and outputs of an exported file mean."""
    return DESCRIPTION.format(turned=TURNED[bundle.reading.orientation])


def facts_of(bundle: Bundle, fingerprint: str) -> dict[str, Any]:
    """Return the facts of an exported file as plain data; `fingerprint` is the bundle's."""
    return {
        "labels": list(bundle.label_space.names),
        "category_ids": list(bundle.label_space.category_ids),
        "family": bundle.classifier.family,
        "size_px": bundle.transform_spec.size_px,
        "calibrator": bundle.calibrator.name if bundle.calibrator else None,
        "thresholds": {name: thresholds.values_L.tolist() for name, thresholds in bundle.thresholds.items()},
        "guarantees": {alpha: control.to_dict() for alpha, control in bundle.guarantees.items()},
        "backbone": bundle.model_spec.backbone,
        "bundle": fingerprint,
    }
