"""The wording of a comparison of systems."""

from rayprob.systems.table import SystemNumber, better

BETTER, WORSE = "+", "-"
OF_RUN_FILES = "Each system is trained by its own run file: a difference may come from the recipe as well as from the method."
LEGEND = (
    "+ and -: better or worse than {first} by more than chance, p <= .05 adjusted for all systems; {draws:,} draws of images "
    "and of seeds. NLL and ECE: lower is better"
)
CAUTION = (
    "Systems are compared under this recipe, at learning rates that holdout chose from the same list for each. It says nothing "
    "of recipes that were tuned for one system alone."
)


def mark(name: str, cell: SystemNumber) -> str:
    """Return + or - for a difference from the first system that is more than chance, else ""."""
    if not cell.is_clear:
        return ""
    return BETTER if better(name, cell) else WORSE
