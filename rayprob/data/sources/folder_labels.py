"""One folder per label; an image with several labels is in several folders, under the same name."""

import posixpath
from collections import defaultdict
from collections.abc import Iterator

from rayprob.data.sources.faults import label_space
from rayprob.data.sources.image_files import ImageFiles
from rayprob.data.sources.rows import ImageRow, Stated, batches_of
from rayprob.data.sources.spec import Source
from rayprob.errors import SourceError
from rayprob.files import storage

OUTSIDE = "an image outside the folders of labels"
COPIES = "a copy of an image under another label, counted as one image"


class FoldersSource(Source):
    """Labels by folder: `images` contains one folder per label."""


def read(source: FoldersSource) -> Stated:
    """Return the labels of images by the folders that contain them.

    Files with the same name in several folders are one image if their bytes are the same, else several. Raises SourceError.
    """
    files = ImageFiles(source.images)
    inside = [name for name in files.images() if "/" in name]
    if not inside:
        raise SourceError(f"{source.images} contains no folder with images; give the folder that contains one folder per label")
    names = sorted({name.partition("/")[0] for name in inside})
    images = dict(_images(source.images, files, inside))
    dropped = {OUTSIDE: len(files.images()) - len(inside), COPIES: len(inside) - len(images)}
    return Stated(
        label_space=label_space(source.images, names),
        rest=source.rest or "absent",
        batches=batches_of(_rows(images, {name: column for column, name in enumerate(names)})),
        images=source.images,
        dropped={reason: count for reason, count in dropped.items() if count},
        is_declared=False,
    )


def _images(folder: str, files: ImageFiles, names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the key and the files of each image."""
    of_base: dict[str, list[str]] = defaultdict(list)
    for name in names:
        of_base[name.partition("/")[2]].append(name)
    are_distinct = len({posixpath.splitext(base)[0] for base in of_base}) == len(of_base)
    for base, some in of_base.items():
        stem = posixpath.splitext(base)[0] if are_distinct else base
        if _are_copies(folder, files, some):
            yield stem, some
        else:
            yield from ((name, [name]) for name in some)


def _are_copies(folder: str, files: ImageFiles, names: list[str]) -> bool:
    if len({files.find(name)[1] for name in names}) > 1:  # type: ignore[index]  # all of them are listed
        return False
    return len({storage.read_bytes(storage.join(folder, name)) for name in names}) == 1 if len(names) > 1 else True


def _rows(images: dict[str, list[str]], column_of: dict[str, int]) -> Iterator[ImageRow]:
    for key, names in images.items():
        labels = sorted(column_of[name.partition("/")[0]] for name in names)
        yield ImageRow(key=key, file_name=names[0], labels=tuple(labels))
