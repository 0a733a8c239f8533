"""A refit label by label: binary relevance, with a penalty per label. N samples, L labels, S strengths."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import SpecError
from rayprob.loader.order import Place
from rayprob.models.heads import HeadSpec
from rayprob.runs.bundle import Bundle
from rayprob.runs.finished import open_bundle
from rayprob.runs.folder import claim, open_run
from rayprob.runs.history_rows import read_history
from rayprob.runs.predictions import Predictions
from rayprob.train.apart import STRENGTHS, Inputs, best_strength
from rayprob.train.features import Features, FeatureSource, split_features
from rayprob.train.job import prepare
from rayprob.train.loop import fit
from rayprob.train.refit import RefitSpec, refit


@pytest.fixture(scope="module")
def source(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a finished run whose refits are next to it; tests only add such."""
    run = make_run(tmp_path_factory.mktemp("apart") / "base", duration={"steps": 10}, evaluation={"every": {"steps": 10}})
    claim(run, Dataset.open(run.data.root))
    fit(run, Place(), torch.device("cpu"))
    return str(run.run_folder)


def test_each_label_is_a_logistic_regression_with_its_own_penalty(source: str) -> None:
    told: list[dict[str, Any]] = []
    refitted = refit(source, RefitSpec.parse({"head": {"apart": True}}), tell=told.append)
    assert (Path(refitted.folder).name, refitted.total_steps) == ("tiny-bernoulli-apart", len(STRENGTHS) + 1)
    facts = json.loads((Path(refitted.folder) / "bundle" / "bundle.json").read_text())["facts"]
    strengths = facts["refit"]["strengths"]
    assert list(strengths) == ["red", "green", "blue", "bright"]
    head = Bundle.load(f"{refitted.folder}/bundle").classifier.head
    opened = FeatureSource.open(open_run(source), open_bundle(source))
    train = split_features(opened, "train", lambda event: None)
    inputs = Inputs.of(train.features_NF)
    for label, (name, strength) in enumerate(strengths.items()):
        alone = LogisticRegression(C=1 / (strength * len(train)), tol=1e-6, max_iter=3000)
        alone.fit(inputs.inputs_NG[:, :-1].numpy(), train.targets_NL[:, label].numpy())
        with torch.inference_mode():
            found_N = torch.sigmoid(head(train.features_NF)["logits"][:, label]).numpy()
        expected_N = alone.predict_proba(inputs.inputs_NG[:, :-1].numpy())[:, 1]
        assert np.abs(found_N - expected_N).max() < 0.02, name
    rows = [row for row in read_history(refitted.folder) if row["kind"] == "evaluation"]
    assert rows[-1]["nll_nats"] <= min(row["nll_nats"] for row in rows) + 1e-6
    assert refitted.best == rows[-1]
    assert "not used" in next(event for event in told if event["kind"] == "start")["notes"][0]
    assert Predictions.read(f"{refitted.folder}/predictions/holdout.parquet").outputs.keys() == {"logits"}
    assert refit(source, RefitSpec.parse({"head": {"apart": True}})).was_finished


def test_a_label_that_holdout_cannot_judge_takes_the_strength_of_all() -> None:
    targets_NL = torch.tensor([[True, True, False], [False, True, True]])
    known_NL = torch.tensor([[True, True, True], [True, True, False]])
    holdout = Features(torch.arange(2), torch.zeros(2, 1), targets_NL, known_NL)
    nll_SL = torch.tensor([[3.0, 0.0, 9.0], [2.0, 1.0, 0.0], [4.0, 5.0, 0.0]])
    assert best_strength(nll_SL, holdout).tolist() == [1, 1, 1]
    assert best_strength(nll_SL.flip(0), holdout).tolist() == [1, 1, 1]
    assert best_strength(torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]), holdout).tolist() == [0, 1, 1]


def test_a_feature_that_does_not_vary_gets_no_weight() -> None:
    features_NF = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    inputs = Inputs.of(features_NF)
    assert inputs.inputs_NG[:, 1:].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert (1 / inputs.scale_F).tolist()[1] == 0


def test_what_apart_cannot_do_is_refused(source: str, make_run: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"apart fits linear classifiers without dropout; got attention 0 and dropout 0.2"):
        RefitSpec.parse({"head": {"apart": True, "dropout": 0.2}})
    with pytest.raises(SpecError, match=r"head.apart maximises the likelihood of each label, but the loss is zlpr; leave out"):
        refit(source, RefitSpec.parse({"head": {"apart": True}, "loss": {"name": "zlpr"}}))
    run = make_run(tmp_path, model={"backbone": "squeezenet1_1", "head": {"apart": True}})
    with pytest.raises(SpecError, match=r"model.head.apart fits each label on frozen features, which only `rayprob refit RUN"):
        prepare(run, Place(), torch.device("cpu"))


def test_attention_is_not_taken_over_and_files_without_apart_are_unchanged() -> None:
    attentive, apart = HeadSpec(attention=0.3), HeadSpec(apart=True)
    assert apart.after(attentive) == apart
    assert HeadSpec().after(attentive).attention == 0.3
    assert "apart" not in HeadSpec().model_dump()
    assert HeadSpec.parse(apart.model_dump()) == apart
