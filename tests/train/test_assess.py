"""`rayprob evaluate` before and after `rayprob calibrate`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, label_ranking_average_precision_score
from typer.testing import CliRunner

from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import calibrate
from rayprob.cli.app import app
from rayprob.data.manifest.dataset import Dataset
from rayprob.loader.order import Place
from rayprob.metrics.ranking import mean_average_precision
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.runs.bundle import Bundle
from rayprob.runs.card import read_card
from rayprob.runs.predictions import Predictions
from rayprob.train.assess import assess
from rayprob.train.loop import fit
from tests.train.conftest import MakeRun


def test_evaluate_adds_the_tuned_column_of_a_calibrated_bundle(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    fit(run, Place(), torch.device("cpu"))
    card = read_card(str(tmp_path))
    dataset = Dataset.open(run.data.roots[0])
    assert (card["data"]["name"], card["data"]["splits"]) == (dataset.name, dataset.splits)
    assert [label["positives"] for label in card["data"]["labels"]] == dataset.split("train").targets().sum(axis=0).tolist()
    assert [one["split"] for one in card["numbers"]] == ["holdout"]
    raw = assess(str(tmp_path), "val")
    told = {one["split"]: one["metrics"] for one in read_card(str(tmp_path))["numbers"]}
    assert pytest.approx(raw.at_half.mAP) == told["val"]["mAP"]["value"]
    assert raw.tuned is None
    before = Predictions.read(str(tmp_path / "predictions" / "val.parquet"))
    calibrate(str(tmp_path), CalibrateSpec())
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path)])
    assert "tuned (per label)" in result.output
    numbers = assess(str(tmp_path), "val")
    assert numbers.at_half == raw.at_half
    assert numbers.at_threshold == raw.at_threshold
    val = Predictions.read(str(tmp_path / "predictions" / "val.parquet"))
    assert np.array_equal(val.outputs["logits"], before.outputs["logits"])
    assert val.facts == before.facts
    bundle = Bundle.load(str(tmp_path / "bundle"))
    sets_NL = bundle.label_sets(bundle.distribution(val.outputs), "label_OF1")
    assert numbers.tuned is not None
    assert pytest.approx(f1_score(val.targets_NL, sets_NL, average="micro")) == numbers.tuned.OF1
    assert numbers.tuned.mAP == raw.at_half.mAP


def test_evaluate_adds_the_column_of_a_label_prior(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    fit(run, Place(), torch.device("cpu"))
    raw = assess(str(tmp_path), "val")
    assert raw.with_prior is None
    assert raw.other_labels is None
    names = Bundle.load(str(tmp_path / "bundle")).label_space.names
    random = np.random.default_rng(0)
    mixture = LabelMixture(np.array([0.5, 0.5]), random.uniform(0.1, 0.9, (2, len(names))))
    LabelPriorFile(names, mixture, "a test").save(str(tmp_path / "prior.safetensors"))
    calibrate(str(tmp_path), CalibrateSpec(prior=str(tmp_path / "prior.safetensors")))
    numbers = assess(str(tmp_path), "val")
    assert numbers.at_half == raw.at_half
    val = Predictions.read(str(tmp_path / "predictions" / "val.parquet"))
    distribution = Bundle.load(str(tmp_path / "bundle")).distribution(val.outputs)
    assert numbers.with_prior is not None
    assert pytest.approx(mean_average_precision(distribution.marginals(), val.targets_NL).value) == numbers.with_prior.mAP
    assert numbers.tuned is not None
    assert numbers.tuned.mAP == numbers.with_prior.mAP
    assert numbers.other_labels is not None
    first = numbers.other_labels[0]
    ranked = label_ranking_average_precision_score(val.targets_NL, distribution.marginals())
    assert (first.num_given, first.num_images, first.joint) == (0, len(val), pytest.approx(ranked))
    output = CliRunner().invoke(app, ["evaluate", str(tmp_path)]).output
    assert "prior" in output
    assert "AP of an image's other labels" in output
    told = json.loads(CliRunner().invoke(app, ["evaluate", str(tmp_path), "--json"]).output)["other_labels"][0]
    assert told["joint"] == pytest.approx(first.joint)
    assert told["gain"]["low"] <= told["gain"]["value"] <= told["gain"]["high"]
