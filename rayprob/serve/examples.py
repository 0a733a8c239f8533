"""The images to try that a bundle comes with."""

from rayprob.errors import SampleError, StorageError
from rayprob.files import storage
from rayprob.images.header import measure
from rayprob.images.kinds import READ_SUFFIXES
from rayprob.runs.paths import EXAMPLES

MOST_EXAMPLES = 24


def example_names(folder: str) -> list[str]:
    """Return the names of the images in the folder `examples` of a bundle, sorted; empty without such a folder."""
    try:
        names = storage.list_names(storage.join(folder, EXAMPLES))
    except StorageError:
        return []
    return sorted(name for name in names if name.lower().endswith(READ_SUFFIXES))[:MOST_EXAMPLES]


def read_example(folder: str, name: str) -> bytes | None:
    """Return the bytes of one of `example_names`; None for any other name, and for what is not an image."""
    if name not in example_names(folder):
        return None
    try:
        content = storage.read_bytes(storage.join(folder, EXAMPLES, name))
        measure(content)
    except (StorageError, SampleError):
        return None
    return content
