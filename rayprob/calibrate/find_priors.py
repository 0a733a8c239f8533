"""The label priors that a bundle's calibration may try: named, or found by themselves."""

import logging
from collections.abc import Mapping

from rayprob.calibrate.crossfit import AUTO, NONE, Priors
from rayprob.data.sources.label_sets import read_label_sets
from rayprob.errors import CalibrationError, DataError, RayprobError
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.families import family_of
from rayprob.probability.priors.file import SHIPPED, LabelPriorFile
from rayprob.probability.priors.fit import fit_prior
from rayprob.runs.bundle import Bundle

OWN = "train"  # the name of the prior that the run's own training label sets make
log = logging.getLogger(__name__)


def find_priors(bundle: Bundle, asked: str) -> Priors:
    """Return the priors to try: none, the one that `asked` names, or with `auto` those that fit the bundle's labels.

    `auto` takes the label sets of the run's training split, where its dataset is at hand, and those shipped priors that know
    all of the bundle's labels. Raises CalibrationError for a classifier that has a joint distribution already.
    """
    if asked == NONE:
        return Priors()
    if family_of(bundle.classifier.family).candidates.with_priors is None:
        if asked == AUTO:
            return Priors()
        raise CalibrationError(
            f"a label prior goes with independent labels, and this bundle's head is a {bundle.classifier.family}; leave out "
            "--prior"
        )
    if asked != AUTO:
        return Priors({_short(asked): LabelPriorFile.load(asked).over(bundle.label_space)}, is_asked=True)
    shipped = {name: LabelPriorFile.load(name) for name in SHIPPED}
    fitting = {
        name: prior.over(bundle.label_space)
        for name, prior in shipped.items()
        if len(prior.columns(bundle.label_space)) == len(bundle.label_space) > 1
    }
    return Priors({**_own(bundle), **fitting})


def _own(bundle: Bundle) -> Mapping[str, LabelMixture]:
    """Return the prior of the label sets that the run trained on; nothing where they are out of reach or say nothing."""
    try:
        data = bundle.facts["run"]["data"]
        label_sets = read_label_sets(str(data["root"]), split=str(data["train_split"]))
        fit = fit_prior(label_sets.targets_NL, label_sets.known_NL)
    except (KeyError, TypeError, DataError) as error:
        log.info("no label prior of the run's own label sets: %s", error)
        return {}
    except RayprobError as error:
        log.warning("no label prior of the run's own label sets: %s", error)
        return {}
    return {OWN: fit.mixture} if fit.num_components > 1 else {}


def _short(asked: str) -> str:
    return asked if asked in SHIPPED else asked.rstrip("/").rpartition("/")[2]
