"""Files of other trainers: any wrapper and prefix, in both formats; EMA or raw weights by choice; and what is said of it."""

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from rayprob.errors import ModelError
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.classifier import Classifier
from rayprob.models.weights import read_weights

SMALL = "squeezenet1_1"
NAME = "features.0.weight"


def state(value: float) -> dict[str, Tensor]:
    """A library's state_dict whose first weights are all `value`."""
    tensors = dict(torchvision.models.get_model(SMALL).state_dict())
    return tensors | {NAME: torch.full_like(tensors[NAME], value)}


def behind(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def build(path: Path, **keys: Any) -> Classifier:
    return build_classifier(ModelSpec.parse({"backbone": SMALL, "weights": str(path), **keys}), 3)


def first_weight(path: Path, **keys: Any) -> float:
    return float(build(path, **keys).backbone.source.get_parameter(NAME).detach().flatten()[0])


RAW, EMA = state(1.0), state(2.0)
PREFIXES = [
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "module.module.",
    "model.",
    "backbone.",
    "net.body.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_any_prefix_is_found_in_both_formats(tmp_path: Path, prefix: str, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    save = torch.save if suffix == ".pth" else safetensors.torch.save_file
    save(behind(prefix, RAW), path)
    assert first_weight(path) == 1.0


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "network", "net", "weights", "generator"])
def test_any_wrapper_is_found_whatever_else_lies_in_the_file(tmp_path: Path, wrapper: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"epoch": 3, wrapper: behind("module.", RAW), "optimizer": optimizer}, tmp_path / "file.pth")
    assert first_weight(tmp_path / "file.pth") == 1.0


BOTH: dict[str, Callable[[], dict[str, Any]]] = {
    "timm": lambda: {"state_dict": RAW, "state_dict_ema": EMA},
    "torchvision": lambda: {"model": RAW, "model_ema": {"n_averaged": torch.tensor(3), **behind("module.", EMA)}},
    "dino": lambda: {"student": behind("module.backbone.", RAW), "teacher": behind("backbone.", EMA)},
    "yolo": lambda: {"model": RAW, "ema": EMA},
    "diffusers": lambda: {"model": behind("module.", RAW), "ema_model": behind("module.", EMA)},
    "nested": lambda: {"training": {"net": RAW, "ema": {"weights": EMA}}},
    # These two save each set in the other's place.
    "mmengine": lambda: {
        "state_dict": behind("backbone.", EMA),
        "ema_state_dict": {"steps": torch.tensor(3), **behind("module.backbone.", RAW)},
    },
    "lightning": lambda: {
        "state_dict": behind("net.", EMA),
        "current_model_state": behind("net.", RAW),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    },
}


@pytest.mark.parametrize("trainer", BOTH)
def test_a_file_with_both_sets_gives_the_averaged_one_and_says_so_or_the_one_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trainer: str
) -> None:
    path = tmp_path / "both.pth"
    torch.save(BOTH[trainer](), path)
    assert first_weight(path) == 2.0
    assert "both.pth has two sets of weights: using its EMA weights (" in caplog.text
    assert "not its raw weights (" in caplog.text
    assert "set model.weights_part to ema or model to choose" in caplog.text
    caplog.clear()
    assert first_weight(path, weights_part="ema") == 2.0
    assert first_weight(path, weights_part="model") == 1.0
    assert not caplog.text


def test_both_sets_in_one_safetensors_file_are_told_apart(tmp_path: Path) -> None:
    safetensors.torch.save_file(behind("model.", RAW) | behind("model_ema.", EMA), tmp_path / "both.safetensors")
    assert first_weight(tmp_path / "both.safetensors") == 2.0
    safetensors.torch.save_file(RAW | behind("ema.", EMA), tmp_path / "bare.safetensors")
    assert first_weight(tmp_path / "bare.safetensors", weights_part="model") == 1.0
    assert first_weight(tmp_path / "bare.safetensors") == 2.0


def test_a_set_that_is_not_there_is_refused_with_the_one_that_is(tmp_path: Path) -> None:
    torch.save({"model_ema": EMA}, tmp_path / "ema.pth")
    torch.save({"model": RAW}, tmp_path / "raw.pth")
    assert first_weight(tmp_path / "ema.pth") == 2.0
    with pytest.raises(ModelError, match=r"ema.pth has no raw weights that fit this model, only EMA weights \(model_ema\)"):
        build(tmp_path / "ema.pth", weights_part="model")
    with pytest.raises(ModelError, match=r"raw.pth has no EMA weights that fit this model, only raw weights \(model\)"):
        build(tmp_path / "raw.pth", weights_part="ema")


def test_averages_without_names_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save({"model": RAW, "ema": {"decay": 0.9, "shadow_params": list(EMA.values())}}, path)
    with pytest.raises(ModelError, match=r"has EMA weights \(ema.shadow_params\) that cannot .*weights_part: model"):
        build(path)
    assert first_weight(path, weights_part="model") == 1.0


def test_two_raw_sets_that_differ_are_refused_and_two_that_are_equal_are_one(tmp_path: Path) -> None:
    torch.save({"first": RAW, "second": EMA}, tmp_path / "two.pth")
    with pytest.raises(
        ModelError, match=r"several sets of weights .*raw weights \(first\), raw weights \(second\); save only one"
    ):
        build(tmp_path / "two.pth")
    torch.save({"first": RAW, "second": {name: tensor.clone() for name, tensor in RAW.items()}}, tmp_path / "same.pth")
    assert first_weight(tmp_path / "same.pth") == 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    torch.save(state(value), tmp_path / "nan.pth")
    with pytest.raises(ModelError, match=rf"nan.pth contain NaN or inf: 1 tensor \({NAME}\); the training .*diverged"):
        build(tmp_path / "nan.pth")


def test_values_too_large_for_float32_are_refused_as_inf(tmp_path: Path) -> None:
    safetensors.torch.save_file({name: tensor.double() * 1e300 for name, tensor in RAW.items()}, tmp_path / "f.safetensors")
    with pytest.raises(ModelError, match="contain NaN or inf"):
        build(tmp_path / "f.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_other_floating_types_load_by_their_value(tmp_path: Path, dtype: torch.dtype) -> None:
    safetensors.torch.save_file({name: tensor.to(dtype) for name, tensor in RAW.items()}, tmp_path / "f.safetensors")
    assert first_weight(tmp_path / "f.safetensors") == 1.0


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_that_are_not_floating_point_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    safetensors.torch.save_file({name: tensor.to(dtype) for name, tensor in RAW.items()}, tmp_path / "f.safetensors")
    with pytest.raises(ModelError, match=r"not plain floating-point numbers: \d+ differ \(features.0.weight (int8|complex64)"):
        build(tmp_path / "f.safetensors")


def test_tensors_that_share_their_memory_load(tmp_path: Path) -> None:
    memory = torch.cat([tensor.flatten() for tensor in RAW.values()])
    parts = memory.split([tensor.numel() for tensor in RAW.values()])
    views = {name: part.view_as(tensor) for (name, tensor), part in zip(RAW.items(), parts, strict=True)}
    torch.save({"model": views, "best": views}, tmp_path / "views.pth")
    assert first_weight(tmp_path / "views.pth") == 1.0


def run_recipe(refusal: str) -> None:
    """Do what the command in an error does, without the seconds that another Python takes to import torch."""
    python, option, code = shlex.split(refusal.split("\n")[1])
    assert (python, option) == ("python", "-c")
    exec(code, {})


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_with_pickled_objects_gives_a_command_that_saves_its_weights_alone(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "it's $HOME.pth"
    args = argparse.Namespace(lr=0.1)
    content = {"state_dict": RAW, "state_dict_ema": EMA, "args": args, "epoch": 3, "optimizer": {"state": {}}}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ModelError, match=r"pickled objects \(argparse.Namespace\).*If you trust the file") as refused:
        build(path)
    run_recipe(str(refused.value))
    saved = tmp_path / "it's $HOME-weights.pth"
    assert first_weight(saved, weights_part="ema") == 2.0
    assert first_weight(saved, weights_part="model") == 1.0


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize(("suffix", "message"), [(".pth", "pickled objects"), (".pt", "is a TorchScript program")])
def test_a_whole_pickled_module_and_a_script_are_saved_anew_by_the_command_too(
    tmp_path: Path, suffix: str, message: str
) -> None:
    network, path = torch.nn.Sequential(torch.nn.Linear(2, 3)), tmp_path / f"whole{suffix}"
    if suffix == ".pth":
        torch.save(network, path)
    else:
        torch.jit.script(network).save(str(path))
    with pytest.raises(ModelError, match=message) as refused:
        read_weights(str(path))
    run_recipe(str(refused.value))
    tensors, _ = read_weights(str(tmp_path / "whole-weights.pth"))
    assert any(name.endswith("0.weight") and torch.equal(tensor, network[0].weight) for name, tensor in tensors.items())
