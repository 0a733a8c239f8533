"""Heads, one module each. A module here ends with its table HEADS, as a plugin does, and is then known by name.

It may also end with a table LOSSES, for a loss that only its head has.
"""

from rayprob.models.heads.head import HEADS, ByPlace, FeatureDropout, Head, HeadSpec, Start, average, build_head

__all__ = ["HEADS", "ByPlace", "FeatureDropout", "Head", "HeadSpec", "Start", "average", "build_head"]
