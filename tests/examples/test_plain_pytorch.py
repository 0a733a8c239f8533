"""The plain PyTorch loop of the examples: what it sees in two parts is what it sees in one."""

from pathlib import Path

import pytest

from examples.plain_pytorch import train
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import RunError
from rayprob.loader.augment import TransformSpec, build_transform
from rayprob.loader.order import Cursor, Place
from rayprob.loader.streams import StreamSpec, TrainStream

HERE = Place()


def stream(root: str, place: Place = HERE, micro_batch: int = 8, **changes: int) -> TrainStream:
    settings = {"global_batch": 16, "lanes": 4, "loader_workers": 0} | changes
    seed = settings.pop("seed", 0)
    transform = build_transform(TransformSpec(name="paper", size_px=32))
    return TrainStream(
        Dataset.open(root).split("train"), StreamSpec(**settings), transform, seed=seed, place=place, micro_batch=micro_batch
    )


def test_a_loop_that_stops_continues_to_the_same_batches(tiny: str, tmp_path: Path) -> None:
    whole = train(tiny, tmp_path / "whole.pt", 13, size_px=32)  # over the end of an epoch of 9 steps
    first = train(tiny, tmp_path / "parts.pt", 6, size_px=32)
    rest = train(tiny, tmp_path / "parts.pt", 13, size_px=32)
    assert len(first) == 6 * 16
    assert first + rest == whole
    assert train(tiny, tmp_path / "parts.pt", 13, size_px=32) == []


def test_the_state_is_plain_and_moves_with_whole_steps(tiny: str) -> None:
    one = stream(tiny)
    assert one.micro_batches_per_step == 2
    before, batches = one.state_dict(), iter(one)
    next(batches)
    assert one.state_dict() == before  # half a step comes again
    next(batches)
    assert one.state_dict() == before | {"batch": 1}
    assert {type(value) for value in before.values()} == {int, str}


def test_a_state_continues_on_another_number_of_ranks(tiny: str) -> None:
    one = stream(tiny)
    batches = iter(one)
    for _ in range(2 * one.micro_batches_per_step):
        next(batches)
    state = one.state_dict()
    expected = {id_ for _ in range(2) for id_ in next(batches).sample_ids_B.tolist()}
    ranks = [stream(tiny, Place(rank, 2, 2)) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(state)
    assert {id_ for rank in ranks for id_ in next(iter(rank)).sample_ids_B.tolist()} == expected
    assert next(iter(stream(tiny).iterate(Cursor(0, 2)))).sample_ids_B.tolist()[0] in expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "that of another stream: seed is 0, in the state 1"),
        ({"lanes": 2}, "lanes is 4, in the state 2"),
        (
            {"global_batch": 32, "window_shards": 3},
            r"window_shards is \d+, in the state 3; global_batch is 16, in the",
        ),
    ],
)
def test_a_state_of_another_order_is_refused_by_name(tiny: str, changes: dict[str, int], message: str) -> None:
    with pytest.raises(RunError, match=message):
        stream(tiny).load_state_dict(stream(tiny, **changes).state_dict())


def test_a_state_of_another_dataset_or_outside_an_epoch_is_refused(tiny: str) -> None:
    one = stream(tiny)
    state = one.state_dict()
    with pytest.raises(RunError, match=r"dataset is [0-9a-f]{16}, in the state other"):
        one.load_state_dict(state | {"dataset": "other"})
    with pytest.raises(RunError, match=r"Cursor\(epoch=0, batch=99\) lies outside an epoch of 9 global batches"):
        one.load_state_dict(state | {"batch": 99})
    with pytest.raises(RunError, match="a stream's state lacks epoch, batch"):
        one.load_state_dict({name: value for name, value in state.items() if name not in ("epoch", "batch")})
    assert one.state_dict() == state
