"""torchvision, imported without the tracer of torch.compile.

torchvision's operators import one function from the tracer's package, which only detection models call. That import takes a
third of the start-up time of this process: `torch._dynamo` imports sympy and the whole tracer. Code that compiles imports it
later.
"""

import sys
from types import ModuleType

TRACER = "torch._dynamo.utils"


def is_compile_supported(device_type: str) -> bool:
    """Call the tracer's function, as torchvision would."""
    from torch._dynamo.utils import is_compile_supported as asked

    return bool(asked(device_type))


def _import_without_tracer() -> None:
    stand_in = ModuleType(TRACER)
    stand_in.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    sys.modules[TRACER] = stand_in
    try:
        import torchvision  # noqa: F401
    except (ImportError, AttributeError):  # another version needs something else and gets the tracer
        pass
    finally:
        del sys.modules[TRACER]


if not {"torchvision", TRACER} & sys.modules.keys():
    _import_without_tracer()

import torchvision  # noqa: E402

__all__ = ["torchvision"]
