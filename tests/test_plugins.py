"""Plugins: their parts join ours by name, and every way in which they cannot is said in plain words."""

import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rayprob import plugins
from rayprob.config.spec import Spec
from rayprob.data.building.recipe import Recipe
from rayprob.errors import BundleError, RunError, SpecError
from rayprob.loader.augment import build_transform
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.heads import HEADS, HeadSpec
from rayprob.models.losses import LOSSES, LossSpec
from rayprob.runs.bundle import Bundle
from rayprob.runs.folder import claim, open_run
from rayprob.runs.schedules import lr_factor
from rayprob.runs.spec import Run, identity
from rayprob.submit.job import Job
from rayprob.sweep.search import Sweep
from rayprob.train.optimizer import build_optimizer
from tests.apart import apart
from tests.end_to_end.verbs import RECIPE, RUN
from tests.predict.small import make_bundle

__all__ = ["apart"]
pytestmark = pytest.mark.usefixtures("apart")
PARTS = """
from pydantic import Field
from torch import nn
from rayprob.models.heads import Head, HeadSpec, Start, average
from rayprob.models.losses import LossSpec


class WideSpec(HeadSpec):
    width: int = Field(default=4, ge=1)


class Wide(Head):
    def __init__(self, num_features: int, num_labels: int, spec: WideSpec, start: Start) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_features, spec.width), nn.Linear(spec.width, num_labels))

    def forward(self, features):
        return {"logits": self.layers(average(features))}


def plain(spec: LossSpec, outputs, targets_BL, known_BL):
    return (outputs["logits"] - targets_BL).abs().mul(known_BL).sum(1)


HEADS = {"wide": Wide}
LOSSES = {"plain": plain}
"""


def write_run(folder: Path, parts: str = PARTS, name: str = "wide_parts", **changes: Any) -> Path:
    """Write a run file and, beside it, the plugin that it names."""
    (folder / f"{name}.py").write_text(textwrap.dedent(parts))
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**RUN, "plugins": [name], **changes}))
    return path


def test_a_module_beside_the_run_file_brings_its_parts(tmp_path: Path) -> None:
    run = Run.read(
        write_run(tmp_path, model={"backbone": "resnet18", "head": {"name": "wide", "width": 9}}), ["loss.name=plain"]
    )
    assert run.model.head.model_dump() == {"name": "wide", "dropout": 0.0, "width": 9}
    assert (run.plugins, run.loss.model_dump()) == (("wide_parts",), {"name": "plain"})
    assert Run.read_text(run.to_yaml(), "as written") == run
    assert HEADS.origin["wide"] == "wide_parts"


def test_options_are_checked_and_names_found_as_those_of_own_parts(tmp_path: Path) -> None:
    Run.read(write_run(tmp_path))
    with pytest.raises(SpecError, match=r"unknown head 'wid'; nearest: wide; allowed: bernoulli, .*, wide"):
        HeadSpec.parse({"name": "wid"})
    with pytest.raises(SpecError, match=r"width: input should be greater than or equal to 1 \(found 0\)"):
        HeadSpec.parse({"name": "wide", "width": 0})
    with pytest.raises(SpecError, match="components is an option of mixture, not of the head wide, which takes dropout, width"):
        HeadSpec.parse({"name": "wide", "components": 3})
    # What another part wrote down of its defaults says nothing, as when a sweep moves from one name to another.
    assert HeadSpec.parse({**HeadSpec().model_dump(), "name": "wide"}) == HeadSpec(name="wide")
    assert LossSpec.parse({**LossSpec().model_dump(), "name": "plain"}) == LossSpec(name="plain")


def test_a_run_or_recipe_without_plugins_is_the_run_or_recipe_that_it_was() -> None:
    for spec in (Run.parse(RUN), Recipe.parse(RECIPE)):
        assert "plugins" not in spec.model_dump()
        assert "plugins" not in spec.to_yaml()
    assert "plugins" not in identity(Run.parse(RUN))
    assert Run.parse(RUN).fingerprint == Run.parse({**RUN, "plugins": []}).fingerprint


def test_a_name_that_two_modules_use_is_an_error_that_names_both(tmp_path: Path) -> None:
    Run.read(write_run(tmp_path))
    (tmp_path / "other_parts.py").write_text(PARTS)
    with pytest.raises(SpecError, match="two parts are named 'wide': in HEADS of other_parts and of wide_parts; rename one"):
        Run.parse({**RUN, "plugins": ["wide_parts", "other_parts"]})
    with pytest.raises(SpecError, match="two parts are named 'bce': in LOSSES of ours and of rayprob"):
        Run.read(write_run(tmp_path, "LOSSES = {'bce': len}", "ours"))


def test_a_module_with_a_name_that_is_taken_joins_with_none_of_its_parts(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="two parts are named 'bce'"):
        Run.read(write_run(tmp_path, "HEADS = {'new': len}\nLOSSES = {'newer': len, 'bce': len}", "halfway"))
    assert ("new" in HEADS, "newer" in LOSSES) == (False, False)


def test_a_package_may_pass_on_the_table_of_its_module(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "heads.py").write_text(PARTS)
    (tmp_path / "kit" / "__init__.py").write_text("from kit.heads import HEADS")
    path = write_run(tmp_path, model={"backbone": "resnet18", "head": {"name": "wide"}})
    assert Run.read(path, ["plugins=[kit.heads, kit]"]).model.head.name == "wide"
    assert HEADS.origin["wide"] == "kit.heads"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "x = 1\nraise ValueError('no such table')",
            r"cannot be imported: ValueError: no such table \(\S+faulty.py, line 2\)",
        ),
        ("import nothing_of_the_kind", r"ModuleNotFoundError: No module named 'nothing_of_the_kind' \(\S+faulty.py, line 1\)"),
        ("def f(:", r"SyntaxError: .*\(\S+faulty.py, line 1\)"),
        ("raise SystemExit(3)", r"SystemExit: 3 \(\S+faulty.py, line 1\)"),
        ("HEAD = {}", "the plugin faulty defines none of the tables BACKBONES, NECKS, POOLINGS, HEADS"),
        (
            "from rayprob.models.heads import HEADS",
            "the plugin faulty imports HEADS from rayprob; define its own table instead",
        ),
        ("LOSSES = ['x']", "the table LOSSES of the plugin faulty is a list; it must be a dict of parts by name"),
    ],
)
def test_a_module_that_fails_is_reported_with_its_line(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"plugins: .*{message}"):
        Run.read(write_run(tmp_path, source, "faulty"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["no_such_parts"], "plugins: there is no module no_such_parts, a plugin; put no_such_parts.py next to the file"),
        (
            ["parts/mine.py"],
            "plugins must be module names, such as my_parts for a my_parts.py next to the file; got 'parts/mine.py'",
        ),
        ("mine", "plugins: expected a list"),
        ([3], r"plugins\[0\]: expected text"),
    ],
)
def test_a_name_that_is_not_a_module_is_refused_when_the_file_is_read(names: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Run.parse({**RUN, "plugins": names})


def test_an_option_of_a_wrong_type_of_spec_is_refused(tmp_path: Path) -> None:
    wrong = "def odd(spec: int, outputs, targets_BL, known_BL): ...\nLOSSES = {'odd': odd}"
    with pytest.raises(SpecError, match="odd: its parameter spec has the type <class 'int'>; use LossSpec or a subclass"):
        Run.read(write_run(tmp_path, wrong, "odd_parts"), ["loss.name=odd"])


def test_a_head_of_an_unknown_family_is_refused_when_the_file_is_read(tmp_path: Path) -> None:
    parts = PARTS.replace("class WideSpec(HeadSpec):", "class WideSpec(HeadSpec):\n    family = 'bernouli'\n")
    path = write_run(tmp_path, parts, model={"backbone": "resnet18", "head": {"name": "wide"}})
    with pytest.raises(SpecError, match=r"model.head: unknown family of the head wide: 'bernouli'; nearest: bernoulli"):
        Run.read(path)


def test_a_bundle_says_which_plugin_is_missing_elsewhere(tmp_path: Path) -> None:
    write_run(tmp_path)
    plugins.look_in([tmp_path])
    plugins.load(["wide_parts"])
    bundle = make_bundle(1, {"name": "bernoulli"})
    spec = ModelSpec.parse({**bundle.model_spec.model_dump(), "head": {"name": "wide"}})
    classifier = build_classifier(spec, len(bundle.label_space))
    replace(bundle, model_spec=spec, classifier=classifier, plugins=("wide_parts",)).save(str(tmp_path / "bundle"))
    assert Bundle.load(str(tmp_path / "bundle")).plugins == ("wide_parts",)
    del sys.modules["wide_parts"]
    (tmp_path / "wide_parts.py").rename(tmp_path / "elsewhere.py")
    message = rf"no module wide_parts, a plugin of the bundle at \S+; it was at {tmp_path}/wide_parts.py: export PYTHONPATH=/"
    with pytest.raises(BundleError, match=message):
        Bundle.load(str(tmp_path / "bundle"))


@pytest.mark.parametrize("changed", ["bundle.json", "weights.safetensors"])
def test_a_changed_bundle_is_refused_before_its_plugins_are_imported(tmp_path: Path, changed: str) -> None:
    (tmp_path / "loud_parts.py").write_text("HEADS = {}")
    plugins.look_in([tmp_path])
    replace(make_bundle(1, {"name": "bernoulli"}), plugins=("loud_parts",)).save(str(tmp_path / "bundle"))
    content = (tmp_path / "bundle" / changed).read_bytes()
    (tmp_path / "bundle" / changed).write_bytes(content.replace(b'"head"', b'"heed"') + b" " * changed.startswith("weights"))
    with pytest.raises(BundleError, match="was changed"):
        Bundle.load(str(tmp_path / "bundle"))
    assert "loud_parts" not in sys.modules
    (tmp_path / "bundle" / changed).write_bytes(content)
    assert Bundle.load(str(tmp_path / "bundle")).plugins == ("loud_parts",)
    assert "loud_parts" in sys.modules


def test_a_run_folder_says_where_its_plugin_was(tmp_path: Path) -> None:
    class Dataset:
        fingerprint = "0" * 16

    run = Run.read(write_run(tmp_path), [f"folder={tmp_path / 'run'}"])
    claim(run, Dataset())  # type: ignore[arg-type]
    assert open_run(str(tmp_path / "run")) == run
    del sys.modules["wide_parts"]
    (tmp_path / "wide_parts.py").rename(tmp_path / "elsewhere.py")
    with pytest.raises(RunError, match=f"a plugin of the run in {tmp_path}/run; it was at {tmp_path}/wide_parts.py"):
        open_run(str(tmp_path / "run"))


def test_another_file_of_a_name_that_this_process_has_is_refused_and_named(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write_run(folder)
    message = rf"wide_parts is {one}/wide_parts.py in this process, where {two}/wide_parts.py is needed.*another process"
    Run.read(one / "run.yaml")
    with pytest.raises(SpecError, match=message):
        Run.read(two / "run.yaml")
    assert Run.read(one / "run.yaml").plugins == ("wide_parts",)
    (two / "wide_parts.py").unlink()
    (two / "wide_parts.py").symlink_to(one / "wide_parts.py")
    assert Run.read(two / "run.yaml").plugins == ("wide_parts",)


def test_a_module_on_pythons_own_path_comes_before_one_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "installed").mkdir()
    write_run(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    for _ in range(2):  # not yet imported, and imported
        assert Run.read(write_run(tmp_path)).plugins == ("wide_parts",)
    assert plugins.file_of("wide_parts") == tmp_path / "installed" / "wide_parts.py"


def test_a_bundle_of_another_module_of_the_same_name_is_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_run(tmp_path / folder)
    Run.read(tmp_path / "one" / "run.yaml")
    bundle = tmp_path / "bundle"
    replace(make_bundle(1, {"name": "bernoulli"}), plugins=("wide_parts",)).save(str(bundle))
    assert Bundle.load(str(bundle)).plugins == ("wide_parts",)
    described = json.loads((bundle / "bundle.json").read_text())
    del described["fingerprint"]
    elsewhere = {**described, "plugins": {"wide_parts": str(tmp_path / "two" / "wide_parts.py")}}
    (bundle / "bundle.json").write_text(json.dumps(elsewhere))
    with pytest.raises(BundleError, match=r"one/wide_parts.py in this process, where \S+two/wide_parts.py is needed"):
        Bundle.load(str(bundle))


def test_a_changed_plugin_makes_another_run(tmp_path: Path) -> None:
    class Dataset:
        fingerprint = "0" * 16

    run = Run.read(write_run(tmp_path), [f"folder={tmp_path / 'run'}"])
    claim(run, Dataset())  # type: ignore[arg-type]
    assert not claim(run, Dataset()).is_new  # type: ignore[arg-type]
    (tmp_path / "wide_parts.py").write_text(PARTS.replace("default=4", "default=5"))
    with pytest.raises(RunError, match=r"differs .* 1 key.*\n  plugins wide_parts: its file \S+ has changed\n.*--fresh"):
        claim(run, Dataset())  # type: ignore[arg-type]
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    del facts["plugin_sums"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    assert not claim(run, Dataset()).is_new  # type: ignore[arg-type]  # written before sums were


def test_a_plugin_that_only_an_override_names_is_found_beside_the_file(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    (tmp_path / "other_parts.py").write_text(PARTS.replace('"wide"', '"wider"').replace('"plain"', '"plainer"'))
    path.write_text(yaml.safe_dump(RUN))
    run = Run.read(path, ["plugins=[other_parts]", "loss.name=plainer"])
    assert (run.plugins, run.loss.name) == (("other_parts",), "plainer")


def test_the_file_of_a_name_that_is_no_plugin_is_an_error_in_words() -> None:
    with pytest.raises(SpecError, match="plugins must be module names"):
        plugins.file_of("__main__")
    with pytest.raises(SpecError, match=r"there is no module gone_parts\.inner, a plugin"):
        plugins.file_of("gone_parts.inner")


def test_a_job_packs_modules_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path)
    (tmp_path / "kit" / "inner").mkdir(parents=True)
    for file in ("__init__.py", "inner/__init__.py", "inner/heads.py"):
        (tmp_path / "kit" / file).write_text("HEADS = {}" if file.endswith("heads.py") else "")
    monkeypatch.chdir(tmp_path)
    job = Job.of("train", str(path), ["plugins=[wide_parts, kit.inner.heads]"])
    packed = tmp_path / "packed"
    packed.mkdir()
    job.pack(packed)
    assert {"wide_parts.py", "kit", "rayprob", "run.yaml"} == {entry.name for entry in packed.iterdir()}
    assert (packed / "kit" / "inner" / "heads.py").exists()
    with pytest.raises(SpecError, match="there is no module gone, a plugin"):
        Job.of("train", str(path), ["plugins=[gone]"])
    assert Job.of("train", str(path), ["plugins=wide_parts"]).plugins == ()  # a text, which is refused where the run is read


def test_no_choice_that_a_plugin_may_extend_is_closed_by_a_type() -> None:
    run = Run.parse(RUN)
    open_to_all: dict[str, Spec] = {"head": run.model.head, "loss": run.loss, "optimizer": run.optimizer}
    open_to_all |= {"schedule": run.schedule, "transform": run.transforms.train}
    for kind, spec in open_to_all.items():
        assert type(spec).model_fields["name"].annotation is str, kind
    assert type(run.model).model_fields["pooling"].annotation is str


def test_a_sweep_moves_between_parts_and_searches_an_option_that_only_one_has(tmp_path: Path) -> None:
    space: dict[str, Any] = {
        "model.head.name": {"choice": ["bernoulli", "wide"]},
        "model.head.width": {"choice": [2, 8], "when": {"model.head.name": "wide"}},
        "loss.name": {"choice": ["bce", "plain"]},
    }
    sweep = Sweep.read(write_run(tmp_path, search={"metric": "mAP", "trials": 2, "space": space}))
    trial = sweep.trial_run(1, {"model.head.name": "wide", "model.head.width": 8, "loss.name": "plain"})
    assert trial.model.head.model_dump() == {"name": "wide", "dropout": 0.0, "width": 8}
    assert trial.loss.model_dump() == {"name": "plain"}
    with pytest.raises(
        SpecError, match=r"search.space.loss.name: trial 0 .*\n  loss: gamma is an option of .*focal.*, not of the loss bce"
    ):
        Sweep.read(tmp_path / "run.yaml", ["loss={name: focal, gamma: 3}"])
    space["model.head.width"].pop("when")
    with pytest.raises(SpecError, match=r"search.space.model.head.width: unknown key under model.head: 'width'"):
        Sweep.read(write_run(tmp_path, search={"metric": "mAP", "trials": 2, "space": space}))


OTHERS = """
import torch
from rayprob.loader.augment import Resize, TransformSpec
from rayprob.runs.optimizers import OptimizerSpec
from rayprob.runs.schedules import ScheduleSpec


class RpropSpec(OptimizerSpec):
    step_up: float = 1.2


class HalvingSpec(ScheduleSpec):
    every: int = 10


def rprop(groups, spec: RpropSpec, fused):
    return torch.optim.Rprop(groups, lr=spec.lr, etas=(0.5, spec.step_up))


def halving(spec: HalvingSpec, step, total_steps):
    return 0.5 ** (step // spec.every)


def doubled(spec: TransformSpec):
    return Resize(2 * spec.size_px)


OPTIMIZERS = {"rprop": rprop}
SCHEDULES = {"halving": halving}
TRANSFORMS = {"doubled": doubled}
"""


def test_optimizers_schedules_and_transforms_join_too(tmp_path: Path) -> None:
    changes = {"optimizer": {"name": "rprop", "step_up": 1.5}, "schedule": {"name": "halving", "every": 4}}
    run = Run.read(write_run(tmp_path, OTHERS, "others", **changes), ["transforms.train={name: doubled, size_px: 24}"])
    classifier = build_classifier(run.model, 3)
    optimizer = build_optimizer(classifier, run.optimizer, torch.device("cpu"))
    assert (type(optimizer).__name__, optimizer.defaults["etas"]) == ("Rprop", (0.5, 1.5))
    assert [lr_factor(run.schedule, step, 20) for step in (0, 3, 4, 9)] == [1, 1, 0.5, 0.25]
    assert build_transform(run.transforms.train).size_px == 48
    with pytest.raises(SpecError, match="optimizer: momentum is an option of sgd or adam or adamw, not of the optimizer rprop"):
        Run.read(tmp_path / "run.yaml", ["optimizer.momentum=0.5"])
