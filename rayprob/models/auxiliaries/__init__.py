"""Auxiliary terms, one module each. A module here ends with its table AUXILIARIES, as a plugin does."""

from rayprob.models.auxiliaries.auxiliary import (
    AUXILIARIES,
    EMBEDDING,
    Auxiliary,
    AuxiliarySpec,
    build_auxiliary,
    with_auxiliary,
)

__all__ = ["AUXILIARIES", "EMBEDDING", "Auxiliary", "AuxiliarySpec", "build_auxiliary", "with_auxiliary"]
