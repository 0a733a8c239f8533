"""Groups of images that stay in one split, such as those of a patient, a video or a product. A group is a hash of its name."""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from rayprob.data.sources.cells import as_text
from rayprob.data.sources.rows import ALONE, ImageRow, Stated, batches_of, rows_of
from rayprob.data.sources.spec import Source
from rayprob.errors import SourceError
from rayprob.seeds import derive

log = logging.getLogger(__name__)


def group_of(name: Any) -> int:
    """Return the group of a name, which may be a number; ALONE if it is missing or blank. Equal names give equal groups."""
    text = as_text(name)
    return derive(0, "group", text) or 1 if text else ALONE


def with_groups(stated: Stated, source: Source) -> Stated:
    """Return the labels of a source, each image with its group if the recipe groups images.

    Reading the batches raises SourceError if no image has a group, and logs a warning that counts images without one.
    """
    if not source.is_grouped:
        return stated
    return replace(stated, batches=batches_of(_counted(_grouped(stated.batches, source.group_pattern), source)))


def _grouped(batches: Iterable[pa.RecordBatch], pattern: str | None) -> Iterator[ImageRow]:
    for row in rows_of(batches):
        found = re.search(pattern, row.file_name) if pattern is not None else None
        yield row._replace(group=group_of(found[bool(found.re.groups)])) if found else row


def _counted(rows: Iterable[ImageRow], source: Source) -> Iterator[ImageRow]:
    num_rows = num_alone = 0
    example = ""
    for row in rows:
        num_rows += 1
        if row.group == ALONE:
            num_alone += 1
            example = example or row.file_name
        yield row
    if num_alone and num_alone == num_rows:
        key = "group_pattern" if source.group_pattern is not None else "group"
        raise SourceError(
            f"{source.described}: {key} gives none of the {num_rows:,} images a group, such as {example!a}; correct {key}"
        )
    if num_alone:
        log.warning(
            "%s: %s of %s images, such as %s, have no group; each may be in any split",
            source.described,
            f"{num_alone:,}",
            f"{num_rows:,}",
            ascii(example),
        )
