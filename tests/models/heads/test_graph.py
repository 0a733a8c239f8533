"""The head `graph`: neighbours, the classifiers that follow, and why training is stable. B, F, L, D, H as in the head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from graph_stability import first_step, heads_on, scenes
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from rayprob.models.heads import Head, HeadSpec, Start, build_head
from rayprob.models.heads.graph import GraphSpec, neighbour_weights
from rayprob.models.losses import LossSpec, build_loss

F, L = 6, 5
SMALL = {"name": "graph", "width": 4, "hidden": 7}
# Labels 1 and 2 are present wherever 0 is, label 3 in half of these images; label 4 is alone.
SETS = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=bool)
Array = NDArray[np.float64]


def sets(known_NL: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return SETS, np.ones_like(SETS) if known_NL is None else known_NL


def features(batch: int = 3) -> Tensor:
    return torch.randn(batch, F, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def head(**options: object) -> Head:
    return build_head(HeadSpec(**{**SMALL, **options}), F, L, Start(label_sets=sets)).double()


def spec(**options: float) -> GraphSpec:
    return GraphSpec(name="graph", **options)


def counted(known_NL: NDArray[np.bool_], threshold: float, weight: float) -> Array:
    """The weights [L, L], counted label by label."""
    weights_LL = np.zeros((L, L))
    for i in range(L):
        neighbours = []
        for j in range(L):
            images = [n for n in range(len(SETS)) if known_NL[n, i] and SETS[n, i] and known_NL[n, j]]
            if i != j and images and np.mean([SETS[n, j] for n in images]) >= threshold:
                neighbours.append(j)
        weights_LL[i, i] = 1 - weight if neighbours else 1
        for j in neighbours:
            weights_LL[i, j] = weight / len(neighbours)
    return weights_LL


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.5, 0.9])
def test_neighbours_are_the_labels_that_are_often_present_with_a_label(threshold: float) -> None:
    known_NL = np.random.default_rng(0).random(SETS.shape) < 0.8
    for known in (np.ones_like(SETS), known_NL):
        found_LL = neighbour_weights(SETS, known, spec(threshold=threshold, neighbours=0.3))
        np.testing.assert_allclose(found_LL, counted(known, threshold, 0.3), rtol=1e-6)


def test_presence_is_not_symmetric_and_every_row_sums_to_1() -> None:
    weights_LL = neighbour_weights(*sets(), spec(threshold=0.6))
    np.testing.assert_allclose(weights_LL[0], [0.8, 0.1, 0.1, 0, 0])
    np.testing.assert_allclose(weights_LL[1], [0, 1, 0, 0, 0])
    np.testing.assert_allclose(weights_LL.sum(axis=1), 1)


def test_unknown_labels_count_neither_as_present_nor_as_absent() -> None:
    known_NL = np.random.default_rng(1).random(SETS.shape) < 0.7
    flipped_NL = np.where(known_NL, SETS, ~SETS)
    np.testing.assert_array_equal(neighbour_weights(flipped_NL, known_NL, spec()), neighbour_weights(SETS, known_NL, spec()))


def test_a_label_never_seen_with_others_has_no_neighbours_even_at_threshold_0() -> None:
    weights_LL = neighbour_weights(*sets(), spec(threshold=0.0))
    np.testing.assert_allclose(weights_LL[4], [0, 0, 0, 0, 1])


def test_logits_equal_the_written_out_network() -> None:
    built = head()
    weights = {name: tensor.numpy() for name, tensor in built.state_dict().items()}
    a_LL = weights["neighbours"]
    np.testing.assert_allclose(a_LL, counted(np.ones_like(SETS), 0.4, 0.2), rtol=1e-6)
    hidden_LH = a_LL @ weights["vectors"] @ weights["first.weight"].T
    hidden_LH = a_LL @ np.where(hidden_LH > 0, hidden_LH, 0.2 * hidden_LH)
    mean_H = hidden_LH.mean(0)
    states_LH = np.stack([(row_H - mean_H) / np.linalg.norm(row_H - mean_H) for row_H in hidden_LH])
    states_LH += mean_H / np.linalg.norm(mean_H) / np.sqrt(L)
    expected = features().numpy() @ weights["second.weight"] @ states_LH.T + weights["bias"]
    np.testing.assert_allclose(built(features())["logits"].detach().numpy(), expected, rtol=1e-9)


def test_a_single_label_trains() -> None:
    built = build_head(HeadSpec(**SMALL), F, 1).double()
    torch.autograd.backward(built(features())["logits"].sum())
    gradients = [parameter.grad for parameter in built.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() and gradient.abs().max() < 10 for gradient in gradients)


def test_gradients_are_those_of_finite_differences() -> None:
    built = head()
    trained = {name: parameter for name, parameter in built.named_parameters() if parameter.requires_grad}

    def logits(features_BF: Tensor, *parameters: Tensor) -> Tensor:
        found: dict[str, Tensor] = functional_call(built, dict(zip(trained, parameters, strict=True)), features_BF)
        return found["logits"]

    assert torch.autograd.gradcheck(logits, (features(2).requires_grad_(), *trained.values()), fast_mode=True)


def test_a_fresh_head_answers_with_the_prevalences() -> None:
    prevalence_L = np.array([0.5, 0.1, 0.02, 0.9, 0.3])
    built = build_head(HeadSpec(**SMALL), F, L, Start(prevalence_L, label_sets=sets)).double()
    marginals_BL = torch.sigmoid(built(features(200))["logits"]).detach().numpy()
    np.testing.assert_allclose(marginals_BL.mean(0), prevalence_L, atol=0.01)


def test_images_do_not_depend_on_each_other_and_places_are_averaged() -> None:
    built = head()
    expected = built(features())["logits"]
    torch.testing.assert_close(built(features()[[2, 0, 1]])["logits"], expected[[2, 0, 1]])
    torch.testing.assert_close(built(features().unsqueeze(2).expand(-1, -1, 4))["logits"], expected)


def test_a_bundle_keeps_neighbours_and_given_vectors(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{name} {n} {n * n} 1\n" for n, name in enumerate("abcde")))
    options = HeadSpec(**SMALL, vectors=str(path))
    built = build_head(options, F, L, Start(label_sets=sets, label_names=tuple("abcde"))).double()
    vectors_LD = built.get_parameter("vectors")
    assert not vectors_LD.requires_grad
    torch.testing.assert_close(vectors_LD.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-7, rtol=0)
    path.unlink()
    again = build_head(options, F, L).double()
    again.load_state_dict(built.state_dict())
    torch.testing.assert_close(again(features()), built(features()))


def test_a_label_without_images_of_its_own_is_learned_from_its_neighbour() -> None:
    """Labels that are neighbours have similar states, so what one learns the other has."""
    features_BF = torch.randn(128, 4, generator=torch.Generator().manual_seed(0))
    targets_BL = (features_BF[:, :1] > 0).expand(-1, 2)
    known_BL = torch.tensor([True, False]).expand(128, -1)
    both = Start(label_sets=lambda: (np.ones((3, 2), bool), np.ones((3, 2), bool)))
    loss, found = build_loss(LossSpec()), {}
    for kind in ("graph", "bernoulli"):
        options = {"neighbours": 0.5, "width": 8, "hidden": 16} if kind == "graph" else {}
        built = build_head(HeadSpec(name=kind, **options), 4, 2, both)
        optimizer = torch.optim.Adam(built.parameters(), lr=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            torch.autograd.backward(loss(built(features_BF), targets_BL, known_BL).mean())
            optimizer.step()
        found[kind] = ((built(features_BF)["logits"][:, 1] > 0) == targets_BL[:, 1]).float().mean().item()
    assert found["graph"] > 0.9
    assert found["bernoulli"] < 0.9


def test_a_step_moves_logits_as_far_as_a_linear_head_s_and_the_published_network_a_thousand_times_as_far() -> None:
    images = scenes(64, seed=0)
    steps = {name: first_step(build, images) for name, build in heads_on(images).items()}
    assert steps["graph, word vectors"] < 3 * steps["linear"]
    assert steps["graph, learned vectors"] < 3 * steps["linear"]
    assert steps["ML-GCN as published"] > 1_000 * steps["linear"]
