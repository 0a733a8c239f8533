"""A refit learns on features, starts where the source stood, and leaves a run folder that every verb takes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.config.spec import fingerprint
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import DatasetError, RunError, SpecError
from rayprob.images.reading import READ_AS_STORED, READ_UPRIGHT
from rayprob.loader.augment import build_transform
from rayprob.loader.order import Place
from rayprob.loader.streams import EvalStream
from rayprob.runs.bundle import Bundle
from rayprob.runs.finished import open_bundle
from rayprob.runs.folder import claim, open_run
from rayprob.runs.history_rows import read_history
from rayprob.runs.predictions import Predictions
from rayprob.runs.rules import check
from rayprob.train import features, fitting
from rayprob.train.assess import assess
from rayprob.train.features import FeatureSource, split_features
from rayprob.train.loop import fit
from rayprob.train.refit import RefitSpec, refit, refit_run

SHORT = {"epochs": 3, "global_batch": 16}
MIXTURE = {"name": "mixture", "components": 4}


@pytest.fixture(scope="module")
def trained(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; tests copy it."""
    folder = tmp_path_factory.mktemp("trained") / "base"
    run = make_run(folder, duration={"steps": 30}, evaluation={"every": {"steps": 30}, "micro_batch": 20})
    claim(run, Dataset.open(run.data.root))
    fit(run, Place(), torch.device("cpu"))
    return folder


@pytest.fixture
def source(trained: Path, tmp_path: Path) -> str:
    """A fresh copy of the finished run."""
    shutil.copytree(trained, tmp_path / "base")
    return str(tmp_path / "base")


def spec(**changes: Any) -> RefitSpec:
    return RefitSpec.parse({**SHORT, **changes})


def rows(folder: str, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_history(folder) if row["kind"] == kind]


def numbers(folder: str, kind: str, key: str) -> list[float]:
    return [row[key] for row in rows(folder, kind)]


def outputs(folder: str) -> dict[str, np.ndarray]:
    return Predictions.read(f"{folder}/predictions/holdout.parquet").outputs


def test_a_refit_is_a_run_as_any_other(source: str) -> None:
    told: list[dict[str, Any]] = []
    refitted = refit(source, spec(head=MIXTURE), tell=told.append)
    assert refitted.folder == str(Path(source).parent / "tiny-mixture4")
    run = open_run(refitted.folder)
    assert (run.name, run.model.head.components, run.loss.name) == ("tiny-mixture4", 4, "mixture")
    bundle = open_bundle(refitted.folder)
    assert (bundle.classifier.family, bundle.facts["step"]) == ("mixture", refitted.best["step"])
    predictions = Predictions.read(f"{refitted.folder}/predictions/holdout.parquet")
    assert predictions.family == "mixture"
    assessment = assess(refitted.folder, "val")
    assert (assessment.num_samples, assessment.at_half.mAP > 0.5) == (40, True)
    assert {row["kind"] for row in rows(refitted.folder, "evaluation")} == {"evaluation"}
    assert [event["kind"] for event in told if event["kind"] != "features"] == [
        row["kind"] for row in read_history(refitted.folder)
    ]
    assert rows(refitted.folder, "evaluation")[0].keys() == rows(source, "evaluation")[0].keys() | {"components_in_use"}
    assert rows(refitted.folder, "step")[0].keys() == rows(source, "step")[0].keys()


def test_features_give_the_outputs_that_images_give(source: str) -> None:
    refitted = refit(source, spec(head=MIXTURE))
    run, bundle = open_run(refitted.folder), Bundle.load(f"{refitted.folder}/bundle")
    manifest = Dataset.open(run.data.root).split("holdout")
    stream = EvalStream(manifest, run.stream, build_transform(bundle.transform_spec), place=Place(), micro_batch=7)
    told = Predictions.read(f"{refitted.folder}/predictions/holdout.parquet")
    for batch in stream:
        with torch.inference_mode():
            seen = bundle.classifier(batch.images_BCHW)
        places = np.searchsorted(told.sample_ids_N, batch.sample_ids_B.numpy())
        for name, tensor in seen.items():
            assert np.allclose(told.outputs[name][places], tensor.numpy(), atol=1e-4)
        assert np.array_equal(told.targets_NL[places], batch.targets_BL.numpy())


def test_a_bundle_keeps_how_its_dataset_was_read_and_features_of_another_reading_are_not_used(source: str) -> None:
    run, bundle = open_run(source), open_bundle(source)
    assert bundle.reading == Dataset.open(run.data.root).reading == READ_UPRIGHT
    fingerprints = [FeatureSource.open(run, replace(bundle, reading=one)).fingerprint for one in (READ_UPRIGHT, READ_AS_STORED)]
    described = json.loads((Path(source) / "bundle" / "bundle.json").read_text())
    parts = [described["files"]["weights.safetensors"], described["model"], described["transform"]]
    assert fingerprints[1] == fingerprint([*parts, Dataset.open(run.data.root).fingerprint])  # as in 0.1
    assert fingerprints[0] != fingerprints[1]
    refitted = refit(source, spec(head=MIXTURE, epochs=1))
    assert open_bundle(refitted.folder).reading == READ_UPRIGHT


def test_a_refit_keeps_the_evaluation_with_the_lowest_nll_and_gains_on_its_start(source: str) -> None:
    refitted = refit(source, spec(head=MIXTURE, epochs=6))
    nll = numbers(refitted.folder, "evaluation", "nll_nats")
    assert len(nll) == 7
    assert refitted.best["nll_nats"] == min(nll) < nll[0]
    kept = Predictions.read(f"{refitted.folder}/predictions/holdout.parquet")
    distribution = open_bundle(refitted.folder).distribution(kept.outputs)
    assert -distribution.log_prob(kept.targets_NL, kept.known_NL).mean() == pytest.approx(min(nll))


def test_a_loss_without_probabilities_is_judged_by_map(source: str) -> None:
    refitted = refit(source, spec(head={"name": "bernoulli"}, loss={"name": "ranking"}))
    rows_, best = rows(refitted.folder, "evaluation"), refitted.best
    assert best["mAP"] == max(row["mAP"] for row in rows_)
    assert best["nll_nats"] > min(row["nll_nats"] for row in rows_)


def test_a_mixture_of_one_component_learns_as_the_bernoulli_head_does(source: str) -> None:
    one = refit(source, spec(head={"name": "mixture", "components": 1}), name="one")
    plain = refit(source, spec(head={"name": "bernoulli"}), name="plain")
    losses = [numbers(refitted.folder, "step", "loss") for refitted in (one, plain)]
    assert len(losses[0]) == plain.total_steps
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[1][-1] < losses[1][0]
    assert np.allclose(outputs(one.folder)["component_logits"][:, 0], outputs(plain.folder)["logits"], atol=1e-3)


def test_the_bernoulli_control_starts_from_the_heads_own_answers(source: str) -> None:
    plain = refit(source, spec(head={"name": "bernoulli"}))
    assert numbers(plain.folder, "evaluation", "nll_nats")[0] == pytest.approx(
        rows(source, "evaluation")[-1]["nll_nats"], rel=1e-5
    )


def test_equal_seeds_give_equal_refits_and_other_seeds_others(source: str) -> None:
    head = {**MIXTURE, "dropout": 0.3, "rank": 2}
    first, again, other = (
        refit(source, spec(head=head, seed=seed), name=name).folder for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert numbers(first, "step", "loss") == numbers(again, "step", "loss") != numbers(other, "step", "loss")
    assert all(
        np.array_equal(left, right) for left, right in zip(outputs(first).values(), outputs(again).values(), strict=True)
    )


def test_features_are_computed_once(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refit(source, spec(head=MIXTURE))
    files = {path.name: path.stat().st_mtime_ns for path in (Path(source) / "features").iterdir()}
    assert [name.split("-")[0] for name in sorted(files)] == ["holdout", "train"]
    told: list[dict[str, Any]] = []
    refit(source, spec(head={"name": "bernoulli"}), tell=told.append)
    assert {path.name: path.stat().st_mtime_ns for path in (Path(source) / "features").iterdir()} == files
    assert all(event["kind"] != "features" for event in told)


def test_patience_ends_a_refit_whose_nll_rises(source: str) -> None:
    wild = {"name": "sgd", "lr": 30.0, "weight_decay": 0.0}
    refitted = refit(source, spec(head={"name": "bernoulli"}, optimizer=wild, patience=2, epochs=9))
    assert (refitted.best["step"], len(rows(refitted.folder, "evaluation"))) == (0, 3)


def test_the_same_refit_finds_itself_finished(source: str) -> None:
    first = refit(source, spec(head=MIXTURE))
    before = (Path(first.folder) / "bundle" / "bundle.json").read_bytes()
    again = refit(source, spec(head=MIXTURE))
    assert (again.was_finished, again.best) == (True, first.best)
    assert (Path(first.folder) / "bundle" / "bundle.json").read_bytes() == before


def test_a_refit_that_was_killed_starts_anew(source: str) -> None:
    undisturbed = refit(source, spec(head=MIXTURE), name="whole")

    def die(self: fitting.Fitting) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting.Fitting, "restore_best", die)
        with pytest.raises(KeyboardInterrupt):
            refit(source, spec(head=MIXTURE), name="killed")
    killed = refit(source, spec(head=MIXTURE), name="killed")
    assert numbers(killed.folder, "step", "loss") == numbers(undisturbed.folder, "step", "loss")


def test_a_mixture_may_be_refitted_too(source: str) -> None:
    mixture = refit(source, spec(head=MIXTURE))
    plain = refit(mixture.folder, spec(head={"name": "bernoulli"}), name="plain-again")
    assert plain.best["nll_nats"] < numbers(plain.folder, "evaluation", "nll_nats")[0]


def test_a_run_without_a_bundle_is_refused(source: str) -> None:
    shutil.rmtree(f"{source}/bundle")
    with pytest.raises(
        RunError, match="has no bundle yet: the run is not finished; continue with `rayprob train` and the same file"
    ):
        refit(source, spec())


def test_the_folder_of_another_run_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"base contains a run that differs from this one in \d+ key"):
        refit(source, spec(), folder=source)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    with pytest.raises(RunError, match="notes is not empty and is not a run folder; set another folder"):
        refit(source, spec(), folder=str(tmp_path / "notes"))
    assert open_bundle(source).classifier.family == "bernoulli"


def test_a_refit_of_a_bundle_that_has_changed_is_refused(source: str) -> None:
    refit(source, spec(head=MIXTURE))
    bundle = open_bundle(source)
    with torch.no_grad():
        bundle.classifier.head.linear.bias.add_(1)
    bundle.save(f"{source}/bundle")
    with pytest.raises(RunError, match=r"is a refit of an earlier bundle of .*base: .*choose another --name"):
        refit(source, spec(head=MIXTURE))


def test_parts_that_do_not_fit_are_refused_before_any_work(source: str) -> None:
    with pytest.raises(
        SpecError, match=r"loss.name mixture needs a mixture head, but head.name is bernoulli; set head.name to"
    ):
        refit(source, spec(head={"name": "bernoulli"}, loss={"name": "mixture"}))
    with pytest.raises(
        SpecError, match=r"global_batch 4096 is more than the \d+ samples of train; set global_batch to \d+ or less"
    ):
        refit(source, spec(head=MIXTURE, global_batch=4096))
    assert not (Path(source) / "features").exists()


def test_how_the_source_dealt_out_its_batches_does_not_bind_the_refit(source: str) -> None:
    opened = FeatureSource.open(open_run(source), open_bundle(source))
    run = refit_run(opened, spec(head=MIXTURE, global_batch=30), name=None, folder=None)
    assert (run.stream.global_batch, run.stream.lanes) == (30, 2)  # the source has 4 lanes
    check(run, opened.dataset, world_size=1)


def test_a_finished_refit_whose_history_is_lost_is_named(source: str) -> None:
    history = Path(refit(source, spec(head=MIXTURE)).folder) / "metrics.jsonl"
    content = history.read_text()
    start = content.splitlines(keepends=True)[0]
    for damaged in ("", start, content.replace(start, ""), content.replace('"is_best"', '"was_best"')):
        history.write_text(damaged)
        with pytest.raises(RunError, match=r"metrics.jsonl lacks the start or the best evaluation .* another --name"):
            refit(source, spec(head=MIXTURE))


def test_a_damaged_file_of_features_is_named(source: str) -> None:
    refit(source, spec(head=MIXTURE))
    damaged = next((Path(source) / "features").glob("train-*"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(
        RunError, match=r"train-\w+.safetensors is not a valid features file .*remove it to compute the features again"
    ):
        refit(source, spec(head={"name": "bernoulli"}))


def test_a_head_of_places_keeps_its_attention(make_run: Any, tmp_path: Path) -> None:
    attentive = {"backbone": "timm/test_resnet", "pooling": "places", "head": {"attention": 0.3}}
    run = make_run(tmp_path / "places", duration={"steps": 2}, model=attentive)
    claim(run, Dataset.open(run.data.root))
    fit(run, Place(), torch.device("cpu"))
    new = refit(run.run_folder, spec(head={"name": "mixture", "components": 1}, epochs=1))
    bundle = open_bundle(new.folder)
    assert bundle.model_spec.head.attention == 0.3
    features = split_features(FeatureSource.open(open_run(new.folder), bundle), "holdout", lambda event: None)
    assert features.features_NF.ndim == 3
    assert rows(new.folder, "evaluation")[0]["mAP"] == pytest.approx(rows(run.run_folder, "evaluation")[-1]["mAP"])


def test_a_refit_reads_the_features_of_all_stages_that_the_run_joined(make_run: Any, tmp_path: Path) -> None:
    joined = {"backbone": "timm/test_resnet", "maps": [3, 4, 5], "neck": "top_down", "pooling": "places"}
    run = make_run(tmp_path / "stages", duration={"steps": 2}, model=joined)
    claim(run, Dataset.open(run.data.root))
    fit(run, Place(), torch.device("cpu"))
    new = refit(run.run_folder, spec(head={"name": "csra", "attention": 0}, epochs=1))
    bundle = open_bundle(new.folder)
    assert bundle.model_spec.maps == (3, 4, 5)
    assert bundle.classifier.num_features == 3 * 256
    assert rows(new.folder, "evaluation")[0]["mAP"] == pytest.approx(rows(run.run_folder, "evaluation")[-1]["mAP"])


def test_features_too_large_for_this_machine_are_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MEMORY_BYTES", 1000)
    with pytest.raises(
        RunError, match=r"features of the \d+ samples of train need 0.0 GB of memory, but this machine has 0.0 GB; train"
    ):
        refit(source, spec(head=MIXTURE))


def test_features_of_an_unknown_split_are_refused(source: str) -> None:
    with pytest.raises(DatasetError, match="test"):
        split_features(FeatureSource.open(open_run(source), open_bundle(source)), "test", lambda event: None)


def test_a_refit_says_where_it_comes_from(source: str) -> None:
    refitted = refit(source, spec(head=MIXTURE))
    facts = json.loads((Path(refitted.folder) / "bundle" / "bundle.json").read_text())["facts"]
    assert facts["refit"]["source"] == source
    assert facts["run"]["model"]["weights"] == f"{source}/bundle"


def test_the_verb_shows_a_line_for_each_evaluation_and_what_comes_next(source: str) -> None:
    words = ["refit", source, "--set", "head.name=mixture", "--set", "head.components=3", "--set", "epochs=2"]
    words += ["--set", "global_batch=16", "--name", "three"]
    shown = CliRunner().invoke(app, words, catch_exceptions=False)
    assert shown.exit_code == 0
    assert shown.output.count("components in use") == 3
    assert f"next: rayprob evaluate {Path(source).parent}/three" in shown.output
    assert "already finished; best on holdout: NLL" in CliRunner().invoke(app, words, catch_exceptions=False).output
