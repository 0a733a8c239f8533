"""Alternatives to a single strength for applying a label prior to a classifier; fitted on holdout, evaluated on val.

    python benchmarks/label_prior_variants.py RUN [--prior coco] [--draws 1000]

RUN has predictions of holdout and val. The classifier's logits are not changed. N images, L labels, K components; with
S_NL the strength over an image and label, component k has the logits u_NL + S_NL odds_KL:

    one strength        S = s, as in `rayprob calibrate`; s ~ Normal(0, 0.5^2) in both
    by certainty        S = s exp(b z_n), z_n the standardised log entropy of the image's labels; b ~ Normal(0, 0.5^2)
    by prevalence       S = s exp(b z_l), z_l the standardised log odds of the label in the prior; b ~ Normal(0, 0.5^2)
    per-label strength  S = s + d_l, d_l ~ Normal(0, tau^2)
    T Chow-Liu trees    sum over T trees of weight * (tree / product of the prior's marginals)^s in place of the mixture,
                        fitted to COCO's label sets (../shared/labels); for runs with COCO's 80 labels (see trees.py)

Every row has its gain over one strength with the paired 95 % interval over val's images.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import scipy.optimize
import torch
from torch import Tensor
from trees import MixtureOfTrees

from rayprob.arrays import Bools, Floats
from rayprob.files import storage
from rayprob.labels import COCO_80, from_label_lists
from rayprob.metrics.bootstrap import Resampled, bootstrap
from rayprob.metrics.drawn import mean_average_precision_of, mean_of
from rayprob.probability.distributions.bernoulli import entropy_of_logits
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.probability.priors.prior import LabelPrior
from rayprob.runs.predictions import Predictions

Judged = tuple[Floats, Floats]  # negative log-likelihood [N], scores to rank labels by [N, L]

LABELS = Path(__file__).resolve().parents[2] / "shared" / "labels" / "coco_train2014_labels.parquet"
STRENGTH_SD, SLOPE_SD, MOST = 0.5, 0.5, 2.0
TREES = (1, 3, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--prior", default="coco")
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    tables = (storage.join(options.run, "predictions", f"{split}.parquet") for split in ("holdout", "val"))
    holdout, val = map(Predictions.read, tables)
    mixture = LabelPriorFile.load(options.prior).over(val.label_space)
    print(f"{options.run}: fitted on {len(holdout)} holdout images, judged on {len(val)} val images; prior {options.prior}")
    base = Resampling.of(judged_by(mixture, np.zeros((1, 1)), val), val, options.draws)
    one = None
    for name, variant in variants(mixture, holdout, val).items():
        said, judged = variant()
        found = Resampling.of(judged, val, options.draws)
        if one is None:
            one = found
            show("independent labels", "", base, one)
        show(name, said, found, one)


@dataclass(frozen=True)
class Resampling:
    """NLL per image and mAP, of all of val and of draws of its images."""

    nll: Resampled
    mean_ap: Resampled

    @classmethod
    def of(cls, judged: Judged, val: Predictions, draws: int) -> "Resampling":
        ranked = mean_average_precision_of(judged[1], val.targets_NL, val.known_NL)
        return cls(bootstrap(mean_of(judged[0]), len(val), draws=draws), bootstrap(ranked, len(val), draws=draws))


def show(name: str, said: str, found: Resampling, one: Resampling) -> None:
    cells = []
    for mine, other in ((found.nll, one.nll), (found.mean_ap, one.mean_ap)):
        gain = (mine - other).interval()
        cells.append(f"{mine.value:.4f} ({gain.value:+.4f}, {gain.low:+.4f} to {gain.high:+.4f})")
    print(f"  {name:24} NLL {cells[0]}   mAP {cells[1]}   {said}", flush=True)


def variants(mixture: LabelMixture, holdout: Predictions, val: Predictions) -> dict[str, Callable[[], tuple[str, Judged]]]:
    """Return for each variant a function that fits it, describes its parameters and evaluates it on val."""
    z_N = [np.log(entropy_of_logits(logits(split)).sum(axis=1, keepdims=True) + 1e-3) for split in (holdout, val)]
    certainty = [torch.from_numpy((z - z_N[0].mean()) / z_N[0].std()) for z in z_N]
    odds_L = np.log(mixture.marginals_L) - np.log1p(-mixture.marginals_L)
    prevalence = torch.from_numpy((odds_L - odds_L.mean()) / odds_L.std())
    num_labels = len(odds_L)

    def fitted(strength: Callable[[Tensor, int], Tensor], sds: list[float]) -> Callable[[], tuple[str, Judged]]:
        return lambda: fit_and_judge(mixture, holdout, val, strength, np.array(sds))

    found = {
        "one strength": fitted(lambda p, _: p[0].reshape(1, 1), [STRENGTH_SD]),
        "by certainty": fitted(lambda p, split: p[0] * torch.exp(p[1] * certainty[split]), [STRENGTH_SD, SLOPE_SD]),
        "by prevalence": fitted(lambda p, _: (p[0] * torch.exp(p[1] * prevalence))[None], [STRENGTH_SD, SLOPE_SD]),
        **{
            f"per-label strength, {tau}": fitted(lambda p, _: (p[0] + p[1:])[None], [STRENGTH_SD] + [tau] * num_labels)
            for tau in (0.1, 0.25)
        },
    }
    if val.label_space.names == COCO_80.names and LABELS.exists():
        sets_NL = others_label_sets(holdout, val)
        found |= {f"Chow-Liu trees: {number}": partial(fit_and_judge_trees, sets_NL, number, holdout, val) for number in TREES}
    return found


# ---- trees


def others_label_sets(*own: Predictions) -> Bools:
    """Return COCO's label sets of images in none of the tables."""
    table = pq.read_table(LABELS)
    is_other_N = ~np.isin(table["image_id"].to_numpy(), np.concatenate([split.sample_ids_N for split in own]))
    return from_label_lists(table["labels"].to_pylist(), len(COCO_80))[is_other_N]


def fit_and_judge_trees(sets_NL: Bools, number: int, holdout: Predictions, val: Predictions) -> tuple[str, Judged]:
    trees = MixtureOfTrees.fit(sets_NL, number)

    def nll_of(s: float, split: Predictions) -> Floats:
        return trees.over(logits(split), s).nll(split.targets_NL, split.known_NL)

    def energy(s: float) -> float:
        return float(nll_of(s, holdout).sum()) + 0.5 * (s / STRENGTH_SD) ** 2

    s = float(scipy.optimize.minimize_scalar(energy, bounds=(0, MOST), method="bounded", options={"xatol": 0.01}).x)
    return f"s {s:.2f}", (nll_of(s, val), trees.over(logits(val), s).log_odds())


# ---- mixtures with a strength over each image and label


def fit_and_judge(
    mixture: LabelMixture,
    holdout: Predictions,
    val: Predictions,
    strength: Callable[[Tensor, int], Tensor],
    sds_P: Floats,
) -> tuple[str, Judged]:
    """Fit parameters with normal priors around 0; `strength` makes S_NL of them on holdout (0) and on val (1)."""
    start_P = np.where(np.arange(len(sds_P)) == 0, 0.3, 0.0)

    def energy(values_P: Floats) -> tuple[float, Floats]:
        p = torch.tensor(values_P, requires_grad=True)
        total = nll_and_scores(mixture, strength(p, 0), holdout)[0].sum() + 0.5 * ((p / torch.from_numpy(sds_P)) ** 2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return float(total.detach()), np.asarray(p.grad)

    bounds = [(0.0, MOST)] + [(-1.0, 1.0)] * (len(sds_P) - 1)
    found = scipy.optimize.minimize(energy, start_P, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 60})
    strength_NL = strength(torch.from_numpy(found.x), 1).numpy()
    said = f"s {found.x[0]:.2f}" + (f", others {found.x[1:].min():+.2f} to {found.x[1:].max():+.2f}" if len(sds_P) > 1 else "")
    return said, judged_by(mixture, strength_NL, val)


def judged_by(mixture: LabelMixture, strength_NL: Floats, split: Predictions) -> Judged:
    with torch.no_grad():
        nll_N, scores_NL = nll_and_scores(mixture, torch.from_numpy(strength_NL), split)
    return nll_N.numpy(), scores_NL.numpy()


def nll_and_scores(mixture: LabelMixture, strength_NL: Tensor, split: Predictions) -> tuple[Tensor, Tensor]:
    """Return the negative log-likelihood [N] of the known labels, and log-odds [N, L] of each label."""
    prior, p_KL, p_L = LabelPrior.of(mixture), mixture.probabilities_KL, mixture.marginals_L
    odds_KL = torch.from_numpy(prior.odds_KL)
    absent_KL = torch.from_numpy(np.log1p(-p_KL) - np.log1p(-p_L))
    target_NL, known_NL = (torch.from_numpy(values[:, None]) for values in (split.targets_NL, split.known_NL))
    tilted_NKL = torch.from_numpy(logits(split))[:, None] + strength_NL[:, None] * odds_KL
    base_NKL = strength_NL[:, None] * absent_KL
    all_NKL = base_NKL + torch.nn.functional.softplus(tilted_NKL)
    agree_NKL = torch.where(known_NL, base_NKL + torch.where(target_NL, tilted_NKL, torch.zeros(())), all_NKL)
    log_all_NK, log_agree_NK = (torch.from_numpy(prior.log_mixing_K) + part.sum(dim=2) for part in (all_NKL, agree_NKL))
    nll_N = torch.logsumexp(log_all_NK, dim=1) - torch.logsumexp(log_agree_NK, dim=1)
    weight_NK1 = torch.log_softmax(log_all_NK, dim=1)[:, :, None]
    present_NL, absent_NL = (torch.logsumexp(weight_NK1 + sign.log(), 1) for sign in _present_and_absent(tilted_NKL))
    return nll_N, present_NL - absent_NL


def _present_and_absent(logits_NKL: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(logits_NKL), torch.sigmoid(-logits_NKL)


def logits(split: Predictions) -> Floats:
    return split.outputs["logits"].astype(np.float64)


if __name__ == "__main__":
    main()
