"""Images that cannot become samples: how many a recipe allows, and which ones a build names."""

import logging
from collections.abc import Sequence

from rayprob.data.building.before import Before
from rayprob.data.building.list_files import ATTEMPTS, REJECTS_FILE, write_list
from rayprob.data.building.recipe import Recipe
from rayprob.data.sources.join_files import Reject
from rayprob.errors import SourceError
from rayprob.text import counted

log = logging.getLogger(__name__)


def check_rejects(recipe: Recipe, rejected: Sequence[Reject], before: Before | None = None) -> None:
    """Raise SourceError that names the first rejects and the list of all, where they are more than the recipe allows.

    The list of a dataset that would have grown, `before`, stays as it is.
    """
    if len(rejected) <= recipe.allow_rejects:
        return
    listed = write_list(recipe.root, ATTEMPTS[REJECTS_FILE] if before else REJECTS_FILE, map(vars, rejected))
    raise SourceError(
        f"{counted(len(rejected), 'image')} cannot become samples and allow_rejects is {recipe.allow_rejects:,}: "
        f"{_first_reasons(rejected)}; all of them: {listed}; repair them, or set allow_rejects, and run the same command again"
    )


def tell_rejected(recipe: Recipe, before: Before, rejected: Sequence[Reject]) -> None:
    """Log and list the rejects that the dataset does not list, of a build that adds nothing to it."""
    known = {reject.sample_id for reject in before.rejects}
    if new := [reject for reject in rejected if reject.sample_id not in known]:
        listed = write_list(recipe.root, ATTEMPTS[REJECTS_FILE], map(vars, new))
        what = counted(len(new), "new image")
        log.warning("%s cannot become samples: %s; all of them: %s", what, _first_reasons(new), listed)


def _first_reasons(rejected: Sequence[Reject]) -> str:
    return "; ".join(f"{reject.file_name} {reject.reason}" for reject in rejected[:3])
