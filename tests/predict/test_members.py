"""Members: dropout and ensembles, against the definition of both."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from scipy.stats import ks_2samp

from rayprob.errors import LabelError, ModelError
from rayprob.images.reading import READ_AS_STORED, READ_UPRIGHT
from rayprob.labels import LabelSpace
from rayprob.predict.images import find_images
from rayprob.predict.job import open_predictor, predict
from rayprob.predict.members import Forecast, Predictor
from rayprob.predict.question import Question
from rayprob.predict.record import Record
from rayprob.runs.bundle import Bundle
from tests.images.every_kind import turned_file
from tests.predict.small import NAMES, make_bundle
from tests.probability.brute_force import set_probabilities


def forecast(predictor: Predictor, num_images: int = 2) -> Forecast:
    random = np.random.default_rng(0)
    sizes = [random.integers(0, 256, (num_images, 3, one.size_px, one.size_px), dtype=np.uint8) for one in predictor.inputs]
    return predictor.forecast([torch.from_numpy(images) for images in sizes])


def records(predictor: Predictor, folder: Path, rule: str = "label_OF1") -> list[Record]:
    question = Question.of(predictor.bundle, rule=rule, top=6)
    return [one for one in predict(predictor, question, find_images([str(folder)])) if isinstance(one, Record)]


def binary_entropy(p: np.ndarray) -> np.ndarray:
    return np.asarray(scipy_entropy(np.stack([p, 1 - p])))


def test_members_by_dropout_are_distributed_as_the_head_in_training(bundle: Bundle) -> None:
    members = forecast(open_predictor([bundle], mc_dropout=400)).members
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))
    torch.manual_seed(0)
    with torch.inference_mode():
        features_BF = bundle.classifier.features(images)
        bundle.classifier.head.train()
        passes = [bundle.distribution(bundle.classifier.head(features_BF)).marginals() for _ in range(400)]
        bundle.classifier.head.eval()
    ours_MBL = np.stack([member.marginals() for member in members])
    assert (ours_MBL.std(axis=0) > 0.01).all()
    assert ks_2samp(ours_MBL, np.stack(passes), axis=0).pvalue.min() > 1e-4


def test_dropout_adds_members_and_leaves_the_answers_alone(bundle: Bundle, photos: Path) -> None:
    plain = records(open_predictor([bundle]), photos, rule="recall@0.1")
    dropped = records(open_predictor([bundle], mc_dropout=5), photos, rule="recall@0.1")
    for a, b in zip(plain, dropped, strict=True):
        assert a.to_dict() == b.to_dict() | {"uncertainty": None}
    again = records(open_predictor([bundle], mc_dropout=5), photos / "photo-3.jpg")
    assert again[0].uncertainty is not None
    assert dropped[3].uncertainty is not None
    assert again[0].uncertainty.epistemic_nats == pytest.approx(dropped[3].uncertainty.epistemic_nats, rel=1e-3)


def test_an_ensemble_is_the_equal_mixture_of_its_members(bundle: Bundle) -> None:
    others = [
        make_bundle(2, {"name": "bernoulli"}, size_px=32),
        make_bundle(3, {"name": "mixture", "components": 2}, size_px=48),
    ]
    predictor = open_predictor([bundle, *others])
    assert [one.size_px for one in predictor.inputs] == [32, 48]
    together = forecast(predictor)
    alone = np.mean([set_probabilities(member) for member in together.members], axis=0)
    np.testing.assert_allclose(set_probabilities(together.distribution), alone, atol=1e-9)
    marginals = np.mean([member.marginals() for member in together.members], axis=0)
    np.testing.assert_allclose(together.distribution.marginals(), marginals, atol=1e-9)


def test_total_uncertainty_is_what_members_share_and_what_they_dispute(bundle: Bundle, photos: Path) -> None:
    bundles: Sequence[Bundle] = [bundle, make_bundle(2, {"name": "bernoulli"})]
    singles = [records(open_predictor([one]), photos) for one in bundles]
    for together, *each in zip(records(open_predictor(bundles), photos), *singles, strict=True):
        marginals_ML = np.stack([record.marginals_L for record in each])
        doubt = together.uncertainty
        assert doubt is not None
        assert doubt.total_nats == pytest.approx(binary_entropy(marginals_ML.mean(axis=0)).sum())
        assert doubt.aleatoric_nats == pytest.approx(binary_entropy(marginals_ML).mean(axis=0).sum())
        assert doubt.epistemic_nats == pytest.approx(doubt.total_nats - doubt.aleatoric_nats)
        for line in doubt.labels:
            column = NAMES.index(line.label)
            assert (line.lowest, line.highest) == pytest.approx((marginals_ML[:, column].min(), marginals_ML[:, column].max()))
        assert [line.label for line in doubt.labels] == [line.label for line in together.labels]


def test_members_see_the_evidence_too(bundle: Bundle, photos: Path) -> None:
    predictor = open_predictor([bundle, make_bundle(2, {"name": "bernoulli"})])
    question = Question.of(predictor.bundle, evidence=["cat=1", "dog=0"], top=6)
    for record in predict(predictor, question, find_images([str(photos)])):
        assert isinstance(record, Record)
        assert record.uncertainty is not None
        known = [line for line in record.uncertainty.labels if line.label in ("cat", "dog")]
        assert [line.label for line in known] == ["cat", "dog"]
        # Mixing weights sum to 1 only to rounding.
        np.testing.assert_allclose([(line.lowest, line.total_nats) for line in known], [(1, 0), (0, 0)], atol=1e-13)


def test_each_member_sees_images_as_it_was_trained_on_them(tmp_path: Path) -> None:
    old, new = (
        replace(make_bundle(seed, {"name": "bernoulli"}), reading=r) for seed, r in ((1, READ_AS_STORED), (2, READ_UPRIGHT))
    )
    (tmp_path / "photo.jpg").write_bytes(turned_file("JPEG", 6))
    (both,) = records(open_predictor([old, new]), tmp_path, rule="0.5")
    alone = [records(open_predictor([one]), tmp_path, rule="0.5")[0].marginals_L for one in (old, new)]
    assert both.marginals_L == pytest.approx(np.mean(alone, axis=0), abs=1e-6)


def test_an_ensemble_keeps_no_guarantee(bundle: Bundle, photos: Path) -> None:
    for record in records(open_predictor([bundle, bundle]), photos, rule="recall@0.1"):
        assert (record.guarantee, len(record.notes)) == (None, 1)
        assert record.notes[0] == "no guarantee: the guarantee was fitted for one bundle, not for an ensemble"


def test_members_that_cannot_be_are_refused(bundle: Bundle) -> None:
    firm = make_bundle(2, {"name": "bernoulli"})
    with pytest.raises(
        ModelError, match=r"needs a head trained with dropout, but this bundle's head has dropout 0; train with"
    ):
        open_predictor([firm], mc_dropout=5)
    with pytest.raises(ModelError, match=r"Monte Carlo dropout needs at least 2 members; got 1"):
        open_predictor([bundle], mc_dropout=1)
    with pytest.raises(ModelError, match=r"Monte Carlo dropout and an ensemble cannot be combined; use one of them"):
        open_predictor([bundle, firm], mc_dropout=5)
    other = make_bundle(2, {"name": "bernoulli"}, labels=LabelSpace(("cat", "cow"), (1, 2)))
    with pytest.raises(LabelError, match=r"the labels of bundle 1 of the ensemble and bundle 2 differ: 6 labels against 2"):
        open_predictor([bundle, other])
