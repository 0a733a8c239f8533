"""Classifiers: backbones, poolings, heads and losses. The heads and losses are the modules of two packages."""

from rayprob.models import heads, losses
from rayprob.registry import join_modules

for _parts in (losses, heads):
    join_modules(_parts.__name__, _parts.__path__)
