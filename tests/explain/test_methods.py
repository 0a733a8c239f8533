"""Maps of where labels are seen: sums, relations between the methods, checks from the literature, and errors."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from rayprob.errors import LabelError, ModelError, QueryError
from rayprob.explain.choosing import choose_method
from rayprob.explain.explanation import Explanation
from rayprob.explain.members import Seen, explain, resampled
from rayprob.explain.methods.integrated_gradients import in_cells
from rayprob.models.heads.bernoulli import BernoulliHead
from rayprob.models.pooling import POOLINGS
from rayprob.runs.bundle import Bundle
from tests.explain.small import LABELS, SIDE, make_bundle, photo, seen, with_net

BERNOULLI: dict[str, object] = {"name": "bernoulli"}
EXACT = [
    ({"name": "bernoulli", "attention": 0.5}, "places"),
    ({"name": "csra"}, "places7"),
    ({"name": "graph", "width": 8, "hidden": 8}, "gmp"),
    ({"name": "compressed", "codes": 3}, "gap"),
]
JOINT: list[dict[str, object]] = [
    {"name": "mixture", "components": 3},
    {"name": "masked", "width": 16},
    {"name": "powerset", "sets": 8},
]
ATTENTIVE: list[dict[str, object]] = [
    {"name": "decoder", "width": 16, "feedforward": 16},
    {"name": "srn", "width": 8, "grid": 2},
]


@pytest.fixture(autouse=True)
def _net() -> Iterator[None]:
    with with_net():
        yield


def logits(bundle: Bundle, seed: int = 0) -> Any:
    images_1CHW = torch.from_numpy(photo(seed, bundle.transform_spec.size_px)).permute(2, 0, 1).unsqueeze(0)
    with torch.no_grad():
        return bundle.classifier(images_1CHW)["logits"][0].double().numpy()


@pytest.mark.parametrize(("head", "pooling"), [*EXACT, *((BERNOULLI, name) for name in POOLINGS)])
def test_contributions_and_rest_are_the_logit(head: dict[str, object], pooling: str) -> None:
    bundle = make_bundle(head, pooling=pooling)
    found = explain(seen(bundle), LABELS.names)
    assert {one.method for one in found} == {"contributions"}
    assert all(one.exact and one.grid_HW.shape == (SIDE, SIDE) for one in found)
    np.testing.assert_allclose([one.grid_HW.sum() + one.rest for one in found], logits(bundle), atol=1e-5)
    np.testing.assert_allclose([one.logit for one in found], logits(bundle), atol=1e-5)


def test_what_only_one_part_of_the_image_shows_is_mapped_there() -> None:
    bundle, black, lit = make_bundle(BERNOULLI), np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)
    lit[24:, :8] = 255  # the lowest cell on the left, which its right neighbour sees, too
    maps = [explain([Seen(bundle, pixels)], ["blue"])[0].grid_HW for pixels in (black, lit)]
    changed_HW = np.abs(maps[1] - maps[0])
    assert (changed_HW[3, :2] > 0.01).all()
    assert changed_HW[:3].max() == changed_HW[:, 2:].max() == 0


def test_gradcam_of_average_pooling_and_a_linear_head_is_the_positive_part_of_its_contributions() -> None:
    bundle = make_bundle(BERNOULLI)
    exact, gradcam = (explain(seen(bundle), LABELS.names, method) for method in ("contributions", "gradcam"))
    for one, other in zip(exact, gradcam, strict=True):
        np.testing.assert_allclose(other.grid_HW, np.maximum(one.grid_HW, 0), atol=1e-6)
        assert not other.exact
        assert other.rest is None


def test_integrated_gradients_sum_to_what_the_image_adds_to_the_mean_colour() -> None:
    bundle = make_bundle(BERNOULLI)
    for one in explain(seen(bundle), ["red", "blue"], "integrated_gradients"):
        assert one.grid_HW.shape == (32, 32)
        assert one.rest is not None
        np.testing.assert_allclose(one.grid_HW.sum() + one.rest, one.logit, atol=0.05 * abs(one.logit - one.rest) + 0.01)


@pytest.mark.parametrize("head", [*JOINT, *ATTENTIVE], ids=lambda head: str(head["name"]))
@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients"])
def test_gradient_methods_explain_the_log_odds_of_the_marginal(head: dict[str, object], method: str) -> None:
    bundle = make_bundle(head, pooling="places")
    outputs = bundle.classifier(torch.from_numpy(photo()).permute(2, 0, 1).unsqueeze(0))
    marginals_L = bundle.distribution(outputs).marginals()[0]
    (one,) = explain(seen(bundle), ["green"], method)
    np.testing.assert_allclose(1 / (1 + np.exp(-one.logit)), marginals_L[1], atol=1e-5)
    assert np.ptp(one.grid_HW) > 0


@pytest.mark.parametrize("head", ATTENTIVE, ids=lambda head: str(head["name"]))
def test_auto_takes_the_attention_of_a_head_that_explains_by_it(head: dict[str, object]) -> None:
    bundle = make_bundle(head, pooling="places")
    (one,) = explain(seen(bundle), ["red"], "attention")
    assert (one.method, one.exact, one.grid_HW.shape) == ("attention", False, (SIDE, SIDE))
    assert one.grid_HW.min() >= 0
    assert explain(seen(bundle), ["red"])[0].method == ("gradcam" if head["name"] == "srn" else "attention")


# Sanity checks of Adebayo et al. (NeurIPS 2018): a map that stays the same under random weights does not show the model.


@pytest.mark.parametrize("method", ["contributions", "gradcam", "integrated_gradients"])
def test_maps_of_a_network_with_other_random_weights_are_unlike(method: str) -> None:
    head: dict[str, object] = {"name": "csra"}
    assert_unlike(method, make_bundle(head, pooling="places"), make_bundle(head, seed=1, pooling="places"))


@pytest.mark.parametrize("method", ["contributions", "gradcam", "integrated_gradients"])
def test_maps_change_where_only_the_head_is_random(method: str) -> None:
    other = make_bundle(BERNOULLI)
    torch.manual_seed(7)
    torch.nn.init.normal_(other.classifier.head.get_submodule("linear").weight, std=0.3)
    assert_unlike(method, make_bundle(BERNOULLI), other)


def assert_unlike(method: str, one: Bundle, other: Bundle, num_images: int = 12) -> None:
    """Compare the maps of images by two networks. A map that is the same everywhere, as Grad-CAM's may be, does not count."""
    pairs = [
        (a.grid_HW.ravel(), b.grid_HW.ravel())
        for seed in range(num_images)
        for a, b in zip(*(explain(seen(bundle, seed), LABELS.names, method) for bundle in (one, other)), strict=True)
    ]
    varied = [(a, b) for a, b in pairs if np.ptp(a) and np.ptp(b)]
    assert len(varied) >= num_images
    assert np.mean([spearmanr(a, b).statistic for a, b in varied]) < 0.5


def test_an_ensemble_has_the_mean_of_its_members_maps_on_the_finest_grid() -> None:
    bundles = [make_bundle(BERNOULLI), make_bundle(BERNOULLI, seed=1, size_px=48)]
    parts = [explain(seen(bundle), ["red", "blue"]) for bundle in bundles]
    together = explain([seen(bundle)[0] for bundle in bundles], ["red", "blue"])
    for place, one in enumerate(together):
        assert one.grid_HW.shape == (6, 6)
        np.testing.assert_allclose(one.grid_HW.sum() + one.rest, np.mean([part[place].logit for part in parts]), atol=1e-5)


def test_members_with_different_heads_share_a_method() -> None:
    bundles = [make_bundle(BERNOULLI), make_bundle(JOINT[0], seed=1)]
    assert explain([seen(bundle)[0] for bundle in bundles], ["red"])[0].method == "gradcam"


def test_a_resampled_map_keeps_its_sum_and_its_place() -> None:
    grid_CHW = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    finer_CHW = resampled(grid_CHW, 6, 7)
    torch.testing.assert_close(finer_CHW.sum(dim=(1, 2)), grid_CHW.sum(dim=(1, 2)))
    torch.testing.assert_close(resampled(grid_CHW, 6, 8)[:, ::2, ::2], grid_CHW / 4)


def test_cells_of_pixels_keep_their_sum() -> None:
    values_CHW = torch.randn(2, 70, 30, generator=torch.Generator().manual_seed(0)).double()
    cells_CHW = in_cells(values_CHW)
    assert cells_CHW.shape == (2, 56, 30)
    torch.testing.assert_close(cells_CHW.sum(dim=(1, 2)), values_CHW.sum(dim=(1, 2)))


@pytest.mark.parametrize(
    ("row", "column", "words"), [(0, 0, "top left"), (1, 1, "centre"), (1, 2, "centre right"), (2, 1, "bottom centre")]
)
def test_a_peak_is_named_in_words(row: int, column: int, words: str) -> None:
    grid_HW = np.zeros((3, 3))
    assert Explanation("cat", "gradcam", grid_HW, exact=False).where == "nowhere"
    grid_HW[row, column] = 2.0
    one = Explanation("cat", "gradcam", grid_HW, exact=False)
    assert one.where == words
    np.testing.assert_allclose(one.peak, ((column + 0.5) / 3, (row + 0.5) / 3))


def test_as_plain_data_a_map_has_six_digits_and_its_rows() -> None:
    said = Explanation("cat", "contributions", np.array([[1 / 3, 0.0]]), exact=True, logit=1.5, rest=-1e-9).to_dict()
    assert said == {
        **{"label": "cat", "method": "contributions", "exact": True, "logit": 1.5, "rest": -1e-9},
        **{"height": 1, "width": 2, "box": [0.0, 0.0, 1.0, 1.0], "values": [[0.333333, 0.0]]},
    }


def test_errors_name_what_is_possible() -> None:
    mixture, recurrent = make_bundle(JOINT[0]), make_bundle({"name": "recurrent", "embedding": 8, "state": 8})
    with pytest.raises(QueryError, match="unknown explanation method 'gradcm'; nearest: gradcam; allowed: auto, attention"):
        explain(seen(mixture), ["red"], "gradcm")
    with pytest.raises(QueryError, match=r"contributions needs a head whose .* possible: gradcam, integrated_gradients"):
        explain(seen(mixture), ["red"], "contributions")
    for method in ("auto", "gradcam"):
        with pytest.raises(QueryError, match="which the family recurrent does not state; no method can map it"):
            explain(seen(recurrent), ["red"], method)
    with pytest.raises(LabelError, match="unknown label 'rad'; nearest: red"):
        explain(seen(mixture), ["rad"])


def test_without_captum_the_error_has_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ModelError, match=r"pip install 'rayprob\[explain\]'"):
        explain(seen(make_bundle(JOINT[0])), ["red"])
    assert explain(seen(make_bundle(BERNOULLI)), ["red"])[0].exact  # needs no package


def test_a_head_whose_sums_are_not_its_logits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(BERNOULLI)
    forward = BernoulliHead.forward
    monkeypatch.setattr(BernoulliHead, "forward", lambda self, x: {"logits": forward(self, x)["logits"] + 1})
    with pytest.raises(ModelError, match="BernoulliHead states do not sum to its logits"):
        explain(seen(bundle), ["red"])


def test_a_pooling_without_parts_has_no_contributions(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(BERNOULLI)
    monkeypatch.delattr(type(bundle.classifier.pooling), "parts")
    assert choose_method([bundle.classifier]) == "gradcam"


def test_explaining_leaves_the_model_as_it_is() -> None:
    bundle = make_bundle({"name": "mixture", "components": 2}, frozen="backbone")
    before = {name: tensor.clone() for name, tensor in bundle.classifier.state_dict().items()}
    for method in ("gradcam", "integrated_gradients"):
        explain(seen(bundle), ["red"], method)
    assert all(torch.equal(before[name], tensor) for name, tensor in bundle.classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in bundle.classifier.parameters())
    assert not bundle.classifier.training
