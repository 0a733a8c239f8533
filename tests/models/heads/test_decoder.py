"""The head `decoder`: what its attention computes, what it learns, what its queries are. B, F, P, Q, D, L as in the head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayprob.errors import SpecError
from rayprob.models.build import ModelSpec
from rayprob.models.heads import Head, HeadSpec, Start, build_head
from rayprob.models.losses import LossSpec, build_loss

F, L, P = 6, 5, 4
SMALL = {"name": "decoder", "width": 8, "attention_heads": 2, "feedforward": 12}
Array = NDArray[np.float64]


def features(batch: int = 3) -> Tensor:
    return torch.randn(batch, F, P, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def head(num_labels: int = L, start: Start | None = None, **options: object) -> Head:
    return build_head(HeadSpec(**{**SMALL, **options}), F, num_labels, start).double()


def affine(weights: dict[str, Array], name: str, x: Array) -> Array:
    mapped: Array = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return mapped


def normalised(weights: dict[str, Array], name: str, x: Array) -> Array:
    scaled = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    mapped: Array = scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return mapped


def attended(weights: dict[str, Array], name: str, asking_QD: Array, asked_PD: Array) -> Array:
    """Attention as a loop over heads and queries."""
    query, key, value = (
        affine(weights, f"{name}.{part}", x) for part, x in (("query", asking_QD), ("key", asked_PD), ("value", asked_PD))
    )
    mixed = np.zeros_like(query)
    for columns in (slice(0, 4), slice(4, 8)):
        for q in range(len(query)):
            weight_P = np.exp(key[:, columns] @ query[q, columns] / 2)  # the square root of 4 columns
            mixed[q, columns] = weight_P @ value[:, columns] / weight_P.sum()
    return affine(weights, f"{name}.out", mixed)


def written_out(weights: dict[str, Array], places_FP: Array, layers: int, self_attention: bool, num_labels: int) -> Array:
    """Return the logits [L] of one image, from the equations of the papers."""
    places_PD = np.maximum(affine(weights, "embed.0", places_FP.T), 0)
    state = weights["queries"]
    for n in range(layers):
        layer = f"layers.{n}"
        if self_attention:
            state = state + attended(weights, f"{layer}.among_queries", state, state)
        state = normalised(weights, f"{layer}.norms.0", state)
        state = normalised(weights, f"{layer}.norms.1", state + attended(weights, f"{layer}.to_places", state, places_PD))
        hidden = np.maximum(affine(weights, f"{layer}.feedforward.0", state), 0)
        state = normalised(weights, f"{layer}.norms.2", state + affine(weights, f"{layer}.feedforward.2", hidden))
    answers = [state[q] @ weights["answers"][q] for q in range(len(state))]
    return np.concatenate(answers)[:num_labels] + weights["bias"]


@pytest.mark.parametrize(("layers", "self_attention", "queries"), [(1, False, 100), (2, True, 100), (1, False, 2)])
def test_logits_equal_the_written_out_decoder(layers: int, self_attention: bool, queries: int) -> None:
    built = head(layers=layers, self_attention=self_attention, queries=queries)
    torch.nn.init.normal_(built.get_parameter("answers"))
    weights = {name: tensor.numpy() for name, tensor in built.state_dict().items()}
    expected = [written_out(weights, places.numpy(), layers, self_attention, L) for places in features()]
    np.testing.assert_allclose(built(features())["logits"].detach().numpy(), expected, rtol=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    built = head(queries=2, self_attention=True)
    names, values = zip(*built.named_parameters(), strict=True)

    def logits(features_BFP: Tensor, *parameters: Tensor) -> Tensor:
        found: dict[str, Tensor] = torch.func.functional_call(built, dict(zip(names, parameters, strict=True)), features_BFP)
        return found["logits"]

    assert torch.autograd.gradcheck(logits, (features(2).requires_grad_(), *values), fast_mode=True)


def test_a_fresh_head_answers_with_the_prevalences() -> None:
    prevalence_L = np.array([0.5, 0.1, 0.02, 0.9, 0.3])
    marginals_BL = torch.sigmoid(head(start=Start(prevalence_L=prevalence_L))(features(50))["logits"])
    np.testing.assert_allclose(marginals_BL.mean(0).detach().numpy(), prevalence_L, atol=0.03)


def test_images_do_not_depend_on_each_other_nor_on_the_order_of_their_places() -> None:
    built, places_BFP = head(), features(4)
    expected = built(places_BFP)["logits"]
    torch.testing.assert_close(built(places_BFP[[2, 0, 3, 1]])["logits"], expected[[2, 0, 3, 1]])
    torch.testing.assert_close(built(places_BFP[:, :, [3, 1, 0, 2]])["logits"], expected)
    torch.testing.assert_close(built(places_BFP[:1])["logits"], expected[:1])


def test_pooled_features_are_one_place() -> None:
    built, features_BF = head(), features()[:, :, 0]
    torch.testing.assert_close(built(features_BF), built(features_BF.unsqueeze(2)))


def test_it_learns_that_two_features_are_at_the_same_place_which_averages_do_not_tell() -> None:
    """Both features are somewhere in every image: at one place where the label is present, at two where it is absent."""
    generator = torch.Generator().manual_seed(0)
    places_BFP = torch.zeros(64, 2, 4)
    present_B = torch.arange(64) % 2 == 0
    for image, present in zip(places_BFP, present_B.tolist(), strict=True):
        first, second = torch.randperm(4, generator=generator)[:2].tolist()
        image[0, first], image[1, first if present else second] = 1, 1
    loss, nll = build_loss(LossSpec()), {}
    for spec in (HeadSpec(**SMALL), HeadSpec()):
        built = build_head(spec, 2, 1)
        optimizer = torch.optim.Adam(built.parameters(), lr=0.02)
        for _ in range(80):
            loss_B = loss(built(places_BFP), present_B[:, None], torch.ones(64, 1))
            optimizer.zero_grad()
            torch.autograd.backward(loss_B.mean())
            optimizer.step()
        nll[spec.name] = loss_B.mean().item()
    assert nll["bernoulli"] == pytest.approx(np.log(2), abs=0.01)
    assert nll["decoder"] < 0.1


@pytest.mark.parametrize(("num_labels", "queries"), [(80, 80), (100, 100), (101, 51), (9_600, 100), (10_007, 100)])
def test_each_query_answers_for_as_few_labels_as_100_queries_allow(num_labels: int, queries: int) -> None:
    with torch.device("meta"):
        built = build_head(HeadSpec(name="decoder"), 2048, num_labels)
        answers = built.get_parameter("answers")
        assert built(torch.zeros(2, 2048, 9))["logits"].shape == (2, num_labels)
    assert (answers.shape[0], built.get_parameter("queries").shape) == (queries, (queries, 256))
    assert answers.shape[0] * answers.shape[2] >= num_labels


def word_file(folder: Path) -> tuple[str, Start]:
    path, names = folder / "words.txt", tuple("abcde")
    path.write_text("".join(f"{name} {n} {n * n} 1\n" for n, name in enumerate(names)))
    return str(path), Start(label_names=names)


def test_given_vectors_are_the_queries_or_the_mean_over_a_query_s_labels_and_are_not_trained(tmp_path: Path) -> None:
    path, start = word_file(tmp_path)
    queries_LD = head(start=start, vectors=path).get_parameter("queries")
    assert not queries_LD.requires_grad
    rows = np.array([[n, n * n, 1] for n in range(L)])
    expected = np.pad(rows, ((0, 0), (0, 5))) / np.sqrt((rows**2).sum() / 40)
    np.testing.assert_allclose(queries_LD.numpy(), expected, rtol=1e-6)
    grouped = head(start=start, vectors=path, queries=2).get_parameter("queries")
    np.testing.assert_allclose(grouped.numpy(), [expected[:3].mean(0), expected[3:].mean(0)], rtol=1e-6)


def test_a_trained_head_needs_no_file_of_vectors(tmp_path: Path) -> None:
    path, start = word_file(tmp_path)
    built = head(start=start, vectors=path)
    Path(path).unlink()
    again = head(vectors=path)
    again.load_state_dict(built.state_dict())
    torch.testing.assert_close(again(features()), built(features()))


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(SpecError, match="attention_heads 3 does not divide width 256; set width to a multiple of it"):
        HeadSpec.parse({"name": "decoder", "attention_heads": 3})
    with pytest.raises(SpecError, match=r"name decoder attends to .*; set pooling: places, or use another head"):
        ModelSpec.parse({"head": {"name": "decoder"}})
