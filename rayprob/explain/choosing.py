"""Which method explains a classifier: the one asked for, or the first that can."""

from collections.abc import Sequence

from rayprob.errors import QueryError
from rayprob.explain import methods
from rayprob.explain.explainer import EXPLAINERS
from rayprob.models.classifier import Classifier
from rayprob.registry import unknown

AUTO, ATTENTION = "auto", "attention"
PREFERRED = ("contributions", ATTENTION, "gradcam")  # for `auto`: exact, then the head's own attention, then any head

assert methods.__path__  # its modules have filled EXPLAINERS


def choose_method(classifiers: Sequence[Classifier], method: str = AUTO) -> str:
    """Return the name of the method for all of the classifiers.

    Raises QueryError for an unknown method, and for one that cannot explain a classifier, with those that can.
    """
    if method != AUTO and method not in EXPLAINERS:
        raise QueryError(unknown(method, [AUTO, *EXPLAINERS], "explanation method"))
    possible = [name for name in PREFERRED if not _why_not(classifiers, name)]
    possible += [name for name in EXPLAINERS if name not in PREFERRED and not _why_not(classifiers, name)]
    if not all(one.head.explains_by_attention for one in classifiers):
        possible.sort(key=lambda name: name == ATTENTION)  # last
    if method == AUTO and possible:
        return possible[0]
    if method in possible:
        return method
    which = f"possible: {', '.join(possible)}" if possible else "no method can map it"
    asked = PREFERRED[-1] if method == AUTO else method
    raise QueryError(f"cannot map where a label is seen: {asked} {_why_not(classifiers, asked)}; {which}")


def _why_not(classifiers: Sequence[Classifier], name: str) -> str:
    """Return the first reason why the method cannot explain one of the classifiers; "" if it can explain all."""
    return next(filter(None, (EXPLAINERS[name]().why_not(classifier) for classifier in classifiers)), "")
