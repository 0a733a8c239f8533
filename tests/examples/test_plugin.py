"""The plugin of the examples: each of its parts trains, and what it trained goes through every other verb."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.special import expit, log_expit

from rayprob import plugins
from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import calibrate
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import QueryError
from rayprob.explain.members import Seen, explain
from rayprob.export.onnx_file import export_onnx
from rayprob.labels import LabelSpace
from rayprob.loader.augment import TransformSpec
from rayprob.loader.order import Place
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.losses import LossSpec, build_loss
from rayprob.predict.images import find_images
from rayprob.predict.job import ask
from rayprob.predict.record import Record
from rayprob.probability.families import family_of, from_outputs
from rayprob.report.run.write import report
from rayprob.runs.bundle import Bundle
from rayprob.runs.folder import claim
from rayprob.runs.history_rows import read_history
from rayprob.runs.spec import Run
from rayprob.train.assess import assess
from rayprob.train.loop import fit
from rayprob.train.refit import RefitSpec, refit
from tests.apart import apart
from tests.train.conftest import MakeRun

__all__ = ["apart"]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"
OWN_HEAD = {"head": {"name": "hurdle", "dropout": 0.1}}
OWN_LOSS = {"name": "hurdle_nll"}
OWN = {"backbone": "small_net", "pooling": "gmp", **OWN_HEAD}
# What runs change to use every part of the plugin once: the model's keys, and the loss.
PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "family, backbone and pooling": ({"backbone": "small_net", "pooling": "log_sum_exp", **OWN_HEAD}, OWN_LOSS),
    "head and loss": (
        {"backbone": "timm/test_resnet", "head": {"name": "hidden", "width": 24}},
        {"name": "hinge", "margin": 2.0},
    ),
}


@pytest.fixture
def loaded(apart: None) -> Iterator[None]:
    """The example's module, found in its folder."""
    plugins.look_in([EXAMPLE])
    yield
    sys.modules.pop("my_parts", None)


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        pytest.param(*PARTS["family, backbone and pooling"], id="a family of its own", marks=pytest.mark.slow),
        pytest.param(
            {"backbone": "small_net", "head": {"name": "hidden", "width": 24}},
            {"name": "hinge", "margin": 2.0},
            id="a known family",
        ),
    ],
)
@pytest.mark.usefixtures("loaded")
def test_parts_of_a_plugin_go_through_every_verb(
    make_run: MakeRun, tiny: str, tmp_path: Path, model: dict[str, Any], loss: dict[str, Any]
) -> None:
    folder = str(tmp_path / "run")
    run = make_run(Path(folder), plugins=["my_parts"], model=model, loss=loss, placement={"num_workers": 1}, ema=None)
    claim(run, Dataset.open(tiny))
    fit(run, Place(), torch.device("cpu"))
    evaluations = [row for row in read_history(folder) if row["kind"] == "evaluation"]
    assert ("empty_share" in evaluations[-1]) == (model["head"]["name"] == "hurdle")
    assert 0 < assess(folder, "val").at_half.mAP <= 1
    spec = CalibrateSpec(alphas=(0.2,), prior="none")
    assert calibrate(folder, spec).nll_by_method.keys() <= {"identity", "temperature", "shared_platt"}
    bundle = Bundle.load(f"{folder}/bundle")
    assert bundle.plugins == ("my_parts",)
    asking = ask([folder], queries=["P(red | !green)"], evidence=["blue"])
    (outcome,) = asking.outcomes(find_images([str(Path(tiny).parent / "val" / "000000010001.jpg")], "val"))
    assert isinstance(outcome, Record)
    if bundle.classifier.family == "hurdle":  # tests/export has the graphs of known families
        assert export_onnx(bundle, str(tmp_path / "out.onnx")).largest_difference < 1e-4
    assert family_of(bundle.classifier.family).describe({}) in Path(report(folder, "val").path).read_text()
    refitted = refit(folder, RefitSpec.parse({"head": {"name": "hidden"}, "epochs": 1, "global_batch": 16}), name="again")
    assert refitted.folder.endswith("again")


@pytest.mark.usefixtures("loaded")
def test_the_family_of_the_example_is_what_it_says_it_is() -> None:
    plugins.load(["my_parts"])
    rng = np.random.default_rng(0)
    empty_N1, logits_NL = rng.normal(size=(5, 1)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    distribution = from_outputs("hurdle", {"empty_logit": empty_N1, "logits": logits_NL})
    np.testing.assert_allclose(distribution.marginals(), expit(-empty_N1) * expit(logits_NL), rtol=1e-6)
    targets_NL = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]], bool)
    known_NL = np.ones((5, 3), bool)
    known_NL[1] = [True, False, True]
    busy_N = log_expit(-empty_N1[:, 0]) + np.where(known_NL, log_expit(np.where(targets_NL, logits_NL, -logits_NL)), 0).sum(1)
    empty_N = np.where(targets_NL.any(1), -np.inf, log_expit(empty_N1[:, 0]))
    nll_N = -np.logaddexp(busy_N, empty_N)
    np.testing.assert_allclose(-distribution.log_prob(targets_NL, known_NL), nll_N, rtol=1e-6)
    outputs = {"empty_logit": torch.from_numpy(empty_N1), "logits": torch.from_numpy(logits_NL)}
    loss_N = build_loss(LossSpec(name="hurdle_nll"))(outputs, torch.from_numpy(targets_NL), torch.from_numpy(known_NL))
    np.testing.assert_allclose(3 * loss_N.numpy(), nll_N, rtol=1e-5)


@pytest.mark.usefixtures("loaded")
def test_the_map_of_the_example_is_largest_where_covering_costs_most() -> None:
    plugins.load(["my_parts"])
    torch.manual_seed(0)
    model = ModelSpec.parse({"backbone": "small_net", "pooling": "gmp"})
    labels = LabelSpace(("red", "green", "blue", "round"), (1, 2, 3, 4))
    bundle = Bundle(build_classifier(model, 4).eval(), model, labels, TransformSpec(size_px=32), plugins=("my_parts",))
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    (one,) = explain([Seen(bundle, pixels_HWC)], ["green"], "occlusion")
    pixels_HWC[8:16, 24:] = 255 * np.array([0.485, 0.456, 0.406])  # the mean colour of ImageNet
    (covered,) = explain([Seen(bundle, pixels_HWC)], ["green"], "occlusion")
    np.testing.assert_allclose(one.grid_HW[1, 3], one.logit - covered.logit, atol=1e-3)
    hurdle = replace(bundle, classifier=build_classifier(ModelSpec.parse(OWN), 4).eval())
    with pytest.raises(QueryError, match="which the family hurdle does not state"):
        explain([Seen(hurdle, pixels_HWC)], ["green"])


@pytest.mark.usefixtures("loaded")
def test_the_example_run_file_is_read() -> None:
    run = Run.read(EXAMPLE / "run.yaml")
    assert (run.plugins, run.model.head.family) == (("my_parts",), "hurdle")
    assert build_classifier(run.model, 4).family == "hurdle"


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2], ids=["one process", "Ray"])
@pytest.mark.parametrize("parts", PARTS)
def test_every_part_by_the_command_line(make_run: MakeRun, tmp_path: Path, parts: str, num_workers: int) -> None:
    model, loss = PARTS[parts]
    value = make_run(tmp_path / "run").model_dump(mode="json")
    value |= {"plugins": ["my_parts"], "model": model, "loss": loss}
    value["placement"] = {"num_workers": num_workers, "use_gpu": False, "cpus_per_worker": 1}
    value["stream"]["loader_workers"] = 1
    files = tmp_path / "files"
    files.mkdir()
    (files / "run.yaml").write_text(yaml.safe_dump(value))
    shutil.copy(EXAMPLE / "my_parts.py", files)
    photo = sorted(Path(value["data"]["root"]).parent.glob("val/*.jpg"))[0]
    say(tmp_path, "train", "files/run.yaml")  # the module is next to the run file, not in the folder where the command runs
    verbs = [
        ["evaluate", "run", "--split", "val"],
        ["calibrate", "run"],
        ["predict", "run", str(photo), "--query", "P(red | !green)"],
        ["export", "run", "--onnx", "out.onnx"],
        ["report", "run"],
    ]
    for verb in verbs if num_workers == 1 else verbs[:1]:  # what trained a bundle makes no difference to the others
        say(files, *[str(tmp_path / "run") if word == "run" else word for word in verb])


def say(folder: Path, *arguments: str) -> str:
    """Return what a command writes; it must succeed without a traceback."""
    repository = str(EXAMPLE.parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "rayprob", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": repository},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout
