"""Which errors say that another rank was lost, and errors that come from another process."""

import pytest
import torch.distributed as dist

from rayprob import errors
from rayprob.errors import RayprobError, RunError, as_error
from rayprob.train.faults import comes_from_another_rank


@pytest.mark.parametrize(
    ("error", "is_from_another"),
    [
        (dist.DistNetworkError("timed out"), True),
        (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), True),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1, unhandled system error"), True),
        (RuntimeError("ProcessGroupGloo was aborted"), True),
        (RuntimeError("cannot open /igloo/images.tar"), False),
        (FileNotFoundError("/data/gloo/images.tar"), False),
        (ValueError("no label is called nccl"), False),
    ],
)
def test_only_an_error_of_the_collectives_comes_from_another_rank(error: Exception, is_from_another: bool) -> None:
    assert comes_from_another_rank(error) is is_from_another


def test_a_noted_error_is_raised_as_its_own_kind_and_an_unknown_kind_as_a_run_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RayprobError)]
    for kind in kinds:
        assert type(as_error({"kind": kind.__name__, "message": "x"})) is kind
    for name in ("", "ValueError", "Mapping", "as_error", "__doc__"):
        assert type(as_error({"kind": name, "message": "x"})) is RunError
