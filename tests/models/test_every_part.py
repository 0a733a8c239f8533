"""What holds for every registered head, loss and pooling: a new part is tested by being registered.

B images, F features, L labels. Each part also has tests of its own, against its formula; tests/slow has two ranks, whole runs
and ONNX files.
"""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import rayprob as rp
from rayprob.errors import ModelError
from rayprob.export.checking import expected
from rayprob.export.network import Graph
from rayprob.loader.augment import TransformSpec
from rayprob.metrics.ranking import average_precision
from rayprob.models.auxiliaries import AuxiliarySpec, build_auxiliary
from rayprob.models.heads import HEADS, HeadSpec
from rayprob.models.losses import LOSSES, LossSpec
from rayprob.models.pooling import POOLINGS, build_pooling
from rayprob.probability.families import family_of
from rayprob.runs.bundle import Bundle
from rayprob.runs.checkpoints import latest, list_checkpoints, save_checkpoint
from rayprob.runs.predictions import Predictions
from rayprob.runs.rules import heads_of
from tests.models.systems import (
    LABELS,
    SIZE_PX,
    STEPS,
    SYSTEMS,
    TEST,
    TRAIN,
    F,
    L,
    System,
    arrays,
    classifier_of,
    distribution,
    features_of,
    fresh,
    head_spec,
    job_of,
    loss_of,
    take_steps,
    term_of,
    trained,
    with_patches,
)

every_head = pytest.mark.parametrize("name", HEADS)
every_loss = pytest.mark.parametrize("name", LOSSES)
every_pooling = pytest.mark.parametrize("name", POOLINGS)
every_system = pytest.mark.parametrize("name", SYSTEMS)
bundled_systems = pytest.mark.parametrize("name", [name for name in SYSTEMS if not name.startswith("loss ")])

# Options with which the gradient of a loss is the derivative of its value: by default, some hold a weight constant. Their
# own tests compare that gradient with the published one.
DIFFERENTIABLE: dict[str, dict[str, Any]] = {"asymmetric": {"gamma_pos": 0.0, "gamma_neg": 0.0}}

# How near to sums over label sets the answers of a family are that draws label sets; those of others are exact.
NEAR = {"recurrent": 0.1}
# Families whose answers given evidence are defined by a network, not by sums over label sets.
BY_DEFINITION = ("masked",)


@pytest.fixture(autouse=True)
def _patches() -> Any:
    with with_patches():
        yield


# Heads.


@every_head
def test_gradients_of_a_head_are_those_of_finite_differences(name: str) -> None:
    head = fresh(head_spec(name))
    names, parameters = zip(*moved(head), strict=True)
    features = features_of(head_spec(name), TEST)[:3].clone().requires_grad_()
    learnt = [output for output, tensor in head(features).items() if tensor.requires_grad]

    def outputs(features: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        named = functional_call(head, dict(zip(names, parameters, strict=True)), (features,))
        return tuple(torch.nan_to_num(named[output], torch.nan, 0, 0) for output in learnt)  # what is impossible is constant

    assert torch.autograd.gradcheck(outputs, (features, *parameters), fast_mode=True, nondet_tol=1e-12)


def moved(head: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """The parameters of a head, away from where they start."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return list(head.named_parameters())


@every_head
def test_the_outputs_of_a_head_can_be_compared(name: str) -> None:
    spec = HeadSpec(name=name, sets=100) if name == "powerset" else head_spec(name)  # of which most are not used
    head, features = fresh(spec), features_of(spec, TEST)
    auxiliary = build_auxiliary(AuxiliarySpec(compare="outputs"), F, L)
    embedding_BE = auxiliary(features, family_of(spec.family).of_images(head(features)))
    term_B = auxiliary.term(embedding_BE, TEST.targets.double(), torch.ones_like(TEST.targets).double())
    term_B.sum().backward()
    assert term_B.isfinite().all()
    gradients = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_head
def test_a_fresh_head_answers_with_the_prevalences(name: str) -> None:
    spec = head_spec(name)
    marginals_NL = distribution(fresh(spec), features_of(spec, TEST)).marginals()
    np.testing.assert_allclose(marginals_NL.mean(axis=0), TRAIN.targets_NL.mean(axis=0), atol=0.06)
    assert marginals_NL.std(axis=0).max() < 0.1


@every_head
def test_a_head_learns_what_the_prior_does_not_know(name: str) -> None:
    spec = head_spec(name)
    learnt = distribution(trained(spec, loss_of(spec)), features_of(spec, TEST).float())
    prevalence_L = TRAIN.targets_NL.mean(axis=0)
    prior_nats = -np.log(np.where(TEST.targets_NL, prevalence_L, 1 - prevalence_L)).sum(axis=1).mean()
    assert -learnt.log_prob(TEST.targets_NL).mean() < prior_nats - 0.5
    assert mean_ap(learnt.ranking_scores()) > TEST.targets_NL.mean() + 0.2


def mean_ap(scores_NL: np.ndarray) -> float:
    return float(average_precision(scores_NL, TEST.targets_NL, np.ones_like(TEST.targets_NL)).mean())


@every_head
def test_the_outputs_of_an_image_do_not_depend_on_its_batch(name: str) -> None:
    head, shared = fresh(head_spec(name)), family_of(head_spec(name).family).shared
    moved(head)
    features, order = features_of(head_spec(name), TEST)[:8], torch.randperm(8)
    whole, other, alone = (head(part) for part in (features, features[order], features[2:3]))
    for output, values in whole.items():
        torch.testing.assert_close(other[output], values if output in shared else values[order], msg=output)
        torch.testing.assert_close(alone[output], values if output in shared else values[2:3], msg=output)


@every_head
def test_a_head_returns_what_its_family_states(name: str) -> None:
    spec, head = head_spec(name), fresh(head_spec(name))
    outputs, family = head(features_of(spec, TEST)), family_of(spec.family)
    assert outputs.keys() == set(family.names)
    assert head.shared().keys() == family.shared
    for output, shape in family.outputs.items():
        sizes = dict(zip(shape, outputs[output].shape, strict=True))
        assert (sizes.get("N", len(TEST.targets)), sizes.get("L", L)) == (len(TEST.targets), L), output


# Losses.


def case(name: str, **options: Any) -> tuple[Any, dict[str, Tensor], Tensor, Tensor]:
    """A loss that draws the same random numbers in each call, outputs of a head of its family, targets and known labels."""
    spec = LossSpec(name=name, **options)
    head_of_it = head_spec(heads_of(spec.family)[0])
    head = fresh(head_of_it)
    moved(head)
    outputs = head(features_of(head_of_it, TEST)[:5])
    leaves = {key: tensor.detach().requires_grad_(tensor.requires_grad) for key, tensor in outputs.items()}
    known_BL = torch.rand(5, L) < 0.7
    known_BL[0], known_BL[1] = False, True
    term = term_of(spec)

    def loss(outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
        torch.manual_seed(11)
        return term(outputs, targets_BL, known_BL)

    return loss, leaves, TEST.targets[:5], known_BL


@every_loss
def test_the_gradient_of_a_loss_is_that_of_finite_differences(name: str) -> None:
    loss, outputs, targets_BL, known_BL = case(name, **DIFFERENTIABLE.get(name, {}))
    leaves = {key: tensor for key, tensor in outputs.items() if tensor.requires_grad}

    def value(*tensors: Tensor) -> Tensor:
        return loss(outputs | dict(zip(leaves, tensors, strict=True)), targets_BL, known_BL)

    assert torch.autograd.gradcheck(value, tuple(leaves.values()), fast_mode=True, nondet_tol=1e-12)


def value_and_gradients(loss: Any, outputs: dict[str, Tensor], *labels: Tensor) -> list[Tensor]:
    leaves = [tensor for tensor in outputs.values() if tensor.requires_grad]
    loss_B = loss(outputs, *labels)
    return [loss_B.detach(), *torch.autograd.grad(loss_B.sum(), leaves)]


@every_loss
def test_unknown_labels_contribute_nothing_to_a_loss(name: str) -> None:
    loss, outputs, targets_BL, known_BL = case(name)
    stated = value_and_gradients(loss, outputs, targets_BL, known_BL)
    flipped = value_and_gradients(loss, outputs, targets_BL ^ ~known_BL, known_BL)
    torch.testing.assert_close(stated, flipped, rtol=0, atol=1e-12)
    other = value_and_gradients(loss, outputs, targets_BL ^ known_BL, known_BL)
    assert not torch.allclose(stated[0], other[0])  # those that are known do


@every_loss
def test_a_loss_is_one_finite_number_per_image_however_sure_the_head_is(name: str) -> None:
    loss, outputs, targets_BL, known_BL = case(name)
    for factor in (1.0, 100.0):
        sure = {key: (factor * tensor.detach()).float().requires_grad_(tensor.requires_grad) for key, tensor in outputs.items()}
        loss_B, *gradients = value_and_gradients(loss, sure, targets_BL, known_BL)
        assert (loss_B.shape, loss_B.dtype) == ((5,), torch.float32)
        assert all(torch.isfinite(tensor).all() for tensor in (loss_B, *gradients))


@every_loss
def test_the_loss_of_an_image_does_not_depend_on_its_batch_unless_it_says_so(name: str) -> None:
    if getattr(LossSpec.of(name), "compares_samples", False):
        return
    loss, outputs, targets_BL, known_BL = case(name)
    shared = family_of(LossSpec(name=name).family).shared
    first = {key: tensor if key in shared else tensor[:2] for key, tensor in outputs.items()}
    torch.testing.assert_close(loss(first, targets_BL[:2], known_BL[:2]), loss(outputs, targets_BL, known_BL)[:2])


@every_loss
def test_a_head_learns_by_a_loss(name: str) -> None:
    loss = LossSpec(name=name)
    spec = head_spec(heads_of(loss.family)[0])
    learnt = distribution(trained(spec, loss), features_of(spec, TEST).float())
    assert mean_ap(learnt.ranking_scores()) > TEST.targets_NL.mean() + 0.2


# Poolings.


@every_pooling
def test_gradients_of_a_pooling_are_those_of_finite_differences_and_images_are_apart(name: str) -> None:
    pooling = build_pooling(name).double()
    maps_BFhw = torch.rand(3, F, 2, 2, dtype=torch.float64, requires_grad=True)
    features = pooling(maps_BFhw)
    assert features.shape == ((3, F, 4) if pooling.keeps_places else (3, F))
    torch.testing.assert_close(pooling(maps_BFhw[1:2]), features[1:2])
    assert torch.autograd.gradcheck(pooling, (maps_BFhw,), fast_mode=True)


# Systems: heads, losses and poolings in whole classifiers.


@every_system
def test_a_run_that_resumes_from_a_checkpoint_ends_bit_identical(name: str, tmp_path: Path) -> None:
    run = SYSTEMS[name].run(str(tmp_path))
    job = take_steps(job_of(run), STEPS // 2)
    save_checkpoint(run.run_folder, job.state.tensors(), job.state.progress, None)
    saved = latest(list_checkpoints(run.run_folder))
    assert saved
    resumed = job_of(run, is_fresh=False)
    resumed.state.restore(saved.load(), saved.progress)
    for one in (job, resumed):
        take_steps(one, STEPS - STEPS // 2)
    assert (job.state.progress, job.state.progress.step) == (resumed.state.progress, STEPS)
    assert_bits_equal(job.state.tensors(), resumed.state.tensors())


def assert_bits_equal(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@every_system
def test_an_average_follows_every_parameter_and_buffer(name: str) -> None:
    job = job_of(SYSTEMS[name].run(""))
    assert job.state.ema
    average = {key: tensor.double() for key, tensor in job.state.ema.classifier.state_dict().items()}
    for update in range(3):
        take_steps(job, 1)
        decay = min(job.state.ema.decay, (1 + update) / (10 + update))
        for key, tensor in job.state.classifier.state_dict().items():
            average[key] = decay * average[key] + (1 - decay) * tensor if tensor.is_floating_point() else tensor
    found = job.state.ema.classifier.state_dict()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor.double(), average[key].double(), rtol=1e-4, atol=1e-6, msg=key)


def bundle_of(system: System) -> Bundle:
    """The bundle of a system after a few steps."""
    run = system.run("")
    job = take_steps(job_of(run), STEPS)
    return Bundle(job.state.classifier.eval(), run.model, LABELS, TransformSpec(size_px=SIZE_PX))


def images(num_images: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (num_images, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


@bundled_systems
def test_a_bundle_gives_the_same_outputs(name: str, tmp_path: Path) -> None:
    bundle = bundle_of(SYSTEMS[name])
    bundle.save(str(tmp_path / "bundle"))
    again = Bundle.load(str(tmp_path / "bundle"))
    assert_bits_equal(again.classifier.state_dict(), bundle.classifier.state_dict())
    pixels = torch.from_numpy(images(3)).permute(0, 3, 1, 2)
    with torch.inference_mode():  # the layout of weights is not part of a bundle, and changes the rounding
        torch.testing.assert_close(again.classifier(pixels), bundle.classifier(pixels), rtol=1e-5, atol=1e-6)


@every_head
def test_predictions_and_queries_are_sums_over_label_sets(name: str, tmp_path: Path) -> None:
    bundle = bundle_of(SYSTEMS[f"head {name}"])
    bundle.save(str(tmp_path / "bundle"))
    model, query = rp.load(tmp_path / "bundle"), "P(red | !green)"
    sets_SL = np.array(list(product((False, True), repeat=L)))
    without_green = ~sets_SL[:, 1]
    for answer, image in zip(model.predict(images(3), queries=query), images(3), strict=True):
        one = answer.distribution
        p_S = np.exp([one.log_prob(set_L[None])[0] for set_L in sets_SL])
        near = NEAR.get(bundle.classifier.family, 1e-5)
        assert p_S.sum() == pytest.approx(1, abs=1e-6)
        if bundle.classifier.family in BY_DEFINITION:
            wanted = one.condition({1: False}).marginals()[0, 0]
        else:
            np.testing.assert_allclose(answer.marginals_L, p_S @ sets_SL, atol=near)
            wanted = p_S[sets_SL[:, 0] & without_green].sum() / p_S[without_green].sum()
        assert answer.answers[query] == pytest.approx(wanted, abs=near)
        assert model.predict(image, evidence={"green": False}).marginals["red"] == pytest.approx(wanted, abs=near)


@bundled_systems
def test_predictions_are_kept_bit_for_bit(name: str, tmp_path: Path) -> None:
    run = SYSTEMS[name].run("")
    classifier = classifier_of(run).eval()
    with torch.inference_mode():
        outputs = arrays(classifier(torch.from_numpy(images(4)).permute(0, 3, 1, 2)))
    known_NL = np.ones((4, L), bool)
    written = Predictions(LABELS, np.arange(4), TEST.targets_NL[:4], known_NL, classifier.family, outputs, {})
    written.write(str(tmp_path / "val.parquet"))
    read = Predictions.read(str(tmp_path / "val.parquet"))
    assert read.outputs.keys() == outputs.keys()
    for output, values in outputs.items():
        np.testing.assert_array_equal(read.outputs[output], values)
    np.testing.assert_array_equal(read.distribution().marginals(), written.distribution().marginals())


@bundled_systems
def test_the_graph_for_onnx_answers_as_the_bundle_or_is_refused_by_name(name: str) -> None:
    bundle = bundle_of(SYSTEMS[name])
    try:
        graph = Graph(bundle).eval()
    except ModelError as error:
        assert f"heads of the family {bundle.classifier.family} cannot be exported: " in str(error)  # noqa: PT017
        return
    with torch.inference_mode():
        found = graph(torch.from_numpy(images(3)))
    wanted = expected(bundle, images(3))
    for output, values in zip(graph.probabilities.names, found, strict=True):
        np.testing.assert_allclose(values, wanted[output], atol=1e-5, err_msg=output)
