"""torchvision, imported without the tracer of torch.compile.

torchvision's operators ask the tracer's package for one function, which only detection models call, and which takes a third of
the time that this process needs to start: `torch._dynamo` imports sympy and all that traces. Whoever compiles imports it then.
"""

import sys
from types import ModuleType

TRACER = "torch._dynamo.utils"


def is_compile_supported(device_type: str) -> bool:
    """Ask the tracer, as torchvision would have."""
    from torch._dynamo.utils import is_compile_supported as asked

    return bool(asked(device_type))


def _import_without_tracer() -> None:
    stand_in = ModuleType(TRACER)
    stand_in.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    sys.modules[TRACER] = stand_in
    try:
        import torchvision  # noqa: F401
    except (ImportError, AttributeError):  # another version asks for something else: it gets the tracer
        pass
    finally:
        del sys.modules[TRACER]


if not {"torchvision", TRACER} & sys.modules.keys():
    _import_without_tracer()

import torchvision  # noqa: E402

__all__ = ["torchvision"]
