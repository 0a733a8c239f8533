"""An image of a source as the build plans it: its sample_id, where its bytes lie, and what is known of it."""

from dataclasses import dataclass
from typing import Any

from rayprob.data.sources.rows import ALONE


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of the source: where it lies and what its annotations state. Labels are columns of the dataset, ascending."""

    sample_id: int
    file_name: str
    height_px: int  # as declared; 0 where the source does not say
    width_px: int
    labels: tuple[int, ...]
    label_areas_px2: tuple[float, ...]  # beside `labels`: the area of the largest object with that label
    unknown_labels: tuple[int, ...]
    size_bytes: int = 0
    absent_labels: tuple[int, ...] = ()  # of a split whose other labels are unknown
    container: str = ""  # the file that holds the image, where that is not the image itself: an absolute path or URI
    offset_bytes: int = 0  # of the image in its container
    group: int = ALONE  # images of one group are in one split

    @property
    def values(self) -> list[Any]:
        """All values, those that 0.1 did not know only where they say something: shards of its builds are continued."""
        later = [self.absent_labels, self.container, self.offset_bytes]
        return [
            self.sample_id,
            self.file_name,
            self.height_px,
            self.width_px,
            self.labels,
            self.label_areas_px2,
            self.unknown_labels,
            self.size_bytes,
            *(later if any(later) else ()),
        ]
