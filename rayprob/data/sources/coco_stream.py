"""A large file of COCO annotations, read as a stream: images and annotations are written to disk as numbers and joined there.

This works for files as COCO and most tools write them: ids are integers, images do not list labels, and there are no faults.
Any other file is read as a whole, which also names its faults. I images, M labels of images.
"""

import re
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import numbers, to_array
from rayprob.data.sources.batch_file import BatchFile, dealt, joined
from rayprob.data.sources.coco_check import ID_LIMIT, check_shape, check_values
from rayprob.data.sources.coco_variants import LISTS, Entries
from rayprob.data.sources.faults import ODD_NAME, is_safe
from rayprob.data.sources.json_file import Pairs
from rayprob.data.sources.json_stream import NotStreamed, stream_json
from rayprob.data.sources.rows import ROWS, ImageRow, batch_of
from rayprob.data.sources.sample_ids import filled, hashes_of, repeated
from rayprob.data.sources.statements import lists_of
from rayprob.errors import SourceError

CHUNK_ROWS = 2**14
GROUP_CHUNKS = 8  # of images whose annotations are in memory at once
BOXES = pa.schema([("image", pa.int64()), ("category", pa.int64()), ("area_px2", pa.float64())])
MAY_BE_UNSAFE = re.compile(ODD_NAME)


class CocoStream:
    """The content of a file, on disk. `row_of` makes an image's row without its labels, `area_of` measures an annotation."""

    def __init__(
        self, uri: str, hook: Callable[[Pairs], Any], row_of: Callable[[Any], ImageRow], area_of: Callable[[Any], float]
    ) -> None:
        self.categories: Entries = []
        self.used: set[int] = set()  # ids of categories with annotations
        self._images, self._boxes = BatchFile(ROWS), BatchFile(BOXES)
        self._ids = array("q")
        self._row_of, self._area_of = row_of, area_of
        self._image_chunk: list[ImageRow] = []
        self._box_chunk: list[tuple[int, int, float]] = []
        try:
            stream_json(uri, hook, self._add)
            self._end_images()
            self._end_boxes()
        except (LookupError, TypeError, AttributeError, OverflowError, UnicodeError, SourceError) as error:
            raise NotStreamed(str(error)) from error
        self._check(uri)

    @property
    def content(self) -> dict[str, Any]:
        """The categories, and one annotation of each that is used."""
        boxes = [{"category_id": category} for category in self.used]
        return {"categories": self.categories, "images": [], "annotations": boxes}

    def rows(self, column_of: dict[Any, int]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of all images, in the order of the file."""
        order_I = np.argsort(np.frombuffer(self._ids, np.int64))
        ids_I = np.frombuffer(self._ids, np.int64)[order_I]
        placed = BatchFile(BOXES)
        for batch in self._boxes:
            images = order_I[np.searchsorted(ids_I, numbers(batch.column("image")))]
            columns = [column_of[category] for category in numbers(batch.column("category")).tolist()]
            arrays = [to_array(images, pa.int64()), to_array(columns, pa.int64()), batch.column("area_px2")]
            placed.append(pa.RecordBatch.from_arrays(arrays, schema=BOXES))
        del order_I, ids_I
        group_rows = GROUP_CHUNKS * CHUNK_ROWS
        num_groups = -(-self._images.num_rows // group_rows)
        pieces, pieces_of = dealt(placed, lambda _, batch: numbers(batch.column("image")) // group_rows, num_groups)
        for first, batch in self._images.with_starts():
            if first % group_rows == 0:
                largest = _largest(joined((pieces[place] for place in pieces_of[first // group_rows]), BOXES))
            yield _with_boxes(batch, first, *largest)

    def _add(self, key: str, entry: Any) -> None:
        if key == "images":
            self._add_image(entry)
        elif key == "annotations":
            self._add_box(entry)
        elif key == "categories":
            self.categories.append(entry)

    def _add_image(self, entry: Any) -> None:
        number, name = entry["id"], entry["file_name"]
        if type(number) is not int or not 0 <= number < ID_LIMIT or any(entry.get(key) is not None for key in LISTS):
            raise NotStreamed("an image with lists of labels, or an id that is not a number")
        if MAY_BE_UNSAFE.search(name) and ("://" in name or not is_safe(name)):
            raise NotStreamed("an unsafe file name")
        self._ids.append(number)
        self._image_chunk.append(self._row_of(entry))
        if len(self._image_chunk) == CHUNK_ROWS:
            self._end_images()

    def _add_box(self, entry: Any) -> None:
        image, category = entry["image_id"], entry["category_id"]
        if type(image) is not int or type(category) is not int or "segments_info" in entry:
            raise NotStreamed("an annotation with segments, or ids that are not numbers")
        self.used.add(category)
        self._box_chunk.append((image, category, self._area_of(entry)))
        if len(self._box_chunk) == CHUNK_ROWS:
            self._end_boxes()

    def _end_images(self) -> None:
        if self._image_chunk:
            self._images.append(batch_of(self._image_chunk))
            self._image_chunk.clear()

    def _end_boxes(self) -> None:
        if self._box_chunk:
            columns = zip(*self._box_chunk, strict=True)
            arrays = [to_array(list(column), field.type) for column, field in zip(columns, BOXES, strict=True)]
            self._boxes.append(pa.RecordBatch.from_arrays(arrays, schema=BOXES))
            self._box_chunk.clear()

    def _check(self, uri: str) -> None:
        """Raise NotStreamed for content that is a fault, or that only the reader of whole files understands."""
        if not (self.categories and len(self._images) and len(self._boxes)):
            raise NotStreamed("a list is missing or empty")
        content = {"categories": self.categories, "images": [], "annotations": []}
        try:
            check_shape(uri, content)
            check_values(uri, content)
        except SourceError as error:
            raise NotStreamed(str(error)) from error
        categories = {category["id"] for category in self.categories}
        if not all(isinstance(one, int) for one in categories) or not categories >= self.used:
            raise NotStreamed("categories that are not numbers, or that are missing")
        names = (hashes_of(batch.column("file_name").to_pylist()) for batch in self._images)
        if len(repeated(filled(self._images.num_rows, names))):
            raise NotStreamed("a file that is listed twice")
        ids_I = np.sort(np.frombuffer(self._ids, np.int64))
        if (ids_I[1:] == ids_I[:-1]).any() or not all(_are_in(numbers(box.column("image")), ids_I) for box in self._boxes):
            raise NotStreamed("an image that is listed twice, or is missing")


def _are_in(values_M: NDArray[np.int64], sorted_I: NDArray[np.int64]) -> bool:
    places_M = np.minimum(np.searchsorted(sorted_I, values_M), len(sorted_I) - 1)
    return bool((sorted_I[places_M] == values_M).all())


def _largest(boxes: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of image and column, sorted, each with the area of its largest box."""
    images, columns, areas = map(numbers, boxes.columns)
    order = np.lexsort((areas, columns, images))
    images, columns, areas = images[order], columns[order], areas[order]
    is_last = np.ones(len(order), dtype=bool)
    is_last[:-1] = (images[1:] != images[:-1]) | (columns[1:] != columns[:-1])
    return images[is_last], columns[is_last], areas[is_last]


def _with_boxes(
    batch: pa.RecordBatch, first: int, images_M: NDArray[np.int64], columns_M: NDArray[np.int64], areas_M: NDArray[np.float64]
) -> pa.RecordBatch:
    start, end = np.searchsorted(images_M, [first, first + batch.num_rows])
    labels = lists_of((images_M[start:end] - first, columns_M[start:end]), batch.num_rows)
    areas = pa.ListArray.from_arrays(labels.offsets, to_array(areas_M[start:end], pa.float64()))
    changed = {"labels": labels, "label_areas_px2": areas}
    return pa.RecordBatch.from_arrays([changed.get(name, batch.column(name)) for name in ROWS.names], schema=ROWS)
