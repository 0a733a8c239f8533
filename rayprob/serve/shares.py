"""What each replica gets of a machine's or cluster's cores and GPUs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rayprob.serve.spec import ServeSpec


@dataclass(frozen=True)
class Share:
    """Replicas per bundle, and the cores, threads and GPUs of each, as Ray counts them."""

    replicas: int
    cpus: float
    threads: int
    gpus: float


def share_of(spec: ServeSpec, resources: Mapping[str, float]) -> Share:
    """Return the shares that fit into `resources` when every bundle has as many replicas as it may have.

    Without a number, each GPU has one replica; a machine without GPUs has one per bundle. Replicas share GPUs and cores if
    there are fewer of these.
    """
    gpus, cpus = resources.get("GPU", 0.0), max(1.0, resources.get("CPU", 1.0))
    bundles = len(spec.bundles)
    replicas = spec.replicas.number or max(1, int(gpus) // bundles)
    in_all = bundles * max(replicas, spec.replicas.most or 0)
    each_cpus = spec.replicas.cpus or (max(1, cpus // in_all) if cpus >= in_all else _part(cpus, in_all))
    each_gpus = spec.replicas.gpus if spec.replicas.gpus is not None else _even_gpus(gpus, in_all)
    return Share(replicas, each_cpus, max(1, int(each_cpus)), each_gpus)


def _even_gpus(gpus: float, in_all: int) -> float:
    return 0.0 if not gpus else 1.0 if gpus >= in_all else _part(gpus, in_all)


def _part(whole: float, parts: int) -> float:
    """Return a share in Ray's resolution, of 0.0001, rounded down so that all shares fit."""
    return math.floor(whole / parts * 10_000) / 10_000
