"""A fingerprint of a dataset's labels that does not depend on format, files or shards. N samples, L labels."""

import hashlib

import numpy as np

from rayprob.data.manifest.dataset import Dataset


def label_fingerprint(dataset: Dataset) -> str:
    """Return 16 hex digits that change with the label space, and with any sample's id, split or known labels."""
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
