"""The types of arrays that the package passes around; a name's suffix gives the shape, as in `marginals_NL`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AnyFloats = NDArray[np.floating[Any]]  # of any precision, as a model returns them
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Rows = NDArray[np.int64]  # numbers of rows, to index with
Pixels = NDArray[np.uint8]  # one image or several, 0 to 255
