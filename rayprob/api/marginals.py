"""The marginals of an image by label name."""

import numpy as np
from numpy.typing import NDArray

from rayprob.labels import LabelSpace


class Marginals(dict[str, float]):
    """Marginals by label name; the name of a label may be spelled with differently encoded accents."""

    def __init__(self, label_space: LabelSpace, marginals_L: NDArray[np.float64]) -> None:
        super().__init__(zip(label_space.names, marginals_L.tolist(), strict=True))
        self._label_space = label_space

    def __missing__(self, label: str) -> float:
        return self[self._label_space.names[self._label_space.column(label)]]
