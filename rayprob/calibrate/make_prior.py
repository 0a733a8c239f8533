"""`rayprob prior`: fits a label prior to label sets without images and writes it to a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rayprob.data.sources.label_sets import joined, label_names, read_label_sets
from rayprob.errors import SpecError
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.probability.priors.fit import COMPONENTS, PriorFit, fit_prior


@dataclass(frozen=True, eq=False)
class MadePrior:
    """A label prior that was written to `path`, and how its fit went."""

    path: str
    prior: LabelPriorFile
    fit: PriorFit

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        weights_K = self.prior.mixture.mixing_weights_K.tolist()
        scenes = [{"weight": weight, "labels": scene} for weight, scene in zip(weights_K, self.prior.scenes, strict=True)]
        return {"path": self.path, "source": self.prior.source, **self.prior.facts, "components": scenes}


def make_prior(
    sources: Sequence[str],
    path: str,
    *,
    split: str = "train",
    column: str = "labels",
    names: str | None = None,
    source: str | None = None,
    most_components: int = COMPONENTS[-1],
    seed: int = 0,
    on_fit: Callable[[int], None] = lambda k: None,
) -> MadePrior:
    """Fit a prior to the label sets of all sources together, and write it. Raises DataError, SpecError, StorageError."""
    if most_components < 1:
        raise SpecError(f"--components must be at least 1; got {most_components}")
    known_names = None if names is None else label_names(names)
    parts = [read_label_sets(one, split=split, column=column, names=known_names) for one in sources]
    label_sets = joined(parts)
    components = [k for k in COMPONENTS if k <= most_components]
    fit = fit_prior(label_sets.targets_NL, label_sets.known_NL, components=components, seed=seed, on_fit=on_fit)
    facts = {
        "num_label_sets": len(label_sets),
        "num_labels": len(label_sets.names),
        "nats_by_components": {str(k): nats for k, nats in fit.nats_by_components.items()},
        "chow_liu_nats": fit.chow_liu_nats,
        "seed": seed,
    }
    prior = LabelPriorFile(label_sets.names, fit.mixture, source or ", ".join(sources), facts)
    prior.save(path)
    return MadePrior(path, prior, fit)
