"""A vector per label, such as a word vector, from a file. L labels, V numbers per vector in the file, D in the model."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rayprob.arrays import Floats
from rayprob.errors import ModelError
from rayprob.files import storage
from rayprob.labels import composed
from rayprob.models.tensor_files import read_tensors
from rayprob.text import first_of

SHOWN = 5
LAYOUT = "a text file with a line `name v1 v2 ...` per label, or a .safetensors file with a tensor [V] per label"
WORD_ENDS = re.compile(r"[\s_/-]+")


def read_label_vectors(uri: str, names: Sequence[str], width: int) -> Tensor:
    """Return the vectors [L, width] of labels from a file, matched by name, with a root mean square of 1 over all labels.

    The file is a .safetensors file with a tensor [V] per name, or text with a line `name v1 v2 ...` per name, as GloVe and
    word2vec write it. A label that is not in the file gets the mean over the words of its name, as in ML-GCN. Vectors shorter
    than `width` are filled up with zeros. Longer ones are rotated and cut to their `width` principal directions, which keeps
    all inner products where L <= width. Raises ModelError for a file of another form or without some of the labels, and
    StorageError.
    """
    wanted = {spelling for name in names for spelling in (*_spellings(name), *_words(name))}
    found = _of_safetensors(uri) if uri.endswith(".safetensors") else _of_text(uri, wanted)
    of_label = {name: _vector(name, found) for name in names}
    missing = [name for name, vector_V in of_label.items() if vector_V is None]
    if missing:
        raise ModelError(
            f"{uri} lacks vectors of {len(missing):,} of {len(names):,} labels: {first_of(missing, SHOWN)}; add them, by the "
            "name of the label or by the words in it"
        )
    vectors_LV = np.stack([vector_V for vector_V in of_label.values() if vector_V is not None])
    if not np.isfinite(vectors_LV).all() or not vectors_LV.any():
        raise ModelError(f"{uri} has vectors that are not finite, or all zero; use {LAYOUT}")
    vectors_LD = _of_width(vectors_LV, width)
    return torch.from_numpy(vectors_LD / np.sqrt(np.square(vectors_LD).mean()))


def _of_safetensors(uri: str) -> dict[str, Floats]:
    tensors = read_tensors(storage.read_bytes(uri), uri)
    shapes = {tuple(tensor.shape) for tensor in tensors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ModelError(f"{uri} has tensors of the shapes {first_of(sorted(shapes), SHOWN)}; use {LAYOUT}")
    return {composed(name): tensor.double().numpy() for name, tensor in tensors.items()}


def _of_text(uri: str, wanted: set[str]) -> dict[str, Floats]:
    with storage.open_input(uri) as source:
        try:
            return dict(_wanted_lines(io.TextIOWrapper(source, encoding="utf-8-sig"), wanted))
        except ValueError as error:  # UnicodeDecodeError is one
            raise ModelError(f"{uri} cannot be read as label vectors ({error}); use {LAYOUT}") from error


def _wanted_lines(lines: io.TextIOWrapper, wanted: set[str]) -> Iterator[tuple[str, Floats]]:
    """Yield the `wanted` names with their vectors; names may contain spaces. Raises ValueError for a line of another form."""
    size = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and _is_header(line)):
            continue
        size = size or _count_numbers(line)
        name, *values = line.rsplit(maxsplit=size)
        if size == 0 or len(values) != size:
            raise ValueError(f"line {number}: expected a name and {size or 'several'} numbers, found {line.strip()[:60]!r}")
        if (name := composed(name)) in wanted:
            yield name, np.array(values, dtype=np.float64)


def _is_header(line: str) -> bool:
    """Whether a line is word2vec's first: the number of vectors and of their values."""
    parts = line.split()
    return len(parts) == 2 and all(part.isdigit() for part in parts)


def _count_numbers(line: str) -> int:
    """Return how many numbers follow the name, which is the first word at least."""
    parts = line.split()[1:]
    is_number = [re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", part, re.IGNORECASE) is not None for part in parts]
    return len(parts) if all(is_number) else is_number[::-1].index(False)


def _spellings(name: str) -> tuple[str, str]:
    return composed(name), composed(name).lower()


def _words(name: str) -> list[str]:
    return [word for word in WORD_ENDS.split(composed(name).lower()) if word]


def _vector(name: str, found: Mapping[str, Floats]) -> Floats | None:
    for spelling in _spellings(name):
        if spelling in found:
            return found[spelling]
    words = _words(name)
    if not words or any(word not in found for word in words):
        return None
    return np.asarray(np.mean([found[word] for word in words], axis=0))


def _of_width(vectors_LV: Floats, width: int) -> Floats:
    size = vectors_LV.shape[1]
    if size <= width:
        return np.pad(vectors_LV, ((0, 0), (0, width - size)))
    left_LR, lengths_R, _ = np.linalg.svd(vectors_LV, full_matrices=False)
    return _of_width((left_LR * lengths_R)[:, :width], width)
