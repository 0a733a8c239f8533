"""The source of a recipe: the labels of every split, joined with the files that exist."""

import logging
from dataclasses import dataclass
from functools import cache

from rayprob.data.building.recipe import Recipe
from rayprob.data.sources import formats
from rayprob.data.sources.batch_file import scratch_folder
from rayprob.data.sources.image import SourceImages
from rayprob.data.sources.image_files import ImageFiles
from rayprob.data.sources.join_files import Reject, join_files
from rayprob.data.sources.join_labels import ColumnMap, joined_space
from rayprob.data.sources.kept_rows import kept_rows
from rayprob.data.sources.overlap import check_disjoint
from rayprob.data.sources.rows import Rest
from rayprob.data.sources.sample_ids import Keys, sample_ids, why_hashed
from rayprob.labels import LabelSpace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceData:
    """The contents of a source: per split the images to shard, and the listed images whose file is missing.

    `rest` is each split's state of labels that an image does not list; `dropped` counts what was left out, by reason.
    """

    label_space: LabelSpace
    images: dict[str, SourceImages]
    missing: list[Reject]
    folders: dict[str, str]  # of each split: what its file names are relative to
    rest: dict[str, Rest]
    dropped: dict[str, dict[str, int]]
    ids_note: str = ""  # why sample ids are not the source's own numbers


def read_source(recipe: Recipe) -> SourceData:
    """Read the labels and list the images of every split. Raises SourceError naming the file or split at fault.

    Rows pass through memory in batches and are kept on disk; memory holds 24 bytes per image, and 40 while files are looked up
    or ids compared.
    """
    stated = {split: formats.read(source) for split, source in recipe.splits.items()}
    described = {split: source.described for split, source in recipe.splits.items()}
    space = joined_space(stated, described, recipe.labels)
    scratch = scratch_folder(recipe.root)
    rows, dropped = {}, {}
    for split, one in stated.items():
        rows[split], dropped[split] = kept_rows(recipe, split, one, ColumnMap(one, space), scratch)
    keys = {split: Keys(some) for split, some in rows.items()}
    ids, files_of = sample_ids(keys), cache(lambda folder: ImageFiles(folder, scratch))
    images: dict[str, SourceImages] = {}
    missing: list[Reject] = []
    for split, one in stated.items():
        images[split], lost = join_files(split, recipe.splits[split], one, rows[split], ids[split], files_of)
        missing += lost
        log.info("%s: %s images to shard, %s missing", split, len(images[split]), len(lost))
    folders = {split: one.images for split, one in stated.items()}
    check_disjoint(folders, images, keys)
    rest = {split: one.rest for split, one in stated.items()}
    notes = [one.keys_note for one in stated.values() if one.keys_note] or [why_hashed(keys, ids)]
    return SourceData(space, images, missing, folders, rest, dropped, "; ".join(notes))
