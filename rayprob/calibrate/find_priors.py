"""The label priors that a bundle's calibration may try: named by the user, or found automatically."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rayprob.arrays import Bools
from rayprob.calibrate.crossfit import AUTO, NONE, Priors
from rayprob.data.joined.dataset import AnySplit
from rayprob.data.sources.label_sets import LabelSets
from rayprob.errors import CalibrationError, DataError, RayprobError
from rayprob.labels import LabelSpace
from rayprob.probability.families import family_of
from rayprob.probability.priors.file import SHIPPED, LabelPriorFile
from rayprob.probability.priors.fit import fit_prior
from rayprob.runs.bundle import Bundle
from rayprob.runs.data_spec import DataSpec
from rayprob.seeds import derive

OWN = "train"  # the name of the prior fitted to the run's own training label sets
OWN_AT_MOST = 20_000  # label sets; more take minutes to fit, and `rayprob prior` fits them all
log = logging.getLogger(__name__)


def find_priors(bundle: Bundle, asked: str) -> Priors:
    """Return the priors to try: none, the one that `asked` names, or with `auto` those that fit the bundle's labels.

    `auto` takes the label sets of the run's training split, OWN_AT_MOST of them, if its dataset can be read, and those
    shipped priors that know all of the bundle's labels. Raises CalibrationError if a prior is named for a classifier that
    already has a joint distribution.
    """
    if asked == NONE:
        return Priors()
    if family_of(bundle.classifier.family).candidates.with_priors is None:
        if asked == AUTO:
            return Priors()
        raise CalibrationError(
            f"a label prior needs a head with independent labels, but this bundle's head is a {bundle.classifier.family}; "
            "leave out the prior"
        )
    if asked != AUTO:
        return _priors({_short(asked): LabelPriorFile.load(asked, also=(AUTO, NONE))}, bundle.label_space, is_asked=True)
    shipped = {name: LabelPriorFile.load(name) for name in SHIPPED}
    num_labels = len(bundle.label_space)
    fitting = {name: prior for name, prior in shipped.items() if len(prior.columns(bundle.label_space)) == num_labels > 1}
    own, why = _own(bundle)
    return replace(_priors(own | fitting, bundle.label_space), out_of_reach=why)


def _priors(files: Mapping[str, LabelPriorFile], label_space: LabelSpace, *, is_asked: bool = False) -> Priors:
    mixtures = {name: file.over(label_space) for name, file in files.items()}
    return Priors(mixtures, is_asked, {name: file.matching(label_space) for name, file in files.items()})


def _own(bundle: Bundle) -> tuple[dict[str, LabelPriorFile], str]:
    """Return the prior of the run's training label sets, if they are informative; and why they could not be read."""
    try:
        fingerprint = bundle.facts.get("dataset_fingerprint")
        data = DataSpec.parse(bundle.facts["run"]["data"], under="data").at(fingerprint)
        manifest = _train_split(data, fingerprint)
        if isinstance(manifest, str):
            return {}, manifest
        label_sets = _label_sets(manifest)
        fit = fit_prior(*_some(label_sets))
    except (KeyError, TypeError, DataError) as error:
        log.info("no label prior of the run's own label sets: %s", error)
        return {}, ""
    except RayprobError as error:
        return {}, str(error)
    tells = fit.num_components > 1 and len(label_sets.names) > 1
    return ({OWN: LabelPriorFile(label_sets.names, fit.mixture, OWN)} if tells else {}), ""


def _train_split(data: DataSpec, fingerprint: object) -> AnySplit | str:
    """Return the split that the run trained on; or why its dataset, which holdout was cut from, cannot be used."""
    try:
        dataset = data.open()
    except RayprobError as error:
        return str(error)
    if fingerprint not in (dataset.fingerprint, None):
        return f"{dataset.root} contains another dataset than the run trained on"
    return dataset.split(data.train_split)


def _label_sets(manifest: AnySplit) -> LabelSets:
    known_NL = manifest.known()
    return LabelSets(manifest.label_space.names, manifest.targets() & known_NL, None if known_NL.all() else known_NL)


def _some(label_sets: LabelSets) -> tuple[Bools, Bools | None]:
    """Return the targets and known labels of OWN_AT_MOST label sets, drawn at random if there are more."""
    if len(label_sets) <= OWN_AT_MOST:
        return label_sets.targets_NL, label_sets.known_NL
    rows = np.sort(np.random.default_rng(derive(0, "own prior")).choice(len(label_sets), OWN_AT_MOST, replace=False))
    return label_sets.targets_NL[rows], None if label_sets.known_NL is None else label_sets.known_NL[rows]


def _short(asked: str) -> str:
    return asked if asked in SHIPPED else asked.rstrip("/").rpartition("/")[2]
