"""The family `recurrent`: label sets as sequences of their labels, each given the image and the labels before it."""

from collections.abc import Mapping
from typing import Any

from rayprob.errors import ModelError
from rayprob.probability.calibration.candidates import OutputsCalibrator
from rayprob.probability.distributions.recurrent import RecurrentDistribution
from rayprob.probability.families.family import Family
from rayprob.probability.graphs.probabilities import Probabilities


def _graph(calibrator: OutputsCalibrator | None) -> Probabilities:
    raise ModelError(
        "heads of the family recurrent cannot be exported: their marginals are estimated from samples, which ONNX cannot draw; "
        "predict with rayprob, or refit the run with head.name=mixture and export that"
    )


def _describe(options: Mapping[str, Any]) -> str:
    return "a joint distribution over label sets: a recurrent network adds labels one after another, frequent ones first"


RECURRENT = Family(
    name="recurrent",
    outputs={
        "logits": "NL",
        "context": "NE",
        "order": "L",
        "embedding": "EL",
        "cell_input": "3EH",
        "cell_state": "3HH",
        "cell_bias": "3H",
        "start": "H",
        "project": "HE",
    },
    distribution=RecurrentDistribution.of_outputs,
    loss="recurrent",
    is_sampled=True,
    describe=_describe,
    graph=_graph,
)
FAMILIES = {"recurrent": RECURRENT}
