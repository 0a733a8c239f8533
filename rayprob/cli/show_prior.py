"""The output of `prior`."""

from rich.console import Console

from rayprob.calibrate.make_prior import MadePrior
from rayprob.cli.table import Table, show_table
from rayprob.cli.terminal import show_line
from rayprob.text import counted

MOST_SCENES = 10


def show_prior(console: Console, made: MadePrior) -> None:
    """Print the held-out likelihood of each number of components, the largest components, and the next command."""
    prior, fit = made.prior, made.fit
    show_line(console, f"{fit.num_samples:,} label sets of {len(prior.names):,} labels from {prior.source}")
    show_table(console, _nats_table(made))
    show_table(console, _scenes_table(made))
    show_line(console, f"written: {made.path}: {counted(fit.num_components, 'component')}")
    show_line(console, f"next: rayprob calibrate RUN --prior {made.path}")


def _nats_table(made: MadePrior) -> Table:
    fit = made.fit
    table = Table("held-out label sets", caption="nats: negative log-likelihood per label set; lower is better")
    table.name()
    table.number("nats", "gain")
    rows = {"independent labels": fit.independent_nats}
    rows |= {} if fit.chow_liu_nats is None else {"Chow-Liu tree": fit.chow_liu_nats}
    rows |= {f"{k} components": nats for k, nats in fit.nats_by_components.items() if k > 1}
    for name, nats in rows.items():
        is_best = name == f"{fit.num_components} components"
        table.row(name, f"{nats:.3f}", f"{fit.independent_nats - nats:.3f}", style="bold" if is_best else "")
    return table


def _scenes_table(made: MadePrior) -> Table:
    weights_K = made.prior.mixture.mixing_weights_K
    order = weights_K.argsort()[::-1][:MOST_SCENES]
    table = Table(f"largest of {counted(len(weights_K), 'component')}, by their typical labels")
    table.number("weight")
    table.prose()
    scenes = made.prior.scenes
    for component in order:
        table.row(f"{weights_K[component]:.3f}", scenes[component])
    return table
