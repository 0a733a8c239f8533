"""Vectors of labels from files: matched by name, of the width that a head has."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from rayprob.errors import ModelError
from rayprob.models.label_vectors import read_label_vectors

WORDS = {
    "cat": [1.0, 0.0, 2.0],
    "dining": [0.0, 3.0, 0.0],
    "table": [0.0, 1.0, 4.0],
    "hot dog": [-1.0, 5e-1, 0.25],
    "the": [9.0, 9.0, 9.0],
}
NAMES = ("hot dog", "Cat", "dining table")
EXPECTED = np.array([[-1.0, 0.5, 0.25], [1.0, 0.0, 2.0], [0.0, 2.0, 2.0]])


def text_file(folder: Path, header: str = "") -> str:
    path = folder / "words.txt"
    path.write_text(header + "".join(f"{word} {' '.join(map(str, values))}\n" for word, values in WORDS.items()))
    return str(path)


@pytest.mark.parametrize("header", ["", "5 3\n"])
def test_text_gives_a_vector_per_label_and_the_mean_over_words_of_a_label_that_it_lacks(tmp_path: Path, header: str) -> None:
    found = read_label_vectors(text_file(tmp_path, header), NAMES, 3).numpy()
    np.testing.assert_allclose(found, EXPECTED / np.sqrt((EXPECTED**2).mean()))


def test_safetensors_give_the_same_vectors_as_text(tmp_path: Path) -> None:
    path = str(tmp_path / "words.safetensors")
    safetensors.torch.save_file({word: torch.tensor(values) for word, values in WORDS.items()}, path)
    torch.testing.assert_close(read_label_vectors(path, NAMES, 3), read_label_vectors(text_file(tmp_path), NAMES, 3))


def test_short_vectors_end_in_zeros(tmp_path: Path) -> None:
    found = read_label_vectors(text_file(tmp_path), NAMES, 5).numpy()
    np.testing.assert_allclose(found, np.pad(EXPECTED, ((0, 0), (0, 2))) / np.sqrt((EXPECTED**2).sum() / 15))


def test_long_vectors_keep_the_inner_products_of_as_many_labels_as_the_width(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    vectors_LV = np.random.default_rng(0).normal(size=(4, 9))
    path.write_text("".join(f"label {n} x {' '.join(map(str, row))}\n" for n, row in enumerate(vectors_LV)))
    found = read_label_vectors(str(path), [f"label {n} x" for n in range(4)], 4).numpy()
    gram = vectors_LV @ vectors_LV.T
    np.testing.assert_allclose(found @ found.T, gram / (np.trace(gram) / 16))
    assert read_label_vectors(str(path), [f"label {n} x" for n in range(4)], 2).shape == (4, 2)


def test_labels_without_a_vector_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks vectors of 2 of 3 labels: kite, dining room; add them"):
        read_label_vectors(text_file(tmp_path), ("cat", "kite", "dining room"), 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 1 2 3\ndog 1 2\n", "line 2: expected a name and 3 numbers, found 'dog 1 2'"),
        ("cat\n", "line 1: expected a name and several numbers, found 'cat'"),
        ("cat 1 2 3\ndog 1 2 x\n", "could not convert string to float: 'x'"),
        ("cat 0 0\ndog 0 0\n", "vectors that are not finite, or all zero"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(ModelError, match=message):
        read_label_vectors(str(path), ("cat", "dog"), 3)


def test_tensors_of_several_shapes_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "weights.safetensors")
    safetensors.torch.save_file({"cat": torch.ones(3), "dog": torch.ones(2, 2)}, path)
    with pytest.raises(ModelError, match=r"has tensors of the shapes \(2, 2\), \(3,\); use a text file with a line"):
        read_label_vectors(path, ("cat", "dog"), 3)
