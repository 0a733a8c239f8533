"""What is said of an image equals brute force over the label sets of the same distribution, and promises no more than holds."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import torch

from rayprob.errors import LabelError, QueryError
from rayprob.predict.images import find_images
from rayprob.predict.job import open_predictor, predict
from rayprob.predict.question import Question
from rayprob.predict.record import Record, Rejected
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.runs.bundle import Bundle
from tests.loader.tiny import write_dataset
from tests.predict.small import NAMES, make_bundle, sampled_like
from tests.probability.brute_force import all_sets, ask, set_probabilities

RARE = "P(cat | count >= 6)"  # a condition that no sample of `sampled_like` meets
PERSON, CAT, DOG, FORK, KNIFE, TABLE = range(6)


def records(bundle: Bundle, path: Path | str, *, batch: int = 16, **asked: object) -> list[Record]:
    question = Question.of(bundle, **asked)  # type: ignore[arg-type]
    outcomes = list(predict(open_predictor([bundle]), question, find_images([str(path)]), batch=batch, threads=2))
    assert all(isinstance(outcome, Record) for outcome in outcomes)
    return outcomes  # type: ignore[return-value]


def directly(bundle: Bundle, path: Path) -> LabelDistribution:
    """The calibrated distribution of one file, with nothing of predict but the size of its input."""
    pixels = torch.from_numpy(simplejpeg.decode_jpeg(path.read_bytes())).permute(2, 0, 1)[None]
    size_px = bundle.transform_spec.size_px
    squashed = torch.nn.functional.interpolate(pixels, (size_px, size_px), mode="bilinear", antialias=True)
    with torch.inference_mode():
        return bundle.distribution(bundle.classifier(squashed))


def listed(record: Record) -> dict[str, float]:
    return {line.label: line.marginal for line in record.labels}


def test_a_record_equals_brute_force(bundle: Bundle, photos: Path) -> None:
    queries = ["P(fork & knife)", "P(cat | dog)", "P(count >= 3 | !person)"]
    for place, record in enumerate(records(bundle, photos, queries=queries, top=6)):
        distribution = directly(bundle, photos / f"photo-{place}.jpg")
        sets_SL, p_S = all_sets(6), set_probabilities(distribution)[0]
        marginal_L = p_S @ sets_SL
        assert listed(record) == pytest.approx(dict(zip(NAMES, marginal_L, strict=True)), abs=1e-5)
        assert [line.marginal for line in record.labels] == sorted(listed(record).values(), reverse=True)
        assert [line.probability for line in record.top_sets or ()] == pytest.approx(sorted(p_S)[: -6 - 1 : -1], abs=1e-5)
        best = [name for name, is_present in zip(NAMES, sets_SL[np.argmax(p_S)], strict=True) if is_present]
        assert list((record.top_sets or ())[0].labels) == best
        chosen = [name for name, p, at in zip(NAMES, marginal_L, np.linspace(0.3, 0.6, 6), strict=True) if p >= at]
        assert (list(record.label_set), record.rule) == (chosen, "label_OF1")
        assert record.entropy_nats == pytest.approx(-(p_S * np.log(p_S)).sum(), abs=1e-4)
        truths = (
            ask(distribution, lambda y: {FORK, KNIFE} <= y, lambda y: True),
            ask(distribution, lambda y: CAT in y, lambda y: DOG in y),
            ask(distribution, lambda y: len(y) >= 3, lambda y: PERSON not in y),
        )
        assert [line.query for line in record.answers] == queries
        assert [line.probability for line in record.answers] == pytest.approx([truth[0] for truth in truths], abs=1e-5)


def test_evidence_enters_everything(bundle: Bundle, photos: Path) -> None:
    queries = ["P(fork & knife)", "P(cat | dog)"]
    (record,) = records(bundle, photos / "photo-2.jpg", queries=queries, evidence=["dining table=1", "!person"], top=6)
    (before,) = records(bundle, photos / "photo-2.jpg", top=6)
    distribution = directly(bundle, photos / "photo-2.jpg")

    def given(event: Callable[[frozenset[int]], bool], *, dog: bool = False) -> float:
        return float(ask(distribution, event, lambda y: TABLE in y and PERSON not in y and (not dog or DOG in y))[0])

    expected = {name: given(lambda y, column=column: column in y) for column, name in enumerate(NAMES)}
    assert listed(record) == pytest.approx(expected, abs=1e-5)
    assert {line.label: line.without_evidence for line in record.labels} == pytest.approx(listed(before), abs=1e-6)
    answers = given(lambda y: {FORK, KNIFE} <= y), given(lambda y: CAT in y, dog=True)
    assert [line.probability for line in record.answers] == pytest.approx(answers, abs=1e-5)
    assert record.evidence == {"dining table": True, "person": False}
    assert "dining table" in record.label_set
    assert all("dining table" in line.labels and "person" not in line.labels for line in record.top_sets or ())
    moved = max(set(NAMES) - set(record.evidence), key=lambda name: abs(expected[name] - listed(before)[name]))
    assert record.why[0].label == moved
    assert {piece.name for piece in record.why[0].pieces} == {"dining table", "person"}
    assert record.why[0].scenes


def test_evidence_decides_its_labels_whatever_the_rule(bundle: Bundle, photos: Path) -> None:
    for rule in ("0", "1", "0.5", "label_OF1", "recall@0.1", "best_F1", "top_set"):
        (record,) = records(bundle, photos / "photo-0.jpg", evidence=["cat=1", "dog=0"], rule=rule)
        assert "cat" in record.label_set
        assert "dog" not in record.label_set


def test_evidence_moves_nothing_where_labels_are_independent(photos: Path) -> None:
    bundle = make_bundle(2, {"name": "bernoulli"})
    (record,) = records(bundle, photos / "photo-1.jpg", evidence=["cat=1"], top=6)
    others = [line for line in record.labels if line.label != "cat"]
    assert [line.marginal for line in others] == pytest.approx([line.without_evidence for line in others])
    assert record.why == ()


def test_a_guarantee_is_stated_only_where_it_holds(bundle: Bundle, photos: Path) -> None:
    one, promise = photos / "photo-1.jpg", "misses at most 10 % of an image's labels on average"
    (record,) = records(bundle, one, rule="recall@0.1")
    assert record.guarantee is not None
    assert record.guarantee.startswith(promise)
    assert [line.label for line in record.labels if line.marginal >= 0.2] == [
        line.label for line in record.labels if line.label in record.label_set
    ]
    (record,) = records(bundle, one, rule="recall@0.1", evidence=["cat=1"])
    assert (record.guarantee, record.notes) == (None, ("no guarantee: it holds for images without evidence",))
    (record,) = records(bundle, one, rule="0.3")
    assert (record.guarantee, record.notes) == (None, ())


def certain(bundle: Bundle, **logits: float) -> Bundle:
    """The same bundle, but so sure of some labels that float64 has no room for doubt."""
    classifier = copy.deepcopy(bundle.classifier)
    weight, offsets = classifier.head.get_submodule("linear").weight, classifier.head.get_parameter("offsets")
    with torch.no_grad():
        for name, logit in logits.items():
            weight[NAMES.index(name)] = 0
            offsets.view(3, 6)[:, NAMES.index(name)] = logit
    return replace(bundle, classifier=classifier)


def test_a_query_whose_evidence_is_impossible_has_no_answer_and_the_others_have_one(bundle: Bundle, photos: Path) -> None:
    for record in records(certain(bundle, dog=-np.inf), photos, queries=["P(cat | dog)", "P(cat)"]):
        assert record.answers[0].probability is None
        assert record.answers[1].probability == pytest.approx(listed(record).get("cat", record.answers[1].probability))
        (note,) = record.notes
        assert note.startswith("no answer to P(cat | dog): the evidence of P(cat | dog) has probability 0: it contradicts")


def test_an_image_that_makes_the_evidence_impossible_is_rejected(bundle: Bundle, photos: Path) -> None:
    sure = certain(bundle, dog=-np.inf)
    question = Question.of(sure, evidence=["dog=1"])
    outcomes = list(predict(open_predictor([sure]), question, find_images([str(photos)])))
    assert all(isinstance(outcome, Rejected) for outcome in outcomes)
    assert "the evidence has probability 0: it contradicts" in str(outcomes[0])


def test_a_sample_of_a_dataset_and_its_file_get_the_same_answers(bundle: Bundle, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, [4], split="val")
    files = tmp_path / "files"
    files.mkdir()
    for image in find_images([dataset.root]):
        (files / f"{image.sample_id}.jpg").write_bytes(image.read())
    ours, theirs = records(bundle, dataset.root), records(bundle, files)
    assert [record.image.sample_id for record in ours] == [1000, 1001, 1002, 1003]
    assert all(np.array_equal(a.marginals_L, b.marginals_L) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_batch_changes_no_answer(bundle: Bundle, photos: Path, batch: int) -> None:
    whole, parts = (records(bundle, photos, batch=size, queries=["P(cat)"]) for size in (16, batch))
    assert [record.image.name for record in whole] == [record.image.name for record in parts]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a.marginals_L, b.marginals_L, atol=1e-5)


def test_a_png_gets_the_answers_of_its_pixels(bundle: Bundle, photos: Path) -> None:
    pixels = simplejpeg.decode_jpeg((photos / "photo-0.jpg").read_bytes())
    cv2.imwrite(str(photos / "same.png"), pixels[:, :, ::-1])
    (jpeg,), (png,) = (records(bundle, photos / name) for name in ("photo-0.jpg", "same.png"))
    assert np.array_equal(jpeg.marginals_L, png.marginals_L)


def test_json_has_these_keys_and_plain_values(bundle: Bundle, photos: Path) -> None:
    (record,) = records(bundle, photos / "photo-2.jpg", evidence=["dining table=1"], queries=["P(dog)"])
    said = record.to_dict()
    assert list(said) == [
        *("image", "sample_id", "error", "notes", "labels", "label_set", "rule", "guarantee", "top_sets", "entropy_nats"),
        *("entropy_standard_error", "evidence", "answers", "why", "uncertainty"),
    ]
    assert list(said["labels"][0]) == ["label", "marginal", "without_evidence"]
    assert said["labels"][0] == {
        "label": "dining table",
        "marginal": 1.0,
        "without_evidence": pytest.approx(record.labels[0].without_evidence, rel=1e-5),
    }
    assert (said["error"], said["evidence"], said["uncertainty"]) == (None, {"dining table": True}, None)
    assert list(said["why"][0]) == ["label", "log_odds_before", "log_odds", "pieces", "scenes"]


def test_what_cannot_be_asked_is_refused_before_any_image(bundle: Bundle) -> None:
    for asked, message in (
        ({"queries": ["P(frok & knife)"]}, r"unknown label 'frok'; nearest: fork(.|\n)*P\(frok & knife\)\n +\^\^\^\^"),
        ({"queries": ["P(fork & )"]}, r"a label is missing here\n  P\(fork & \)\n +\^"),
        ({"queries": ["P(cat | dog, !dog)"]}, r"contradictory evidence: 'dog' is given as present and as absent"),
        ({"queries": ["P(cat | dog)"], "evidence": ["dog=0"]}, r"contradictory evidence: 'dog' is given as present and as ab"),
        ({"evidence": ["dog=0", "dog"]}, r"contradictory evidence: 'dog' is stated as present and as absent; keep one"),
        ({"evidence": ["dog=maybe"]}, r"evidence 'dog=maybe' gives 'maybe'; write LABEL=1 \(present\) or LABEL=0"),
        ({"rule": "label_CF1"}, r"unknown rule for label sets 'label_CF1'; nearest: label_OF1"),
        ({"top": 0}, r"--top must be at least 1; got 0"),
    ):
        with pytest.raises(QueryError, match=message):
            Question.of(bundle, **asked)  # type: ignore[arg-type]
    with pytest.raises(LabelError, match=r"unknown label 'dinning table'; nearest: dining table"):
        Question.of(bundle, evidence=["dinning table=1"])


def test_answers_from_samples_have_standard_errors_and_a_note(bundle: Bundle, photos: Path) -> None:
    record, *_ = records(sampled_like(bundle), photos, queries=["P(fork & knife)"], evidence=["dog=1"], top=2)
    (answer,) = record.to_dict()["answers"]
    assert 0 < answer["standard_error"] < 0.05 < answer["probability"] < 1
    assert record.notes[-1].startswith("estimated from samples: marginals have standard errors of up to 0.0")
    assert all(not why.scenes for why in record.why)


def test_a_condition_that_no_sample_meets_is_too_improbable_to_estimate_and_not_impossible(
    bundle: Bundle, photos: Path
) -> None:
    (record,) = records(sampled_like(bundle), photos / "photo-1.jpg", queries=[RARE, "P(cat)"])
    assert [line.probability is None for line in record.answers] == [True, False]
    (note,) = [note for note in record.notes if note.startswith("no answer")]
    assert note.startswith(f"no answer to {RARE}: none of the 256 label sets drawn meets the evidence of {RARE}: it is too imp")
