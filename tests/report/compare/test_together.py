"""Images matched by id and labels by name, whatever the order of the tables; what does not fit is left out and named."""

from dataclasses import replace

import numpy as np
import pytest

from rayprob.errors import MetricError
from rayprob.labels import LabelSpace
from rayprob.report.compare.together import together
from rayprob.runs.predictions import Predictions

TITLES = ("runs/a", "runs/b")


def table(ids: list[int], names: list[str], *, seed: int = 0) -> Predictions:
    """Return predictions whose annotations depend on id and name alone, and whose logits are those of the place."""
    shape = len(ids), len(names)
    targets = np.array([[(number * sum(map(ord, name))) % 3 == 0 for name in names] for number in ids]).reshape(shape)
    logits = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    space = LabelSpace(tuple(names), tuple(range(len(names))))
    return Predictions(space, np.array(ids), targets, np.ones(shape, dtype=bool), "bernoulli", {"logits": logits}, {})


def test_images_and_labels_are_matched_in_any_order() -> None:
    tables = table([4, 2, 9, 7], ["cat", "tv", "cup"]), table([7, 1, 4, 2], ["tvmonitor", "dog", "cat"])
    tables[1].targets_NL[:, 0] = table([7, 1, 4, 2], ["tv"]).targets_NL[:, 0]
    found = together(tables, TITLES)
    assert found.names == ("cat", "tv")
    ids = [one.sample_ids_N[rows].tolist() for one, rows in zip(tables, found.rows, strict=True)]
    assert ids == [[2, 4, 7], [2, 4, 7]]
    names = [[one.label_space.names[c] for c in columns] for one, columns in zip(tables, found.columns, strict=True)]
    assert names == [["cat", "tv"], ["cat", "tvmonitor"]]
    np.testing.assert_array_equal(found.targets_ML, table([2, 4, 7], ["cat", "tv"]).targets_NL)
    assert found.known_ML.all()
    assert found.notes == (
        "Images of runs/a left out because another model has no predictions for them: 1 of 4.",
        "Images of runs/b left out because another model has no predictions for them: 1 of 4.",
        "Of the 3 labels of runs/a, 2 are annotated and known to all models; left out: cup.",
        "Of the 3 labels of runs/b, 2 are annotated and known to all models; left out: dog.",
    )


def test_annotations_that_differ_are_unknown_and_counted() -> None:
    ids = list(range(1, 41))
    one, other = table(ids, ["cat", "dog"]), table(ids, ["cat", "dog"])
    other.targets_NL[3, 1] ^= True
    other.known_NL[5, 0] = False
    found = together([one, other], TITLES)
    assert np.argwhere(~found.known_ML).tolist() == [[3, 1], [5, 0]]
    assert found.notes == ("The datasets of the models differ in 2 annotations, which count as unknown.",)


def test_a_label_that_is_annotated_nowhere_is_left_out() -> None:
    one, other = table([1, 2, 3], ["cat", "dog"]), table([1, 2, 3], ["cat", "dog"])
    one.known_NL[:, 1] = other.known_NL[:, 1] = False
    assert together([one, other], TITLES).names == ("cat",)


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MetricError, match=r"no image in common \(predictions: runs/a 2, runs/b 1\); give --data DATASET"):
        together([table([1, 2], ["cat"]), table([3], ["cat"])], TITLES)
    with pytest.raises(MetricError, match=r"no annotated label in common \(runs/a: cat; runs/b: dog, cup\)"):
        together([table([1], ["cat"]), table([1], ["dog", "cup"])], TITLES)
    one = table([1, 2, 3, 4], ["cat", "dog"])
    other = replace(one, targets_NL=~one.targets_NL)
    with pytest.raises(MetricError, match="100% of the images that runs/a and runs/b share by id have different labels"):
        together([one, other], TITLES)
