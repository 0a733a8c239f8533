"""Methods, one module each. A module here ends with its table EXPLAINERS, as a plugin does, and is then known by name."""

from rayprob.registry import join_modules

join_modules(__name__, __path__)
