"""The gain of the joint head: a mixture against independent labels, both refitted the same way on the same frozen features.

    python benchmarks/joint_model.py RUN... [--seeds 3] [--components 8 16 32] [--lrs 0.03 0.1] [--set KEY=VALUE]...

For each run folder and seed, a Bernoulli head (the control) and mixtures are refitted on the run's training features and judged
on val, which chooses nothing: mAP, NLL per image in nats, and effects of evidence. Each head has the learning rate of `--lrs`
with the lowest holdout NLL (of seed 0), because a control that has not converged would favour the mixture. A mixture also has
better marginals, being no longer linear in the features; so a second control is the product of its own marginals, whose mAP is
exactly the mixture's: the mixture's gain over it comes from label co-occurrence.

Evidence is the truth about 1, 2, 3 labels of each image, the same for all heads: `half` reveals present labels and absent ones
in equal parts as far as an image has them, `present` only present ones. Judged are all other labels: mean AP and NLL per image.
Last comes the reliability of answers: P(a & b) on all images, and P(a | b) on the images where b holds, against the observed
frequency, for the last seed. All other tables give the mean over seeds +- the standard deviation between them.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayprob.config.spec import override
from rayprob.labels import LabelSpace
from rayprob.metrics.ranking import average_precision
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.families import from_outputs
from rayprob.probability.queries.answer import parse, probabilities
from rayprob.runs.finished import open_bundle
from rayprob.runs.folder import open_run
from rayprob.runs.predictions import Predictions
from rayprob.train.features import Features, FeatureSource, split_features
from rayprob.train.fitting import predictions_of
from rayprob.train.refit import RefitSpec, refit

Bools = NDArray[np.bool_]
Answers = tuple[NDArray[np.float64], Bools]
EDGES = (0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1)
NUM_PAIRS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--components", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--lrs", type=float, nargs="+", default=[0.003, 0.01, 0.03, 0.1])
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="of RefitSpec, for every head")
    options = parser.parse_args()
    heads: dict[str, dict[str, Any]] = {"independent": {"name": "bernoulli"}}
    heads |= {f"mixture {k}": {"name": "mixture", "components": k} for k in options.components}
    for run in options.runs:
        compare(run, heads, options.seeds, options.lrs, options.overrides)


def compare(folder: str, heads: dict[str, dict[str, Any]], num_seeds: int, lrs: list[float], overrides: list[str]) -> None:
    """Print the tables of one run."""
    source = FeatureSource.open(open_run(folder), open_bundle(folder))
    splits = {name: split_features(source, name, lambda event: None) for name in ("train", "holdout", "val")}
    val, labels = splits["val"], source.bundle.label_space
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    num_features = val.features_NF.shape[1]
    print(f"\n=== {folder}: {len(labels)} labels, {num_features} features; {sizes} images; {num_seeds} seeds; {overrides}")
    show(
        "the run's own head", [headline(distribution_of(predictions_of(source.bundle.classifier, val, labels, {})), truth(val))]
    )
    pairs = draw_pairs(truth(splits["train"]))
    results: dict[str, list[dict[str, float]]] = {}
    answers: dict[str, dict[str, Answers]] = {}
    for name, head in heads.items():
        base = {
            "head": head,
            "optimizer": {**RefitSpec().optimizer.model_dump(), "lr": chosen_lr(folder, head, lrs, overrides)},
        }
        product = f"product of the marginals of {name}"
        for seed in range(num_seeds):
            distribution, facts = refitted(folder, {**base, "seed": seed}, overrides, val, labels)
            results.setdefault(name, []).append(judged(distribution, val, seed) | facts)
            if head["name"] == "mixture":
                alone = from_outputs("bernoulli", {"logits": distribution.marginal_logits()})
                results.setdefault(product, []).append(judged(alone, val, seed))
        answers[name] = asked(distribution, pairs, val, labels)
        show(name, results[name])
        if product in results:
            show_gain(name, product, results)
            show_gain(name, "independent", results)
    for kind in answers[name]:
        show_reliability(kind, {name: of_head[kind] for name, of_head in answers.items()})


def chosen_lr(folder: str, head: dict[str, Any], lrs: list[float], overrides: list[str]) -> float:
    """Return the learning rate with which seed 0 has the lowest NLL on holdout."""
    nll = {}
    for lr in lrs:
        with tempfile.TemporaryDirectory() as scratch:
            spec = RefitSpec.parse(override({"head": head}, [*overrides, f"optimizer.lr={lr}"]))
            nll[lr] = refit(folder, spec, folder=f"{scratch}/run").best["nll_nats"]
    best = min(nll, key=lambda lr: nll[lr])
    print(
        f"\n{head}: holdout NLL " + ", ".join(f"{value:.4f} at lr {lr}" for lr, value in nll.items()) + f"; chosen: lr {best}"
    )
    return best


def refitted(
    folder: str, changes: dict[str, Any], overrides: list[str], val: Features, labels: LabelSpace
) -> tuple[LabelDistribution, dict[str, float]]:
    """Refit a head as `rayprob refit` does; return its distributions of val, its best epoch and its components in use."""
    spec = RefitSpec.parse(override(changes, overrides))
    with tempfile.TemporaryDirectory() as scratch:
        new = refit(folder, spec, folder=f"{scratch}/run")
        predictions = predictions_of(open_bundle(new.folder).classifier, val, labels, {})
    facts = {"best epoch": spec.epochs * new.best["step"] / new.total_steps}
    if "components_in_use" in new.best:
        facts["in use"] = new.best["components_in_use"]
    return distribution_of(predictions), facts


def judged(distribution: LabelDistribution, val: Features, seed: int) -> dict[str, float]:
    """Return all numbers of one head and seed."""
    return headline(distribution, truth(val)) | with_evidence(distribution, val, seed)


def distribution_of(predictions: Predictions) -> LabelDistribution:
    return from_outputs(predictions.family, predictions.outputs)


def truth(split: Features) -> Bools:
    return np.asarray(split.targets_NL.numpy())


def headline(distribution: LabelDistribution, targets_NL: Bools) -> dict[str, float]:
    """Return mAP and NLL per image without evidence."""
    ap_L = average_precision(distribution.marginal_logits(), targets_NL, np.ones_like(targets_NL))
    return {"mAP": float(np.nanmean(ap_L)), "NLL": float(-distribution.log_prob(targets_NL).mean())}


# ---- evidence


def with_evidence(distribution: LabelDistribution, val: Features, seed: int) -> dict[str, float]:
    """Return mAP and NLL of the labels that are not revealed, once those that are revealed are known."""
    targets_NL, numbers = truth(val), {}
    for how, present_share in (("half", 0.5), ("present", 1.0)):
        for num_known in (1, 2, 3):
            known_NL = reveal(targets_NL, num_known, present_share, np.random.default_rng([seed, num_known]))
            after = distribution.condition(Evidence(targets_NL, known_NL))
            scores_NL = np.where(known_NL, 0, after.marginal_logits())
            ap_L = average_precision(scores_NL, targets_NL, ~known_NL)
            numbers[f"AP|{num_known} {how}"] = float(np.nanmean(ap_L))
            numbers[f"NLL|{num_known} {how}"] = float(-after.log_prob(targets_NL, ~known_NL).mean())
    return numbers


def reveal(targets_NL: Bools, num_known: int, present_share: float, random: np.random.Generator) -> Bools:
    """Return which labels are revealed [N, L]: at most `num_known`, `present_share` of them present, randomly rounded."""
    wanted = num_known * present_share
    num_present_N = np.floor(wanted) + (random.random(len(targets_NL)) < wanted % 1)
    places_NL = random.random(targets_NL.shape)
    present_NL = _first(np.where(targets_NL, places_NL, np.inf), num_present_N)
    absent_NL = _first(np.where(targets_NL, np.inf, places_NL), (num_known - num_present_N) * (present_share < 1))
    return np.asarray(present_NL | absent_NL)


def _first(places_NL: NDArray[Any], count_N: NDArray[Any]) -> Bools:
    rank_NL = places_NL.argsort(axis=1).argsort(axis=1)
    return np.asarray((rank_NL < count_N[:, None]) & np.isfinite(places_NL))


# ---- reliability of answers


def draw_pairs(targets_NL: Bools) -> list[tuple[int, int]]:
    """Return distinct ordered pairs of labels, drawn as two labels that share a random training image."""
    random = np.random.default_rng(0)
    several_M = np.flatnonzero(targets_NL.sum(axis=1) >= 2)
    drawn = (
        random.choice(np.flatnonzero(targets_NL[random.choice(several_M)]), 2, replace=False) for _ in range(20 * NUM_PAIRS)
    )
    return list(dict.fromkeys((int(a), int(b)) for a, b in drawn))[:NUM_PAIRS]


def asked(
    distribution: LabelDistribution, pairs: list[tuple[int, int]], val: Features, labels: LabelSpace
) -> dict[str, Answers]:
    """Return (answers, outcomes): of P(a & b) on all images, and of P(a | b) on those where b holds."""
    first_NQ, second_NQ = (truth(val)[:, list(columns)] for columns in zip(*pairs, strict=True))
    names = [(labels.names[a], labels.names[b]) for a, b in pairs]
    both = probabilities([parse(f"P({a} & {b})", labels) for a, b in names], distribution).T
    given = probabilities([parse(f"P({a} | {b})", labels) for a, b in names], distribution).T
    return {
        "P(a & b)": (both.ravel(), (first_NQ & second_NQ).ravel()),
        "P(a | b) where b": (given[second_NQ], first_NQ[second_NQ]),
    }


# ---- tables


def show(name: str, numbers: list[dict[str, float]]) -> None:
    values = {key: np.array([of_seed[key] for of_seed in numbers]) for key in numbers[0]}
    print(f"\n{name}", flush=True)
    for keys in _lines(list(values)):
        print(
            "  "
            + "   ".join(
                f"{key} {values[key].mean():.4f} +-{values[key].std(ddof=min(1, len(numbers) - 1)):.4f}" for key in keys
            )
        )


def show_gain(name: str, control: str, results: dict[str, list[dict[str, float]]]) -> None:
    """Print one head minus another, seed by seed with the same evidence."""
    pairs = zip(results[name], results[control], strict=True)
    keys = [key for key in results[control][0] if key != "best epoch"]
    show(f"{name} minus {control}", [{key: a[key] - b[key] for key in keys} for a, b in pairs])


def _lines(keys: list[str]) -> Iterator[list[str]]:
    belongs: dict[str, Callable[[str], bool]] = {
        "without": lambda key: "|" not in key,
        "AP half": lambda key: key.startswith("AP|") and key.endswith("half"),
        "AP present": lambda key: key.startswith("AP|") and key.endswith("present"),
        "NLL half": lambda key: key.startswith("NLL|") and key.endswith("half"),
        "NLL present": lambda key: key.startswith("NLL|") and key.endswith("present"),
    }
    yield from (line for line in ([key for key in keys if is_in(key)] for is_in in belongs.values()) if line)


def show_reliability(kind: str, answers: dict[str, Answers]) -> None:
    """Print mean answer and observed frequency per bin (of the last seed), with ECE over the bins and log loss."""
    print(f"\nreliability of {kind}, {NUM_PAIRS} pairs of labels: mean answer -> observed frequency (answers in the bin)")
    columns = {name: reliability(*of_head) for name, of_head in answers.items()}
    print(f"{'bin':>12}" + "".join(f"{name:>30}" for name in columns))
    for place in range(len(EDGES) - 1):
        cells = [f"{mean[place]:.3f} -> {seen[place]:.3f} ({count[place]:,})" for mean, seen, count in columns.values()]
        print(f"{EDGES[place]:>5}..{EDGES[place + 1]:<5}" + "".join(f"{cell:>30}" for cell in cells))
    for name, (mean, seen, count) in columns.items():
        answer, is_so = answers[name]
        ece = float(np.nansum(count * abs(mean - seen)) / count.sum())
        clipped = np.clip(answer, 1e-9, 1 - 1e-9)
        log_loss = -np.mean(np.where(is_so, np.log(clipped), np.log1p(-clipped)))
        print(
            f"  {name}: ECE {ece:.4f}, Brier {np.mean((answer - is_so) ** 2):.5f}, log loss {log_loss:.5f}, "
            f"mean answer {answer.mean():.4f}, truth {is_so.mean():.4f}"
        )


def reliability(answer: NDArray[np.float64], is_so: Bools) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Return mean answer, observed frequency and count of each bin."""
    bins = np.digitize(answer, EDGES[1:-1])
    count = np.bincount(bins, minlength=len(EDGES) - 1)
    with np.errstate(invalid="ignore"):
        return (*(np.bincount(bins, values, len(EDGES) - 1) / count for values in (answer, is_so)), count)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
