"""The label prior that a head starts from, over the labels of the dataset. K components, L labels."""

from rayprob.errors import SpecError
from rayprob.labels import LabelSpace
from rayprob.models.heads import HeadSpec
from rayprob.models.heads.mixture import MixtureSpec
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import LabelPriorFile


def prior_mixture(head: HeadSpec, label_space: LabelSpace) -> LabelMixture | None:
    """Return the mixture of `head.prior` over a label space, matched by name; None for a head without a prior.

    Raises ModelError or StorageError for a prior that cannot be read, LabelError for one that knows fewer than two of the
    labels, SpecError if its number of components differs from the head's.
    """
    if not isinstance(head, MixtureSpec) or head.prior is None:
        return None
    mixture = LabelPriorFile.load(head.prior).over(label_space)
    found = len(mixture.mixing_weights_K)
    if head.components != found:
        raise SpecError(
            f"head.components is {head.components}, but the label prior {head.prior} has {found}; "
            f"set head.components to {found}, or leave it out"
        )
    return mixture
