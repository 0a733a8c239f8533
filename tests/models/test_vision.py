"""torchvision comes up whatever another version of it asks of the tracer."""

import sys
from typing import Any

import pytest

from rayprob.models import vision


@pytest.mark.parametrize("error", [ImportError, AttributeError])
def test_a_torchvision_that_asks_for_more_gets_the_tracer(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == "torchvision":
                raise error(name)

    for name in ("torchvision", vision.TRACER):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Other, *sys.meta_path])
    vision._import_without_tracer()
    assert vision.TRACER not in sys.modules
