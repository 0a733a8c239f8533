"""Every loss for independent labels teaches a linear head to rank images within each label, where some labels are unknown."""

import numpy as np
import pytest
import torch

from rayprob.metrics.ranking import average_precision
from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.losses import LOSSES, LossSpec, build_loss

N, F, L = 300, 8, 5


@pytest.mark.parametrize("name", [name for name in LOSSES if LossSpec.of(name).family == "bernoulli"])
def test_a_loss_teaches_labels_with_few_and_many_positives(name: str) -> None:
    rng = np.random.default_rng(7)
    features_NF = torch.from_numpy(rng.normal(size=(2 * N, F)).astype(np.float32))
    scores_NL = features_NF.numpy() @ rng.normal(size=(F, L)) + np.array([-5.0, -3.0, -1.0, 0.0, 2.0])
    targets_NL, known_NL = scores_NL > 0, rng.random((2 * N, L)) < 0.8
    start = Start(targets_NL[:N].mean(axis=0))
    head, loss = build_head(HeadSpec(), F, L, start), build_loss(LossSpec(name=name), start)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss(head(features_NF[:N]), torch.from_numpy(targets_NL[:N]), torch.from_numpy(known_NL[:N])).mean().backward()
        optimizer.step()
    with torch.inference_mode():
        found_NL = head(features_NF[N:])["logits"].numpy()
    measured = found_NL, targets_NL[N:], known_NL[N:]
    if name == "ranking":  # which orders the labels of an image, not the images of a label
        measured = tuple(table_NL.T for table_NL in measured)
    chance = average_precision(np.zeros_like(measured[0]), *measured[1:])
    assert np.nanmean(average_precision(*measured)) > 0.75 > np.nanmean(chance) + 0.1


def test_refits_trust_the_likelihood_only_of_losses_that_give_probabilities() -> None:
    off = ("pos_weight", "logit_adjusted", "balanced", "hill", "ramp", "zlpr", "ranking", "two_way")
    assert {name: LossSpec.of(name).best_by for name in (*off, "bce")} == {**dict.fromkeys(off, "mAP"), "bce": "nll_nats"}
