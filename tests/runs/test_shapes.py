"""What cannot pass through a model is refused before the first step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import SpecError
from rayprob.models.build import ModelSpec
from rayprob.runs import shapes
from rayprob.runs.rules import check
from rayprob.runs.spec import Run

MakeRun = Callable[..., Run]


def checked(make_run: MakeRun, tiny: str, model: dict[str, Any], size_px: int, micro_batch: int, world_size: int = 1) -> None:
    transforms = {"train": {"name": "paper", "size_px": size_px}, "evaluate": {"name": "resize", "size_px": 64}}
    run = make_run(Path("run"), model=model, transforms=transforms, placement={"micro_batch": micro_batch})
    check(run, Dataset.open(tiny), world_size)


@pytest.mark.parametrize("backbone", ["resnet18", "timm/test_resnet"])
def test_batch_norm_with_one_value_per_channel_is_refused(make_run: MakeRun, tiny: str, backbone: str) -> None:
    with pytest.raises(SpecError, match=r"size_px 32 and 1 image per micro batch: .*raise placement.micro_batch"):
        checked(make_run, tiny, {"backbone": backbone}, 32, 1)


@pytest.mark.parametrize(
    ("model", "size_px", "micro_batch"),
    [
        ({"backbone": "resnet18"}, 32, 2),  # two images
        ({"backbone": "resnet18"}, 64, 1),  # four places
        ({"backbone": "resnet18", "norm": "frozen"}, 32, 1),
        ({"backbone": "resnet18", "frozen": "backbone"}, 32, 1),
        ({"backbone": "timm/convnext_atto"}, 32, 1),  # no batch norm
    ],
)
def test_batch_norm_with_more_values_or_fixed_statistics_is_not(
    make_run: MakeRun, tiny: str, model: dict[str, Any], size_px: int, micro_batch: int
) -> None:
    checked(make_run, tiny, model, size_px, micro_batch)


def test_synchronised_batch_norm_counts_the_images_of_all_ranks(make_run: MakeRun, tiny: str) -> None:
    checked(make_run, tiny, {"backbone": "resnet18", "norm": "sync"}, 32, 1, world_size=2)
    with pytest.raises(SpecError, match="1 image"):
        checked(make_run, tiny, {"backbone": "resnet18", "norm": "sync"}, 32, 1, world_size=1)


def test_images_that_shrink_to_nothing_are_refused(make_run: MakeRun, tiny: str) -> None:
    with pytest.raises(
        SpecError, match=r"squeezenet1_1 cannot take a training step .*size_px 16 .*too small.*raise transforms.train"
    ):
        checked(make_run, tiny, {"backbone": "squeezenet1_1"}, 16, 4)


def test_an_error_without_a_text_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(shapes, "build_classifier", refuse)
    assert shapes.fault_of(ModelSpec(backbone="resnet18"), 4, 2, 32, training=True) == "NotImplementedError"
