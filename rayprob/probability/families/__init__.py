"""Families, one module each. A module here ends with its table FAMILIES, as a plugin does, and is then known by name."""

from rayprob.probability.families.family import FAMILIES, Family, family_of, from_outputs
from rayprob.registry import join_modules

__all__ = ["FAMILIES", "Family", "family_of", "from_outputs"]

join_modules(__name__, __path__)
