"""Averages, checkpoints on disk, and which of them are kept."""

from pathlib import Path

import pytest
import torch

from rayprob import storage
from rayprob.errors import RunError
from rayprob.loader.order import Cursor
from rayprob.models.classifier import Classifier, ModelSpec, build_classifier
from rayprob.train.optimizer import OptimizerSpec, build_optimizer
from rayprob.train.state import (
    Ema,
    Progress,
    TrainState,
    best_first,
    latest,
    list_checkpoints,
    load_first,
    newest_first,
    prune,
    save_checkpoint,
)


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


def test_a_restored_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    undisturbed = state_of(small(), Progress(step=3, cursor=Cursor(1, 2), best_score=0.5, best_step=2))
    train_a_little(undisturbed, 3)
    saved = save_checkpoint(str(tmp_path), undisturbed, score=0.5)
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
        save_checkpoint(str(tmp_path), state, score)
    prune(str(tmp_path), keep_best=2)
    kept = list_checkpoints(str(tmp_path))
    assert [checkpoint.step for checkpoint in kept] == [2, 4, 5, 6]
    assert [checkpoint.step for checkpoint in best_first(kept)] == [2, 4, 5]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 8


def test_a_checkpoint_without_its_json_does_not_exist(tmp_path: Path) -> None:
    save_checkpoint(str(tmp_path), state_of(small()), None)
    (tmp_path / "checkpoints" / "step-00000000.json").unlink()
    assert latest(list_checkpoints(str(tmp_path))) is None


def test_a_damaged_checkpoint_names_its_file_and_the_remedy(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(str(tmp_path), state_of(small()), None)
    path = tmp_path / "checkpoints" / "step-00000000.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"step-00000000\.pt cannot be read .* remove its two files to go on from an older one"):
        checkpoint.load()


def test_one_flipped_bit_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(str(tmp_path), state_of(small()), None)
    path = tmp_path / "checkpoints" / "step-00000000.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"have another sha256 than those that were written"):
        checkpoint.load()


def test_the_first_checkpoint_that_can_be_read_is_taken_and_the_others_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of(small())
    for step in (1, 2, 3):
        state.progress = Progress(step=step)
        save_checkpoint(str(tmp_path), state, None)
    damaged = tmp_path / "checkpoints" / "step-00000003.pt"
    damaged.write_bytes(b"")
    found = load_first(newest_first(list_checkpoints(str(tmp_path))))
    assert found is not None
    assert found[0].step == 2
    assert "step-00000003.pt cannot be read" in caplog.text
    assert "taking that of step 2 instead" in caplog.text
    for path in (tmp_path / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(RunError, match=r"step-00000001\.pt cannot be read"):
        load_first(newest_first(list_checkpoints(str(tmp_path))))
    assert load_first([]) is None


def test_facts_of_a_checkpoint_that_cannot_be_read_are_as_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = state_of(small())
    for step in (1, 2):
        state.progress = Progress(step=step)
        save_checkpoint(str(tmp_path), state, None)
    (tmp_path / "checkpoints" / "step-00000002.json").write_text("{")
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [1]
    assert "step-00000002.json cannot be read" in caplog.text


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(str(tmp_path), state_of(small()), None)
    names = storage.list_names(str(tmp_path / "checkpoints"))
    monkeypatch.setattr(storage, "list_names", lambda uri: [*names, "step-00000009.json"])
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [0]
