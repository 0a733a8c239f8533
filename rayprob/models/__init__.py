"""Classifiers: backbones, poolings, heads, losses and auxiliary terms. The last three are the modules of packages."""

from rayprob.models import auxiliaries, heads, losses
from rayprob.registry import join_modules

for _parts in (losses, auxiliaries, heads):
    join_modules(_parts.__name__, _parts.__path__)
