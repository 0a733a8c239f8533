"""The images to try that the page offers: those that a bundle comes with, or some of its run's dataset."""

from functools import cached_property

import numpy as np

from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import RayprobError
from rayprob.files import storage, uris
from rayprob.images.header import measure
from rayprob.images.kinds import READ_SUFFIXES
from rayprob.loader.reader import SampleReader
from rayprob.loader.shards import RangeReads
from rayprob.predict.images import DatasetImage
from rayprob.runs.finished import REPORTED
from rayprob.runs.folder import open_run
from rayprob.runs.paths import EXAMPLES, RunFolder

MOST_EXAMPLES = 24


class Examples:
    """The images to try of a bundle: those in its folder `examples`, sorted by name; without any, images of its run's dataset.

    `most_of_dataset` is the number of images that are taken from the split that the run reports on, evenly spaced.
    """

    def __init__(self, folder: str, most_of_dataset: int = 0) -> None:
        self._folder, self._most_of_dataset = folder, most_of_dataset

    @property
    def names(self) -> list[str]:
        """The names of the images; empty if there are none."""
        return self._own or list(self._of_dataset)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of one of `names`; None for any other name, and for what is not an image."""
        try:
            if name in self._own:
                content = storage.read_bytes(storage.join(self._folder, EXAMPLES, name))
            elif name in self.names:
                content = self._of_dataset[name].read()
            else:
                return None
            measure(content)
        except RayprobError:
            return None
        return content

    @property
    def _own(self) -> list[str]:
        try:
            names = storage.list_names(storage.join(self._folder, EXAMPLES))
        except RayprobError:
            return []
        return sorted(name for name in names if name.lower().endswith(READ_SUFFIXES))[:MOST_EXAMPLES]

    @cached_property
    def _of_dataset(self) -> dict[str, DatasetImage]:
        run_folder, _ = uris.split(self._folder.rstrip("/"))
        if not self._most_of_dataset or RunFolder(run_folder).bundle != self._folder.rstrip("/"):
            return {}
        try:
            root = open_run(run_folder).data.root
            if not isinstance(root, str):
                return {}
            manifest = Dataset.open(root).split(REPORTED)
        except RayprobError:  # a bundle answers without its run and dataset
            return {}
        rows = np.unique(np.linspace(0, len(manifest) - 1, self._most_of_dataset).astype(np.int64))
        reader = SampleReader(root, RangeReads(root))
        return {sample.key: DatasetImage(reader, sample) for sample in manifest.samples(rows)}
