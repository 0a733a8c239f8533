"""The contrastive term against a loop over images and labels. B samples, E dimensions, L labels."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprob.models.auxiliaries import EMBEDDING, AuxiliarySpec, build_auxiliary, with_auxiliary
from rayprob.models.losses import LossSpec, build_loss

B, E, L, T = 7, 4, 3, 0.1


def a_batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    embedding_BE = torch.randn(B, E, generator=generator, dtype=torch.float64)
    targets_BL = torch.rand(B, L, generator=generator) < 0.5
    targets_BL[:, 2] = torch.arange(B) == 1  # a label that no other image shares
    return embedding_BE, targets_BL, torch.rand(B, L, generator=generator) < 0.8


def term(embedding_BE: Tensor, targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    auxiliary = build_auxiliary(AuxiliarySpec(temperature=T), E, L)
    return auxiliary.term(embedding_BE, targets_BL.to(embedding_BE), known_BL.to(embedding_BE))


def mean_by_loops(embedding_BE: np.ndarray, has_BL: np.ndarray) -> float:
    unit_BE = embedding_BE / np.linalg.norm(embedding_BE, axis=1, keepdims=True)
    terms = []
    for i in range(B):
        competing = sum(math.exp(unit_BE[i] @ unit_BE[a] / T) for a in range(B) if a != i)
        for label in np.flatnonzero(has_BL[i]):
            shared = [p for p in range(B) if p != i and has_BL[p, label]]
            if shared:
                terms.append(-np.mean([math.log(math.exp(unit_BE[i] @ unit_BE[p] / T) / competing) for p in shared]))
    return float(np.mean(terms))


def test_the_term_is_the_mean_over_images_and_their_shared_labels() -> None:
    embedding_BE, targets_BL, known_BL = a_batch()
    expected = mean_by_loops(embedding_BE.numpy(), (targets_BL & known_BL).numpy())
    assert term(embedding_BE, targets_BL, known_BL).mean().item() == pytest.approx(expected, rel=1e-10)


def test_unknown_labels_are_not_shared_and_the_order_of_a_batch_does_not_matter() -> None:
    embedding_BE, targets_BL, known_BL = a_batch()
    term_B = term(embedding_BE, targets_BL, known_BL)
    assert torch.equal(term_B, term(embedding_BE, targets_BL ^ ~known_BL, known_BL))
    back = torch.arange(B - 1, -1, -1)
    torch.testing.assert_close(term_B[back], term(embedding_BE[back], targets_BL[back], known_BL[back]))
    nothing = torch.zeros_like(known_BL)
    assert term(embedding_BE, targets_BL, nothing).tolist() == [0.0] * B
    assert term(embedding_BE[:1], targets_BL[:1], known_BL[:1]).tolist() == [0.0]


def test_gradients_equal_finite_differences() -> None:
    embedding_BE, targets_BL, known_BL = a_batch()
    assert torch.autograd.gradcheck(lambda tensor: term(tensor, targets_BL, known_BL), embedding_BE.requires_grad_())


def test_the_term_is_added_to_any_loss_by_its_weight() -> None:
    embedding_BE, targets_BL, known_BL = a_batch()
    logits_BL = embedding_BE[:, :L]
    spec, loss = AuxiliarySpec(weight=0.5), build_loss(LossSpec())
    total = with_auxiliary(loss, build_auxiliary(spec, E, L), spec)
    found_B = total({"logits": logits_BL, EMBEDDING: embedding_BE}, targets_BL, known_BL)
    expected_B = loss({"logits": logits_BL}, targets_BL, known_BL) + 0.5 * term(embedding_BE, targets_BL, known_BL) / L
    torch.testing.assert_close(found_B, expected_B)
    assert with_auxiliary(loss, None, None) is loss


def test_outputs_that_are_infinite_are_left_out_and_those_that_are_nan_are_not() -> None:
    embedding_BE, *_ = a_batch()
    auxiliary = build_auxiliary(AuxiliarySpec(compare="outputs"), E, L)
    unused_BE = torch.full((B, 2), -torch.inf, dtype=torch.float64)
    found_BE = auxiliary(embedding_BE, {"logits": embedding_BE, "set_logits": unused_BE})
    torch.testing.assert_close(found_BE, torch.cat([embedding_BE - embedding_BE.mean(0), torch.zeros(B, 2)], dim=1))
    assert auxiliary(embedding_BE, {"logits": embedding_BE * torch.nan}).isnan().all()


@pytest.mark.parametrize(("compare", "parameters"), [("features", 4), ("outputs", 0)])
def test_embeddings_of_images_that_share_labels_get_closer(compare: str, parameters: int) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(40, 6, 3, generator=generator)  # of three places
    targets = features.mean(2)[:, :L] > 0
    head = torch.nn.Linear(6, L)
    auxiliary = build_auxiliary(AuxiliarySpec(compare=compare, width=E), 6, L)
    assert len(list(auxiliary.parameters())) == parameters
    optimizer = torch.optim.Adam([*head.parameters(), *auxiliary.parameters()], lr=0.03)
    seen = []
    for _ in range(20):
        outputs = {"logits": head(features.mean(2)), "more": torch.zeros(40, 2, 2)}
        loss = auxiliary.term(auxiliary(features, outputs), targets.float(), torch.ones_like(targets).float()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < seen[0] - 0.1
