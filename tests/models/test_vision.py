"""torchvision is imported without the tracer where its version allows it."""

import sys
from pathlib import Path

import pytest

from rayprob.models import vision


@pytest.mark.parametrize("asked", ["import tracer_of_a_test; tracer_of_a_test.other", "from tracer_of_a_test import other"])
def test_another_torchvision_may_ask_the_tracer_for_something_else(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(asked)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(vision, "TRACER", "tracer_of_a_test")
    vision._import_without_tracer()
    assert not {"torchvision", "tracer_of_a_test"} & sys.modules.keys()
