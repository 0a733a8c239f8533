"""A torch.export file gives the bundle's answers bit for bit, for any batch and size, without rayprob."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rayprob.errors import ModelError
from rayprob.export import checking
from rayprob.export.checking import expected
from rayprob.export.torch_file import export_torch
from rayprob.probability.calibration.affine import AffineCalibrator
from tests.export.test_onnx import Stubborn, drawn, small
from tests.predict.small import LABELS, make_bundle


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of a bundle whose network has one layer."""
    path = tmp_path_factory.mktemp("torch") / "b.pt2"
    written = export_torch(small(make_bundle(3, {"name": "bernoulli"})), str(path), fingerprint="f00d")
    assert (written.outputs, written.largest_difference < 1e-6) == (("marginals",), True)
    assert written.size_bytes == path.stat().st_size
    return path


@pytest.mark.parametrize("shape", [(1, 60, 80), (5, 200, 33), (3, 1, 1)])
def test_the_program_answers_for_any_batch_and_size(exported: Path, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        (marginals,) = torch.export.load(exported).module()(torch.from_numpy(drawn(*shape)))
    bundle = small(make_bundle(3, {"name": "bernoulli"}))
    np.testing.assert_allclose(marginals, expected(bundle, drawn(*shape))["marginals"], atol=1e-6)


@pytest.mark.slow
def test_the_program_runs_where_rayprob_is_not_installed(exported: Path) -> None:
    code = (
        "import sys, torch; p = torch.export.load(sys.argv[1]).module();"
        "print(tuple(p(torch.zeros(2, 9, 7, 3, dtype=torch.uint8))[0].shape), 'rayprob' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, exported], capture_output=True, text=True, cwd=exported.parent, env={})
    assert ran.stdout.strip() == "(2, 6) False", ran.stderr


def test_the_file_tells_what_its_outputs_mean(exported: Path) -> None:
    extra = {"rayprob.json": ""}
    torch.export.load(io.BytesIO(exported.read_bytes()), extra_files=extra)
    facts = json.loads(extra["rayprob.json"])
    assert (facts["labels"], facts["size_px"], facts["bundle"]) == (list(LABELS.names), 32, "f00d")
    assert facts["outputs"] == ["marginals"]
    assert "uint8 [N, H, W, 3], RGB" in facts["description"]


def test_a_program_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = small(make_bundle(3, {"name": "bernoulli"}))
    wrong = AffineCalibrator("temperature", np.array([1.5]), np.zeros(1))
    really = checking.expected
    monkeypatch.setattr(checking, "expected", lambda one, images: really(replace(one, calibrator=wrong), images))
    with pytest.raises(ModelError, match=r"torch.export differs from PyTorch by 0\.\d+, more than 0.0001, so"):
        export_torch(bundle, str(tmp_path / "b.pt2"))
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_exported_is_refused_with_its_reason(tmp_path: Path) -> None:
    bundle = make_bundle(3, {"name": "bernoulli"})
    stubborn = replace(bundle, classifier=Stubborn(bundle.model_spec).eval())
    with pytest.raises(ModelError, match=r"squeezenet1_1 cannot be exported by torch.export \(\w+: .+\); use another backbone"):
        export_torch(stubborn, str(tmp_path / "b.pt2"))
