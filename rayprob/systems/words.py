"""The wording of a comparison of systems."""

from rayprob.systems.table import SystemNumber, better

BETTER, WORSE = "+", "-"
OF_RUN_FILES = "Each system is trained by its own run file: a difference may come from the recipe as well as from the method."
LEGEND = (
    "+ and -: better or worse than {first} by more than chance of images and seeds, p <= .05 adjusted for all systems; "
    "{draws:,} draws of images. NLL and ECE: lower is better"
)
CAUTION = (
    "All systems are trained by one recipe, each at the learning rate that holdout chose from the same list. A recipe that is "
    "tuned for one system alone may rank them otherwise."
)


def mark(name: str, cell: SystemNumber) -> str:
    """Return + or - for a difference from the first system that is more than chance, else ""."""
    if not cell.is_clear:
        return ""
    return BETTER if better(name, cell) else WORSE
