"""How the versions of a dataset that grew are named, and where their files are.

`dataset.json` is the newest version, and `versions/FINGERPRINT.json` is an earlier one. All other files of all versions share
the folder: a version adds shards and files of the manifest, and changes none. Wherever a dataset is given, `ROOT@FINGERPRINT`
means that version of it.
"""

import re
from collections.abc import Iterator

from rayprob.files import storage, uris

FINGERPRINT = re.compile(r"[0-9a-f]{16}")
VERSION = re.compile(rf"(.+)@({FINGERPRINT.pattern})/*", re.DOTALL)
VERSIONS = "versions"


def split_version(root: str) -> tuple[str, str]:
    """Return the folder of a dataset, and the fingerprint of the version that `root` asks for; "" for the newest."""
    place, mark, options = (root, "", "") if uris.is_local(root) else root.partition("?")
    asked = VERSION.fullmatch(place)
    return (asked[1] + mark + options, asked[2]) if asked else (root, "")


def dataset_file(root: str, name: str) -> str:
    """Return the location of a file of a dataset, whichever version `root` asks for."""
    return storage.join(split_version(root)[0], name)


def version_file(fingerprint: str) -> str:
    """Return the name of the file that holds dataset.json as it was when the dataset had this fingerprint."""
    return f"{VERSIONS}/{fingerprint}.json"


def versions_kept(root: str) -> Iterator[str]:
    """Yield the fingerprints of the versions before the newest that the dataset at `root` keeps, in no order."""
    names = storage.list_names(dataset_file(root, VERSIONS))
    return (name.removesuffix(".json") for name in names if FINGERPRINT.fullmatch(name.removesuffix(".json")))


def at_version(root: str, fingerprint: object) -> str:
    """Return the version of the dataset at `root` that has this fingerprint, as ROOT@FINGERPRINT where it has grown since.

    `root` itself is returned where it asks for a version already, and where the dataset never had this fingerprint.
    """
    folder, version = split_version(root)
    if version or not isinstance(fingerprint, str) or not FINGERPRINT.fullmatch(fingerprint):
        return root
    grew = storage.exists(storage.join(folder, version_file(fingerprint)))
    return uris.beside(folder, f"@{fingerprint}") if grew else root
