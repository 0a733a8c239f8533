"""A label prior in a file, and over the labels of a classifier."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rayprob.errors import LabelError, ModelError, StorageError
from rayprob.labels import COCO_80, LabelSpace
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import KEY, LabelPriorFile
from rayprob.probability.priors.prior import LabelPrior

PRIOR = LabelPriorFile(
    ("cat", "dog", "caf\u00e9"),
    LabelMixture(np.array([0.25, 0.75]), np.array([[0.5, 0.25, 0.125], [0.125, 0.5, 0.25]])),
    "a test",
    {"num_label_sets": 7},
)


def space(*names: str) -> LabelSpace:
    return LabelSpace(names, tuple(range(len(names))))


def test_a_prior_comes_back_from_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "x.safetensors")
    PRIOR.save(path)
    found = LabelPriorFile.load(path)
    assert (found.names, found.source, found.facts) == (PRIOR.names, "a test", {"num_label_sets": 7})
    assert np.array_equal(found.mixture.probabilities_KL, PRIOR.mixture.probabilities_KL)


def test_a_mixture_whose_columns_were_taken_from_another_comes_back(tmp_path: Path) -> None:
    taken = LabelMixture(PRIOR.mixture.mixing_weights_K, PRIOR.mixture.probabilities_KL[:, [2, 0]])
    assert not taken.probabilities_KL.flags.c_contiguous
    LabelPriorFile(("dog", "cat"), taken, "a test").save(str(tmp_path / "x.safetensors"))
    assert np.array_equal(LabelPriorFile.load(str(tmp_path / "x.safetensors")).mixture.probabilities_KL, taken.probabilities_KL)


def test_labels_are_matched_by_name_whatever_their_order_and_spelling() -> None:
    over = PRIOR.over(space("cafe\u0301", "cow", "cat"))
    assert over.probabilities_KL.tolist() == [[0.125, 0.5, 0.5], [0.25, 0.5, 0.125]]
    assert np.allclose(LabelPrior.of(over).odds_KL[:, 1], 0), "a label that the prior does not know is left alone"


def test_pascal_vocs_names_are_cocos_labels() -> None:
    coco = LabelPriorFile.load("coco")
    voc = space("aeroplane", "tvmonitor", "person", "diningtable", "unicorn")
    assert [coco.names[own] for own in coco.columns(voc).values()] == ["airplane", "tv", "person", "dining table"]
    words = "knows 4 of the 5 labels, aeroplane as airplane, tvmonitor as tv, diningtable as dining table; "
    assert coco.matching(voc) == words + "treated as independent of the others: unicorn"
    assert coco.matching(COCO_80) == "knows all 80 labels"
    other_way = LabelPriorFile(voc.names[:3], PRIOR.mixture, "VOC")
    assert other_way.columns(space("tv", "dog", "airplane")) == {0: 1, 2: 0}


def test_a_label_of_the_prior_stands_for_one_label_only() -> None:
    coco = LabelPriorFile.load("coco")
    assert coco.columns(space("sofa", "couch", "chair")) == {1: coco.names.index("couch"), 2: coco.names.index("chair")}


def test_too_few_labels_in_common_are_named() -> None:
    with pytest.raises(LabelError, match=r"the label prior from a test knows 1 of the 2 labels, but needs at least 2"):
        PRIOR.over(space("cat", "cow"))


def test_the_shipped_prior_knows_cocos_labels_and_says_where_it_comes_from() -> None:
    coco = LabelPriorFile.load("coco")
    assert coco.names == COCO_80.names
    assert "COCO train2014" in coco.source
    assert coco.facts["num_label_sets"] == 82_081
    assert coco.mixture.mixing_weights_K.sum() == pytest.approx(1)
    person = COCO_80.column("person")
    assert coco.mixture.marginals_L[person] == pytest.approx(0.55, abs=0.01)
    assert "pizza, dining table, fork" in coco.scenes


def test_what_is_no_prior_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"unknown label prior 'cocoo'; nearest: coco.*or the path of a file"):
        LabelPriorFile.load("cocoo")
    with pytest.raises(StorageError, match="no file at"):
        LabelPriorFile.load(str(tmp_path / "nothing.safetensors"))
    whole = tmp_path / "whole.safetensors"
    PRIOR.save(str(whole))
    content = whole.read_bytes()
    for cut in range(0, len(content), 7):
        (tmp_path / "cut").write_bytes(content[:cut])
        with pytest.raises(ModelError, match=r"cut is not a label prior .*; write one with `rayprob prior`"):
            LabelPriorFile.load(str(tmp_path / "cut"))


NAMES, WEIGHTS, P_KL = ["cat", "dog"], np.array([0.25, 0.75]), np.full((2, 2), 0.5)
ODD = [
    (NAMES, np.array([0.25, np.nan]), P_KL, r"its mixing weights, of shape \[2\], sum to nan|mixing weights must be positive"),
    (NAMES, np.array([-0.25, 1.25]), P_KL, "mixing weights must be positive"),
    (NAMES, np.array([0.5, 0.75]), P_KL, "sum to 1.25, not to 1"),
    (NAMES, WEIGHTS[:, None], P_KL, r"of shape \[2, 1\]"),
    (NAMES, WEIGHTS, P_KL[:1], r"a label mixture needs weights \[K\] and probabilities \[K, L\]"),
    (NAMES, WEIGHTS, np.full((2, 2), np.nan), "probabilities must be strictly between 0 and 1"),
    (["cat", "dog", "cow"], WEIGHTS, P_KL, "its names must be a list of 2 texts"),
    ("cd", WEIGHTS, P_KL, "its names must be a list of 2 texts"),
    (["caf\u00e9", "cafe\u0301"], WEIGHTS, P_KL, "have the same name"),
]


@pytest.mark.parametrize(("names", "weights_K", "p_KL", "said"), ODD)
def test_odd_numbers_and_names_are_told_with_their_file(names, weights_K, p_KL, said, tmp_path: Path) -> None:
    told = {"version": 1, "names": names, "source": "a test", "facts": {}}
    arrays = {"mixing_weights_K": weights_K, "probabilities_KL": p_KL}
    (tmp_path / "odd").write_bytes(safetensors.numpy.save(arrays, {KEY: json.dumps(told)}))
    with pytest.raises(ModelError, match=rf"odd is not a label prior \(.*({said}).*write one with"):
        LabelPriorFile.load(str(tmp_path / "odd"))
