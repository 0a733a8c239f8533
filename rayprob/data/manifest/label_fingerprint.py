"""What a dataset knows of labels as one number, whatever format, files and shards it comes from. N samples, L labels."""

import hashlib

import numpy as np

from rayprob.data.manifest.dataset import Dataset


def label_fingerprint(dataset: Dataset) -> str:
    """Return 16 hex digits that change with the label space, a sample's id or split, and with any label of it that is known."""
    digest = hashlib.sha256(dataset.label_space.fingerprint.encode())
    for split in sorted(dataset.splits):
        manifest = dataset.split(split)
        ids_N, known_NL = manifest.sample_ids(), manifest.known()
        order_N = np.argsort(ids_N)
        digest.update(f"{split}:{len(ids_N)}:".encode())
        digest.update(ids_N[order_N].tobytes())
        for values_NL in (known_NL, manifest.targets() & known_NL):
            digest.update(np.packbits(values_NL[order_N], axis=1).tobytes())
    return digest.hexdigest()[:16]
