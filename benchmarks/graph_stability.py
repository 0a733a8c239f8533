"""Whether the head `graph` trains without gradient clipping wherever a linear head does, compared with ML-GCN as published.

    python benchmarks/graph_stability.py [--seeds 5] [--steps 300] [--samples 2000]

Label sets are drawn from the shipped prior of COCO's 80 labels, features are rectified noisy sums of a random direction per
label, and word vectors are as long as GloVe's (about 6) with a part in common. Each head trains from each seed with each
optimizer, without clipping; learning rates fall to 0 along a cosine. How far a first step of SGD moves the logits shows the
cause of ML-GCN's trap. Then follow, for each optimizer, mAP on other images, lowest and highest over the seeds, and in how many
runs it is below that of the linear head by more than half the width of its 95 % bootstrap interval.
"""

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

from rayprob.metrics.bootstrap import bootstrap
from rayprob.metrics.drawn import mean_average_precision_of
from rayprob.metrics.ranking import mean_average_precision
from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.heads.graph import GraphSpec, neighbour_weights
from rayprob.probability.priors.file import LabelPriorFile

NUM_FEATURES, HIDDEN, WIDTH, BATCH = 512, 512, 300, 64
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw 0.003": lambda trained: torch.optim.AdamW(trained, lr=3e-3),
    "adamw 0.01": lambda trained: torch.optim.AdamW(trained, lr=1e-2),
    "sgd 0.5": lambda trained: torch.optim.SGD(trained, lr=0.5, momentum=0.9, nesterov=True),
    "sgd 4": lambda trained: torch.optim.SGD(trained, lr=4.0, momentum=0.9, nesterov=True),
}


@dataclass(frozen=True)
class Images:
    """Features [N, F] and label sets [N, L]."""

    features_NF: Tensor
    targets_NL: Tensor


class PaperGraph(nn.Module):
    """ML-GCN with the parameters and initial weights of the paper: classifiers A LeakyReLU(A X W1) W2, as they come out."""

    def __init__(self, vectors_LD: Tensor, neighbours_LL: Tensor, num_features: int, hidden: int) -> None:
        super().__init__()
        self.vectors_LD, self.neighbours_LL = vectors_LD, neighbours_LL
        self.first = nn.Parameter(torch.empty(vectors_LD.shape[1], hidden).uniform_(-1, 1) / math.sqrt(hidden))
        self.second = nn.Parameter(torch.empty(hidden, num_features).uniform_(-1, 1) / math.sqrt(num_features))

    def forward(self, features_BF: Tensor) -> dict[str, Tensor]:
        hidden_LH = leaky_relu(self.neighbours_LL @ self.vectors_LD @ self.first, 0.2)
        return {"logits": features_BF @ (self.neighbours_LL @ hidden_LH @ self.second).T}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--samples", type=int, default=2_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, val = scenes(options.samples, seed=0), scenes(options.samples, seed=1)
    print(f"{options.samples} images, {train.targets_NL.shape[1]} labels, {options.seeds} seeds, {options.steps} steps")
    least: dict[tuple[str, int], float] = {}
    for name, build in heads_on(train).items():
        print(f"{name}: a first step moves its logits by {first_step(build, train):.3g} per learning rate")
        for optimizer in OPTIMIZERS:
            found = []
            for seed in range(options.seeds):
                scores_NL = scores_of(build, train, val, optimizer, seed=seed, steps=options.steps)
                found.append(mean_ap(scores_NL, val))
                if name == "linear":
                    least[optimizer, seed] = least_by_chance(scores_NL, val)
            below = sum(value < least[optimizer, seed] for seed, value in enumerate(found))
            print(f"  {optimizer:12} mAP {min(found):.3f} to {max(found):.3f}, {below} below the interval", flush=True)


def scenes(num_samples: int, seed: int) -> Images:
    """Return label sets of COCO's prior, and features in which each label that is present adds its own direction."""
    prior = LabelPriorFile.load("coco").mixture
    random = np.random.default_rng(seed)
    component_N = random.choice(len(prior.mixing_weights_K), num_samples, p=prior.mixing_weights_K)
    targets_NL = torch.from_numpy(
        random.random((num_samples, prior.probabilities_KL.shape[1])) < prior.probabilities_KL[component_N]
    )
    directions_LF = np.random.default_rng(100).normal(size=(targets_NL.shape[1], NUM_FEATURES))
    noise_NF = random.normal(size=(num_samples, NUM_FEATURES))
    features_NF = np.maximum(targets_NL.numpy() @ directions_LF / 8 + noise_NF + 0.3, 0)
    return Images(torch.from_numpy(features_NF).float(), targets_NL)


def heads_on(train: Images) -> dict[str, Callable[[], nn.Module]]:
    """Return how to build each head."""
    targets_NL = train.targets_NL.numpy()
    names = tuple(f"label{column}" for column in range(targets_NL.shape[1]))
    start = Start(targets_NL.mean(axis=0), label_sets=lambda: (targets_NL, np.ones_like(targets_NL)), label_names=names)
    vectors_LD = word_vectors(len(names))
    path = Path(tempfile.mkdtemp()) / "words.safetensors"
    save_file(dict(zip(names, vectors_LD, strict=True)), path)
    neighbours_LL = torch.from_numpy(neighbour_weights(targets_NL, np.ones_like(targets_NL), GraphSpec())).float()

    def built(**options: object) -> nn.Module:
        return build_head(HeadSpec(**options), NUM_FEATURES, len(names), start)

    return {
        "linear": lambda: built(),
        "graph, word vectors": lambda: built(name="graph", vectors=str(path), hidden=HIDDEN),
        "graph, learned vectors": lambda: built(name="graph", hidden=HIDDEN),
        "ML-GCN as published": lambda: PaperGraph(vectors_LD, neighbours_LL, NUM_FEATURES, HIDDEN),
    }


def word_vectors(num_labels: int) -> Tensor:
    """Return vectors as long as GloVe's, which point to one side: a third of their squared length is common to all."""
    random = torch.Generator().manual_seed(0)
    own_LD, common_1D = torch.randn(num_labels, WIDTH, generator=random), torch.randn(1, WIDTH, generator=random)
    return 0.27 * own_LD + 0.2 * common_1D


def first_step(build: Callable[[], nn.Module], images: Images) -> float:
    """Return the root mean square over images and labels by which a step of SGD changes logits, per learning rate."""
    torch.manual_seed(0)
    head, rate = build(), 1e-4
    features_BF, targets_BL = images.features_NF[:BATCH], images.targets_NL[:BATCH].float()
    logits_BL = head(features_BF)["logits"]
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(binary_cross_entropy_with_logits(logits_BL, targets_BL), parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(rate * gradient)
        moved: float = ((head(features_BF)["logits"] - logits_BL).square().mean().sqrt() / rate).item()
    return moved


def scores_of(
    build: Callable[[], nn.Module], train: Images, val: Images, optimizer: str, *, seed: int, steps: int
) -> NDArray[np.float32]:
    """Return the logits [N, L] on `val` of a head trained on `train`; nan if training diverged."""
    torch.manual_seed(seed)
    head = build()
    update = OPTIMIZERS[optimizer]([parameter for parameter in head.parameters() if parameter.requires_grad])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(update, steps)
    for _ in range(steps):
        rows_B = torch.randint(len(train.features_NF), (BATCH,))
        loss = binary_cross_entropy_with_logits(head(train.features_NF[rows_B])["logits"], train.targets_NL[rows_B].float())
        update.zero_grad()
        torch.autograd.backward(loss)
        update.step()
        schedule.step()
    with torch.no_grad():
        scores_NL: NDArray[np.float32] = head(val.features_NF)["logits"].numpy()
    return scores_NL


def mean_ap(scores_NL: NDArray[np.float32], val: Images) -> float:
    """Return mAP; 0 if training diverged."""
    return mean_average_precision(scores_NL, val.targets_NL.numpy()).value if np.isfinite(scores_NL).all() else 0.0


def least_by_chance(scores_NL: NDArray[np.float32], val: Images) -> float:
    """Return mAP less half the width of its 95 % bootstrap interval."""
    interval = bootstrap(mean_average_precision_of(scores_NL, val.targets_NL.numpy()), len(scores_NL), draws=200).interval()
    return interval.value - (interval.high - interval.low) / 2


if __name__ == "__main__":
    main()
