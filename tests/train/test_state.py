"""Averages, checkpoints on disk, and which of them are kept."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from rayprob.errors import RunError
from rayprob.files import storage
from rayprob.loader.order import Cursor
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.classifier import Classifier
from rayprob.runs.checkpoints import (
    Checkpoint,
    Progress,
    best_first,
    latest,
    list_checkpoints,
    load_first,
    newest_first,
    prune,
    save_checkpoint,
)
from rayprob.runs.optimizers import OptimizerSpec
from rayprob.train.optimizer import build_optimizer
from rayprob.train.state import Ema, TrainState


def small() -> Classifier:
    return build_classifier(ModelSpec(backbone="squeezenet1_1"), 3)


def state_of(classifier: Classifier, progress: Progress = Progress()) -> TrainState:  # noqa: B008
    optimizer = build_optimizer(classifier, OptimizerSpec(), torch.device("cpu"))
    return TrainState(classifier, optimizer, torch.amp.GradScaler("cpu", enabled=False), Ema(classifier, 100, 10), progress)


def train_a_little(state: TrainState, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        state.classifier(torch.rand(2, 3, 32, 32))["logits"].square().sum().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        assert state.ema
        state.ema.update(state.classifier)


def save(folder: Path, state: TrainState, score: float | None) -> Checkpoint:
    return save_checkpoint(str(folder), state.tensors(), state.progress, score)


def test_a_restored_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    undisturbed = state_of(small(), Progress(step=3, cursor=Cursor(1, 2), best_score=0.5, best_step=2))
    train_a_little(undisturbed, 3)
    saved = save(tmp_path, undisturbed, score=0.5)
    restored = state_of(small())
    found = latest(list_checkpoints(str(tmp_path)))
    assert found == saved
    restored.restore(found.load(), found.progress)
    assert restored.progress == undisturbed.progress
    for state in (undisturbed, restored):
        train_a_little(state, 2)
    assert undisturbed.ema
    assert restored.ema
    for left, right in ((undisturbed.classifier, restored.classifier), (undisturbed.ema.classifier, restored.ema.classifier)):
        for name, tensor in left.state_dict().items():
            assert torch.equal(tensor, right.state_dict()[name]), name


def test_ema_halves_an_old_weight_after_its_half_life() -> None:
    classifier = small()
    ema = Ema(classifier, half_life_samples=1000, global_batch=10)
    ema.num_updates = 10**9  # long past the warm-up
    with torch.no_grad():
        for parameter in ema.classifier.parameters():
            parameter.fill_(1.0)
        for parameter in classifier.parameters():
            parameter.fill_(0.0)
    for _ in range(100):
        ema.update(classifier)
    assert float(next(ema.classifier.parameters()).flatten()[0]) == pytest.approx(0.5, rel=1e-4)


def test_early_averages_forget_the_first_weights_quickly() -> None:
    classifier = small()
    ema = Ema(classifier, half_life_samples=10**9, global_batch=10)
    with torch.no_grad():
        for parameter in ema.classifier.parameters():
            parameter.fill_(1.0)
        for parameter in classifier.parameters():
            parameter.fill_(0.0)
    ema.update(classifier)
    assert float(next(ema.classifier.parameters()).flatten()[0]) == pytest.approx(0.1)


def test_the_best_and_the_two_last_checkpoints_are_kept(tmp_path: Path) -> None:
    state = state_of(small())
    for step, score in ((1, 0.1), (2, 0.7), (3, None), (4, 0.7), (5, 0.6), (6, None)):
        state.progress = Progress(step=step)
        save(tmp_path, state, score)
    prune(str(tmp_path), keep_best=2)
    kept = list_checkpoints(str(tmp_path))
    assert [checkpoint.step for checkpoint in kept] == [2, 4, 5, 6]
    assert [checkpoint.step for checkpoint in best_first(kept)] == [2, 4, 5]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 8


def test_a_checkpoint_without_its_json_does_not_exist(tmp_path: Path) -> None:
    save(tmp_path, state_of(small()), None)
    (tmp_path / "checkpoints" / "step-00000000.json").unlink()
    assert latest(list_checkpoints(str(tmp_path))) is None


def test_a_damaged_checkpoint_names_its_file_and_the_remedy(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, state_of(small()), None)
    path = tmp_path / "checkpoints" / "step-00000000.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        RunError, match=r"step-00000000\.pt cannot be read .* remove its two files to continue from an older one"
    ):
        checkpoint.load()


def test_one_flipped_bit_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, state_of(small()), None)
    path = tmp_path / "checkpoints" / "step-00000000.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"the sha256 of its .* bytes differs from what was written"):
        checkpoint.load()


def test_the_first_checkpoint_that_can_be_read_is_taken_and_the_others_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of(small())
    for step in (1, 2, 3):
        state.progress = Progress(step=step)
        save(tmp_path, state, None)
    damaged = tmp_path / "checkpoints" / "step-00000003.pt"
    damaged.write_bytes(b"")
    found = load_first(newest_first(list_checkpoints(str(tmp_path))))
    assert found is not None
    assert found[0].step == 2
    assert "step-00000003.pt cannot be read" in caplog.text
    assert "using the checkpoint of step 2 instead" in caplog.text
    for path in (tmp_path / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(RunError, match=r"step-00000001\.pt cannot be read"):
        load_first(newest_first(list_checkpoints(str(tmp_path))))
    assert load_first([]) is None


def test_facts_of_a_checkpoint_that_cannot_be_read_are_as_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = state_of(small())
    for step in (1, 2):
        state.progress = Progress(step=step)
        save(tmp_path, state, None)
    (tmp_path / "checkpoints" / "step-00000002.json").write_text("{")
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [1]
    assert "step-00000002.json is not JSON" in caplog.text


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, state_of(small()), None)
    names = storage.list_names(str(tmp_path / "checkpoints"))
    monkeypatch.setattr(storage, "list_names", lambda uri: [*names, "step-00000009.json"])
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [0]


def as_version_0_1(folder: Path) -> None:
    """Take from all checkpoints what the first ones of version 0.1 did not have."""
    for path in (folder / "checkpoints").glob("*.json"):
        facts = json.loads(path.read_text())
        del facts["version"], facts["fingerprint"], facts["sha256"], facts["progress"]["open_losses"]
        path.write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of steps 1 and 2; tests copy it."""
    folder, state = tmp_path_factory.mktemp("two"), state_of(small())
    for step in (1, 2):
        state.progress = Progress(step=step, cursor=Cursor(0, step), best_score=0.25, best_step=1)
        save(folder, state, 0.25)
    return folder


@pytest.fixture
def old(two_checkpoints: Path, tmp_path: Path) -> Path:
    """Two checkpoints of version 0.1."""
    shutil.copytree(two_checkpoints, tmp_path / "old")
    as_version_0_1(tmp_path / "old")
    return tmp_path / "old"


def test_checkpoints_of_version_0_1_open_as_before(old: Path) -> None:
    found = load_first(newest_first(list_checkpoints(str(old))))
    assert found is not None
    assert (found[0].step, found[0].sha256, found[0].progress.cursor) == (2, None, Cursor(0, 2))
    assert found[1].keys() == {"classifier", "optimizer", "scaler", "ema"}


@pytest.mark.parametrize("part", range(0, 50, 7))
def test_a_cut_checkpoint_of_version_0_1_falls_back_to_the_one_before(old: Path, part: int) -> None:
    path = old / "checkpoints" / "step-00000002.pt"
    content = path.read_bytes()
    for place in range(part, min(part + 7, 50)):
        path.write_bytes(content[: len(content) * place // 50])
        found = load_first(newest_first(list_checkpoints(str(old))))
        assert found is not None
        assert found[0].step == 1


def test_a_flipped_byte_of_a_checkpoint_of_version_0_1_is_noticed_or_changes_nothing(old: Path) -> None:
    path = old / "checkpoints" / "step-00000002.pt"
    content, checkpoint = path.read_bytes(), list_checkpoints(str(old))[-1]
    expected = checkpoint.load()["classifier"]
    for place in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            found = checkpoint.load()["classifier"]
        except RunError:
            continue
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_any_flipped_byte_of_a_checkpoints_facts_makes_it_pass_over_and_never_another_one(
    two_checkpoints: Path, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints" / "step-00000002.json"
    content = (two_checkpoints / "checkpoints" / "step-00000002.json").read_bytes()
    path.parent.mkdir()
    path.write_bytes(content)
    (expected,) = list_checkpoints(str(tmp_path))
    for place in range(len(content)):
        for flip in (1, 32, 128):
            path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
            with suppress(RunError):  # of a later version, as it says
                assert list_checkpoints(str(tmp_path)) in ([], [expected])


def test_a_checkpoint_of_a_later_version_is_refused_and_not_passed_over(two_checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(two_checkpoints, tmp_path / "new")
    path = tmp_path / "new" / "checkpoints" / "step-00000002.json"
    facts = json.loads(path.read_text())
    assert facts["version"] == 1
    path.write_text(json.dumps(facts | {"version": 2}))
    with pytest.raises(RunError, match=r"00002.json has format version 2, but this rayprob reads at most 1; resume with"):
        list_checkpoints(str(tmp_path / "new"))


def other_backbone() -> TrainState:
    return state_of(build_classifier(ModelSpec(backbone="squeezenet1_0"), 3))


def other_optimizer() -> TrainState:
    state = state_of(small())
    state.optimizer = build_optimizer(state.classifier, OptimizerSpec(name="sgd"), torch.device("cpu"))
    return state


def no_average() -> TrainState:
    state = state_of(small())
    state.ema = None
    return state


@pytest.mark.parametrize(
    ("make", "reason"),
    [(other_backbone, "Missing key"), (other_optimizer, "no .*momentum"), (no_average, r"with an average")],
)
def test_a_state_of_another_run_file_is_a_run_error(two_checkpoints: Path, make: Callable[[], TrainState], reason: str) -> None:
    checkpoint = list_checkpoints(str(two_checkpoints))[-1]
    with pytest.raises(RunError, match=rf"checkpoint of step 2 does not fit this run .*{reason}.*resume with the run.yaml"):
        make().restore(checkpoint.load(), checkpoint.progress)


def test_an_optimizer_state_of_other_shapes_is_a_run_error(two_checkpoints: Path) -> None:
    state = state_of(small())
    train_a_little(state, 1)
    tensors = state.tensors()
    tensors["optimizer"]["state"][0]["exp_avg"] = torch.zeros(5)
    with pytest.raises(RunError, match=r"its optimizer's exp_avg is \[5\] for weights of \["):
        state_of(small()).restore(tensors, Progress(step=1))
