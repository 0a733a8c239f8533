"""The heads of the learning curves: their settings, and how one is trained on features. N images, F features, L labels."""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayprob.labels import LabelSpace
from rayprob.models.head_prior import prior_mixture
from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.heads.bernoulli import BernoulliHead
from rayprob.models.heads.mixture import MixtureHead, MixtureSpec
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.distributions.mixture import fit_label_mixture
from rayprob.runs.schedules import ScheduleSpec, lr_factor
from rayprob.seeds import derive
from rayprob.train.features import Features

BATCH, EPOCHS, LEAST_STEPS, MOST_STEPS, EVALUATIONS = 64, 20, 300, 1000, 20
ITERATIONS = 60  # of L-BFGS
NO_USAGE = LossSpec(name="mixture", usage_weight=0.0)
L2 = (0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Setting:
    """A head, `l2` half the squared weights of which is added to the summed NLL, and how it is trained.

    `takes_over`: it starts from the trained independent head, as `rayprob refit` does.
    """

    head: HeadSpec
    l2: float
    lr: float = 0.0
    takes_over: bool = False


def independent_settings() -> list[Setting]:
    return [Setting(HeadSpec(), l2) for l2 in L2]


def mixture_settings(l2: float) -> list[Setting]:
    """Return settings of mixtures fitted to the training images' label sets."""
    few, many = (HeadSpec(name="mixture", components=k) for k in (8, 32))
    return [
        Setting(few, l2, lr=0.03, takes_over=True),
        Setting(many, l2, lr=0.03, takes_over=True),
        Setting(many, l2, lr=0.01, takes_over=True),
        Setting(many, l2, lr=0.03, takes_over=False),
    ]


def prior_settings(l2: float, path: str) -> list[Setting]:
    """Return settings of heads that start from the prior in a file."""
    half, whole = (HeadSpec(name="mixture", prior=path, strength=strength) for strength in (0.5, 1.0))
    return [
        Setting(half, l2, lr=0.03, takes_over=True),
        Setting(whole, l2, lr=0.03, takes_over=True),
        Setting(whole, l2, lr=0.01, takes_over=True),
        Setting(whole, l2, lr=0.03, takes_over=False),
    ]


@dataclass(frozen=True)
class Learning:
    """The training data of all settings of a system, and the trained independent head if there is one."""

    label_space: LabelSpace
    train: Features
    holdout: Features
    seed: int
    independent: BernoulliHead | None


def chosen(settings: list[Setting], learning: Learning) -> tuple[int, nn.Module]:
    """Return which setting has the lowest NLL on holdout, and its head."""
    heads = [trained(setting, learning) for setting in settings]
    place = min(range(len(heads)), key=lambda n: nll(heads[n], learning.holdout))
    return place, heads[place]


def trained(setting: Setting, learning: Learning) -> nn.Module:
    """Return a head trained on features: independent labels to their optimum, a mixture to its best evaluation on holdout."""
    torch.manual_seed(derive(learning.seed, "weights"))
    head = build_head(setting.head, *_sizes(learning), _start(setting.head, learning))
    if isinstance(head, BernoulliHead):
        _to_optimum(head, setting, learning.train)
        return head
    assert isinstance(head, MixtureHead)
    if setting.takes_over:
        assert learning.independent is not None
        linear = learning.independent.linear
        head.start_from_bernoulli(linear.weight.detach(), linear.bias.detach())
    _descend(head, setting, learning)
    return head


def _to_optimum(head: BernoulliHead, setting: Setting, train: Features) -> None:
    """Find the optimum, which is unique because the energy is convex."""
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe", tolerance_change=1e-7)
    loss = build_loss(LossSpec())

    def energy() -> Tensor:
        optimizer.zero_grad()
        value = loss(head(train.features_NF), train.targets_NL, train.known_NL).mean() * train.targets_NL.shape[1]
        value = value + _penalty(head, setting.l2 / len(train))
        value.backward()
        return value

    optimizer.step(energy)


def _descend(head: MixtureHead, setting: Setting, learning: Learning) -> None:
    """Take Adam's steps; keep the weights with the lowest NLL on holdout, including the initial ones."""
    train, num_labels = learning.train, learning.train.targets_NL.shape[1]
    num_steps = min(max(EPOCHS * len(train) // BATCH, LEAST_STEPS), MOST_STEPS)
    optimizer = torch.optim.Adam(head.parameters(), lr=setting.lr, fused=True)
    assert isinstance(setting.head, MixtureSpec)
    loss = build_loss(LossSpec(name="mixture") if setting.head.prior is None else NO_USAGE)
    best_nll, best = nll(head, learning.holdout), copy.deepcopy(head.state_dict())
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = setting.lr * lr_factor(ScheduleSpec(), step, num_steps)
        rows_G = _batch(len(train), step, learning.seed)
        loss_G = loss(head(train.features_NF[rows_G]), train.targets_NL[rows_G], train.known_NL[rows_G])
        optimizer.zero_grad(set_to_none=True)
        (loss_G.mean() * num_labels + _penalty(head, setting.l2 / len(train))).backward()
        optimizer.step()
        if (step + 1) % math.ceil(num_steps / EVALUATIONS) == 0 or step + 1 == num_steps:
            found = nll(head, learning.holdout)
            if found < best_nll:
                best_nll, best = found, copy.deepcopy(head.state_dict())
    head.load_state_dict(best)


@torch.inference_mode()
def outputs_of(head: nn.Module, split: Features) -> dict[str, NDArray[np.float32]]:
    """Return a head's outputs for a split."""
    parts = [head(features_BF) for features_BF in torch.split(split.features_NF, 512)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def _sizes(learning: Learning) -> tuple[int, int]:
    return learning.train.features_NF.shape[1], len(learning.label_space)


def _start(head: HeadSpec, learning: Learning) -> Start:
    """Return the statistics of the training labels. With 100 images many labels never occur, so prevalences are smoothed."""
    targets_NL = learning.train.targets_NL.numpy()
    prevalence_L = (targets_NL.sum(axis=0) + 0.5) / (len(targets_NL) + 1)
    if head.name == "bernoulli":
        return Start(prevalence_L)
    mixture = prior_mixture(head, learning.label_space)
    if mixture is None:
        assert isinstance(head, MixtureSpec)
        seed = derive(learning.seed, "label mixture")
        mixture = fit_label_mixture(targets_NL, num_components=head.components, seed=seed)
    return Start(prevalence_L, mixture.mixing_weights_K, mixture.probabilities_KL)


def _penalty(head: nn.Module, l2: float) -> Tensor:
    """Return `l2` half the squares of the matrices, which multiply features."""
    return 0.5 * l2 * torch.stack([(part**2).sum() for part in head.parameters() if part.ndim >= 2]).sum()


def _batch(num_images: int, step: int, seed: int) -> Tensor:
    per_epoch = max(1, num_images // BATCH)
    epoch, place = divmod(step, per_epoch)
    order_N = np.random.default_rng(derive(seed, "order", epoch)).permutation(num_images)
    return torch.from_numpy(order_N[place * BATCH : (place + 1) * BATCH])


@torch.inference_mode()
def nll(head: nn.Module, split: Features) -> float:
    """Return nats per image."""
    loss = build_loss(LossSpec() if isinstance(head, BernoulliHead) else NO_USAGE)
    loss_N = loss(head(split.features_NF), split.targets_NL, split.known_NL)
    return float(loss_N.double().mean()) * split.targets_NL.shape[1]
