"""The heads of the learning curves: their settings, and how one is trained on features. N images, F features, L labels."""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rayprob.labels import LabelSpace
from rayprob.models.head_prior import prior_mixture
from rayprob.models.heads import BernoulliHead, HeadSpec, MixtureHead, Start, build_head
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.distributions.mixture import fit_label_mixture
from rayprob.seeds import derive
from rayprob.train.features import Features
from rayprob.train.optimizer import ScheduleSpec, lr_factor

BATCH, EPOCHS, LEAST_STEPS, MOST_STEPS, EVALUATIONS = 64, 20, 300, 1500, 15


@dataclass(frozen=True)
class Setting:
    """A head, how it is trained, and whether it takes over the trained independent head, as `rayprob refit` does."""

    head: HeadSpec
    lr: float
    weight_decay: float = 1e-2
    takes_over: bool = False


def independent_settings() -> list[Setting]:
    return [Setting(HeadSpec(), lr, weight_decay) for lr in (1e-3, 3e-3, 1e-2) for weight_decay in (1e-2, 0.3)]


def mixture_settings() -> list[Setting]:
    """Return settings of mixtures fitted to the training images' label sets."""
    kinds = [(HeadSpec(name="mixture", components=k), takes_over) for k, takes_over in ((8, True), (32, True), (32, False))]
    return [Setting(head, lr, takes_over=takes_over) for head, takes_over in kinds for lr in (3e-3, 1e-2)]


def prior_settings(path: str) -> list[Setting]:
    """Return settings of heads that start from the prior in a file."""
    kinds = [(0.5, True), (1.0, True), (1.0, False)]
    heads = [(HeadSpec(name="mixture", prior=path, strength=strength), takes_over) for strength, takes_over in kinds]
    return [Setting(head, lr, takes_over=takes_over) for head, takes_over in heads for lr in (3e-3, 1e-2)]


def chosen(
    settings: list[Setting],
    label_space: LabelSpace,
    train: Features,
    holdout: Features,
    seed: int,
    independent: BernoulliHead | None,
) -> tuple[int, nn.Module]:
    """Return which setting has the lowest NLL on holdout, and its head."""
    heads = [trained(setting, label_space, train, holdout, seed, independent) for setting in settings]
    place = min(range(len(heads)), key=lambda n: heads[n][1])
    return place, heads[place][0]


def trained(
    setting: Setting,
    label_space: LabelSpace,
    train: Features,
    holdout: Features,
    seed: int,
    independent: BernoulliHead | None,
) -> tuple[nn.Module, float]:
    """Return a head trained on features and its NLL on holdout, which is the lowest of all its evaluations."""
    torch.manual_seed(derive(seed, "weights"))
    start = _start(setting.head, label_space, train, seed)
    head = build_head(setting.head, train.features_NF.shape[1], len(label_space), start)
    if setting.takes_over:
        assert isinstance(head, MixtureHead)
        assert independent is not None
        head.start_from_bernoulli(independent.linear.weight.detach(), independent.linear.bias.detach())
    num_steps = min(max(EPOCHS * len(train) // BATCH, LEAST_STEPS), MOST_STEPS)
    optimizer = torch.optim.AdamW(_groups(head, setting.weight_decay), lr=setting.lr, fused=True)
    loss = build_loss(LossSpec() if head.family == "bernoulli" else _mixture_loss(setting.head))
    best_nll, best = _nll(head, holdout), copy.deepcopy(head.state_dict())
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = setting.lr * lr_factor(ScheduleSpec(), step, num_steps)
        rows_G = _batch(len(train), step, seed)
        loss_G = loss(head(train.features_NF[rows_G]), train.targets_NL[rows_G], train.known_NL[rows_G])
        optimizer.zero_grad(set_to_none=True)
        loss_G.mean().backward()
        optimizer.step()
        if (step + 1) % math.ceil(num_steps / EVALUATIONS) == 0 or step + 1 == num_steps:
            nll = _nll(head, holdout)
            if nll < best_nll:
                best_nll, best = nll, copy.deepcopy(head.state_dict())
    head.load_state_dict(best)
    return head, best_nll


@torch.inference_mode()
def outputs_of(head: nn.Module, split: Features) -> dict[str, NDArray[np.float32]]:
    """Return what a head says of a split."""
    parts = [head(features_BF) for features_BF in torch.split(split.features_NF, 512)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def _start(head: HeadSpec, label_space: LabelSpace, train: Features, seed: int) -> Start:
    """Return what is known of the training labels. Of 100 images many labels are never present: prevalences are smoothed."""
    targets_NL = train.targets_NL.numpy()
    prevalence_L = (targets_NL.sum(axis=0) + 0.5) / (len(targets_NL) + 1)
    if head.name == "bernoulli":
        return Start(prevalence_L)
    mixture = prior_mixture(head, label_space)
    if mixture is None:
        mixture = fit_label_mixture(targets_NL, num_components=head.components, seed=derive(seed, "label mixture"))
    return Start(prevalence_L, mixture.mixing_weights_K, mixture.probabilities_KL)


def _mixture_loss(head: HeadSpec) -> LossSpec:
    return LossSpec(name="mixture") if head.prior is None else LossSpec(name="mixture", usage_weight=0.0)


def _groups(head: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return parameter groups with weight decay on matrices only, as the package's optimizers have it."""
    matrices = [parameter for parameter in head.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in head.parameters() if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _batch(num_images: int, step: int, seed: int) -> torch.Tensor:
    per_epoch = max(1, num_images // BATCH)
    epoch, place = divmod(step, per_epoch)
    order_N = np.random.default_rng(derive(seed, "order", epoch)).permutation(num_images)
    return torch.from_numpy(order_N[place * BATCH : (place + 1) * BATCH])


@torch.inference_mode()
def _nll(head: nn.Module, split: Features) -> float:
    """Return nats per image."""
    spec = LossSpec() if head.family == "bernoulli" else LossSpec(name="mixture", usage_weight=0.0)
    loss_N = build_loss(spec)(head(split.features_NF), split.targets_NL, split.known_NL)
    return float(loss_N.double().mean()) * split.targets_NL.shape[1]
