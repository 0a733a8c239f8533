"""The gain of a label prior for a finished run, with 95 % intervals over images, and the effect of a wrong prior.

    python benchmarks/label_prior.py RUN [--priors coco auto] [--components 50 100 200] [--wrong] [--draws 1000]

RUN has predictions of holdout and val (`rayprob evaluate RUN`); it is not changed. Each prior is added to the bundle as by
`rayprob calibrate RUN --prior ...`, which chooses the calibrator's scale and the strength on holdout alone; val is only
evaluated. `independent labels` is --prior none. --components fits mixtures of that many components to the 82,081 label sets of
COCO train2014 (../shared/labels), without those of the run's own images. --wrong adds priors of other things by the right
names: COCO's with the run's labels permuted, and that of 20 kinds of tableware and food under the names of the run's first 20
labels.

Tables: NLL per image, mAP, AP of an image's other labels given 0 to 3 present ones, ECE, OF1 and CF1 at 0.5. Each row has the
value, its interval, and the gain over the independent labels with the paired interval (percentile bootstrap over val's images).
Last the guarantees: the missed share on val under the bundle's own thresholds, which holdout's few images chose, and its mean
over 200 random halves of val, the threshold being chosen on the other half; `size` is the number of labels in a set.

The runs in the documentation: `tune_configs/coco-sample.yaml`; `make demo`; `tune_configs/voc-sample.yaml`, with a holdout of
0.16 rather than 0.15 of the train images; and 80-label scenes, by

    rayprob scenes scenes80 --train 3000 --val 1500 --labels 80 --seed 7
    rayprob shard RECIPE            # with holdout: {of: train, fraction: 0.1}, max_shard_samples: 125
    rayprob train tune_configs/coco-sample.yaml --set name=scenes80 --set data.root=shards/scenes80 --set duration.epochs=6 \\
      --set evaluation.every.epochs=6 --set transforms.train.size_px=160 --set transforms.evaluate.size_px=192
    rayprob evaluate runs/scenes80
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayprob.calibrate.crossfit import NONE, CalibrateSpec
from rayprob.calibrate.fitting import fit_run
from rayprob.files import storage
from rayprob.labels import COCO_80, LabelSpace, from_label_lists
from rayprob.metrics.bootstrap import Resampled, bootstrap
from rayprob.metrics.drawn import calibration_error_of, count_metric_of, mean_average_precision_of, mean_of
from rayprob.probability.decisions.conformal import fit_risk_control, mean_missed_share
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.mixture import LabelMixture, fit_label_mixture
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.runs.bundle import Bundle
from rayprob.runs.predictions import Predictions
from rayprob.train.other_labels import GIVEN, ap_of_others

SHARED = Path(__file__).resolve().parents[2] / "shared"
LABELS = SHARED / "labels" / "coco_train2014_labels.parquet"
KITCHEN = slice(COCO_80.column("bottle"), COCO_80.column("bottle") + 20)  # to cake
INDEPENDENT = "independent labels"
HALVES = 200


@dataclass(frozen=True)
class Variant:
    """A calibrated bundle, and its answers on val."""

    name: str
    bundle: Bundle
    distribution: LabelDistribution
    marginals_NL: NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--priors", nargs="*", default=["coco", "auto"])
    parser.add_argument("--components", type=int, nargs="*", default=[50, 100, 200])
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    holdout, val = (
        Predictions.read(storage.join(options.run, "predictions", f"{split}.parquet")) for split in ("holdout", "val")
    )
    with tempfile.TemporaryDirectory() as scratch:
        names = [NONE, *options.priors]
        own_ids = np.concatenate([holdout.sample_ids_N, val.sample_ids_N])
        names += [fitted_to_coco(k, own_ids, scratch) for k in options.components]
        names += wrong_priors(val.label_space, scratch) if options.wrong else []
        variants = [variant_of(options.run, name, val) for name in names]
    print(f"\n{options.run}: {len(val)} val images, {len(holdout)} holdout images; {options.draws} draws")
    for metric, statistic in METRICS.items():
        show(metric, {one.name: statistic(one, val, options.draws) for one in variants})
    show_guarantees(variants, val)


def variant_of(run: str, prior: str, val: Predictions) -> Variant:
    """Calibrate like the command, and print its notes on the prior."""
    bundle, report = fit_run(run, CalibrateSpec(prior=prior))
    name = INDEPENDENT if prior == NONE else Path(prior).name.removesuffix(".safetensors")
    print(f"{name}: {report.method}", *(note for note in report.notes if "prior" in note), sep="\n  ", flush=True)
    distribution = bundle.distribution(val.outputs)
    return Variant(name, bundle, distribution, distribution.marginals())


# ---- priors


def fitted_to_coco(num_components: int, own_ids: NDArray[np.int64], folder: str) -> str:
    """Write the prior of COCO's label sets without some images, and return its path."""
    table = pq.read_table(LABELS)
    is_other_N = ~np.isin(table["image_id"].to_numpy(), own_ids)
    targets_NL = from_label_lists(table["labels"].to_pylist(), len(COCO_80))[is_other_N]
    print(f"K = {num_components}: fitted to {len(targets_NL):,} label sets", flush=True)
    prior = LabelPriorFile(COCO_80.names, fit_label_mixture(targets_NL, num_components=num_components, seed=0), "COCO")
    return saved(prior, folder, f"COCO, K = {num_components}")


def wrong_priors(label_space: LabelSpace, folder: str) -> Iterator[str]:
    """Write a prior with permuted labels and one of another domain, and yield their paths."""
    coco = LabelPriorFile.load("coco")
    names = np.random.default_rng(0).permutation(label_space.names)
    yield saved(LabelPriorFile(tuple(map(str, names)), coco.over(label_space), "permuted"), folder, "permuted")
    weights_K, p_KL = coco.mixture.mixing_weights_K, coco.mixture.probabilities_KL
    kitchen = LabelMixture(weights_K, p_KL[:, KITCHEN])
    yield saved(LabelPriorFile(label_space.names[: p_KL[:, KITCHEN].shape[1]], kitchen, "COCO"), folder, "kitchen, renamed")


def saved(prior: LabelPriorFile, folder: str, name: str) -> str:
    path = f"{folder}/{name}.safetensors"
    prior.save(path)
    return path


# ---- metrics


def nll(one: Variant, val: Predictions, draws: int) -> Resampled:
    return bootstrap(mean_of(-one.distribution.log_prob(val.targets_NL, val.known_NL)), len(val), draws=draws)


def mean_ap(one: Variant, val: Predictions, draws: int) -> Resampled:
    statistic = mean_average_precision_of(one.distribution.ranking_scores(), val.targets_NL, val.known_NL)
    return bootstrap(statistic, len(val), draws=draws)


def others(num_given: int) -> Callable[[Variant, Predictions, int], Resampled]:
    def statistic(one: Variant, val: Predictions, draws: int) -> Resampled:
        return bootstrap(
            mean_of(ap_of_others(one.distribution, val.targets_NL, val.known_NL, num_given)), len(val), draws=draws
        )

    return statistic


def ece(one: Variant, val: Predictions, draws: int) -> Resampled:
    return bootstrap(calibration_error_of(one.marginals_NL, val.targets_NL, val.known_NL), len(val), draws=draws)


def at_half(metric: str) -> Callable[[Variant, Predictions, int], Resampled]:
    def statistic(one: Variant, val: Predictions, draws: int) -> Resampled:
        return bootstrap(count_metric_of(metric, one.marginals_NL >= 0.5, val.targets_NL, val.known_NL), len(val), draws=draws)

    return statistic


METRICS: dict[str, Callable[[Variant, Predictions, int], Resampled]] = {
    "NLL, nats per image": nll,
    "mAP": mean_ap,
    **{f"AP of an image's other labels, {m} given": others(m) for m in GIVEN},
    "ECE": ece,
    "OF1 at 0.5": at_half("OF1"),
    "CF1 at 0.5": at_half("CF1"),
}


def show(metric: str, by_name: dict[str, Resampled], control: str = INDEPENDENT) -> None:
    print(f"\n{metric:44} {'value':>8}  {'95 % interval':18} gain over {control}")
    for name, resampled in by_name.items():
        at, gain = resampled.interval(), (resampled - by_name[control]).interval()
        gained = f"{gain.value:+.4f}  {gain.low:+.4f} to {gain.high:+.4f}" if name != control else ""
        print(f"  {name:42} {at.value:8.4f}  {at.low:.4f} to {at.high:.4f}   {gained}", flush=True)


# ---- guarantees


def show_guarantees(variants: list[Variant], val: Predictions) -> None:
    print(f"\n{'guarantee':32} {'alpha':>6} {'missed on val':>14} {'size':>6} {'missed, halves':>15} {'size':>6}")
    for one in variants:
        for alpha, control in one.bundle.guarantees.items():
            sets_NL = one.marginals_NL >= control.threshold
            missed, size = mean_missed_share(sets_NL, val.targets_NL, val.known_NL), sets_NL.sum(axis=1).mean()
            half_missed, half_size = in_halves(one, val, control.alpha)
            print(f"  {one.name:30} {alpha:>6} {missed:14.4f} {size:6.1f} {half_missed:15.4f} {half_size:6.1f}", flush=True)


def in_halves(one: Variant, val: Predictions, alpha: float) -> tuple[float, float]:
    """Return the mean missed share and set size on one half of val, by the threshold that the other half chooses."""
    random, found = np.random.default_rng(0), []
    for _ in range(HALVES):
        fit, judged = np.array_split(random.permutation(len(val)), 2)
        control = fit_risk_control(one.marginals_NL[fit], val.targets_NL[fit], val.known_NL[fit], alpha)
        sets_NL = one.marginals_NL[judged] >= control.threshold
        missed = mean_missed_share(sets_NL, val.targets_NL[judged], val.known_NL[judged])
        found.append((missed, sets_NL.sum(axis=1).mean()))
    missed, size = np.mean(found, axis=0)
    return float(missed), float(size)


if __name__ == "__main__":
    main()
