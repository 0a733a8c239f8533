"""Features of a whole split under a bundle, computed once and stored in the run's folder. N samples, F features, L labels."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rayprob.arrays import Rows
from rayprob.config.spec import fingerprint
from rayprob.data.joined.dataset import AnyDataset, AnySplit
from rayprob.errors import BundleError, RunError
from rayprob.files import storage
from rayprob.files.documents import Shape, read_json
from rayprob.loader.augment import build_transform
from rayprob.loader.order import Place
from rayprob.loader.streams import EvalStream
from rayprob.loader.turns import samples_per_epoch, split_pieces
from rayprob.models.weights import WEIGHTS_FILE
from rayprob.runs.bundle import Bundle
from rayprob.runs.paths import DESCRIPTION_FILE, RunFolder
from rayprob.runs.spec import Run
from rayprob.train.compute import Compute, evaluating
from rayprob.train.evaluable import own_dataset, own_reading
from rayprob.train.training import Tell

MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class _Described(Shape):
    """The part of bundle.json that determines features."""

    files: dict[str, str]
    model: dict[str, Any]
    transform: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Features:
    """The features of each sample from a frozen backbone and pooling, with its targets; rows in order of sample_id.

    Features are [N, F], or [N, F, P] if the pooling keeps P places apart.
    """

    sample_ids_N: Tensor
    features_NF: Tensor
    targets_NL: Tensor
    known_NL: Tensor

    def __len__(self) -> int:
        return len(self.sample_ids_N)

    def to(self, device: torch.device) -> "Features":
        """Return a copy on a device."""
        return Features(*(tensor.to(device) for tensor in vars(self).values()))


class FeatureEpochs:
    """Which rows of a split's features an epoch takes: each once, or as often as the weight of its dataset says."""

    def __init__(self, split: AnySplit, features: Features, seed: int) -> None:
        self._split, self._seed = split, seed
        self._places_N = np.searchsorted(features.sample_ids_N.cpu().numpy(), split.sample_ids())
        self.num_rows = samples_per_epoch(split)

    def rows(self, epoch: int) -> Rows:
        """Return the rows of the features that an epoch takes, ascending."""
        return np.sort(self._places_N[split_pieces(self._split, seed=self._seed, epoch=epoch).rows()])


@dataclass(frozen=True)
class FeatureSource:
    """A finished run to compute features with: run file, dataset, bundle, and a fingerprint of what determines features."""

    run: Run
    dataset: AnyDataset
    bundle: Bundle
    fingerprint: str

    @classmethod
    def open(cls, run: Run, bundle: Bundle) -> "FeatureSource":
        """Bind a run, its bundle and its dataset. Raises LabelError if the dataset and the bundle have different labels."""
        dataset = own_dataset(run, bundle)
        uri = storage.join(RunFolder(run.run_folder).bundle, DESCRIPTION_FILE)
        described = read_json(uri, _Described, error=BundleError, remedy="copy the whole bundle again")
        parts = [described["files"][WEIGHTS_FILE], described["model"], described["transform"], dataset.fingerprint]
        reading = [bundle.reading.to_dict()] if bundle.reading.to_dict() else []  # features of 0.1 stay valid
        return cls(run, dataset, bundle, fingerprint([*parts, *reading]))


def split_features(source: FeatureSource, split: str, tell: Tell) -> Features:
    """Return the features of a split under the evaluation transform, from RUN/features if they are already there.

    `tell` gets events of kind features: the split, the samples done and the total. Raises DatasetError for an unknown
    split, RunError for a file of features that cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compute = Compute.plan(source.run.precision, Place(), device)
    name = f"{split}-{fingerprint([source.fingerprint, str(compute.autocast_dtype)])}.safetensors"
    uri = storage.join(RunFolder(source.run.run_folder).features, name)
    if storage.exists(uri):
        return _read(uri, len(source.bundle.label_space))
    features = _compute(source, split, compute, tell)
    storage.write_bytes(uri, safetensors.torch.save(vars(features)))
    return features


def _compute(source: FeatureSource, split: str, compute: Compute, tell: Tell) -> Features:
    manifest, bundle = source.dataset.split(split), source.bundle
    micro_batch = source.run.evaluation.micro_batch
    transform = build_transform(bundle.transform_spec)
    reading = own_reading(source.run, bundle)
    stream = EvalStream(manifest, source.run.stream, transform, place=Place(), micro_batch=micro_batch, reading=reading)
    compute.place_weights(bundle.classifier)
    rows: list[tuple[Tensor, ...]] = []
    with compute.settings(), evaluating(bundle.classifier):
        for batch in stream:
            with compute.autocast():
                features = bundle.classifier.features(compute.images(batch.images_BCHW)).float().cpu()
            if not rows:
                _require_memory(features, len(manifest), split)
            rows.append((batch.sample_ids_B, features, batch.targets_BL, batch.known_BL))
            done = min(len(rows) * micro_batch, len(manifest))
            tell({"kind": "features", "split": split, "done": done, "total": len(manifest)})
    bundle.classifier.to("cpu")
    tensors = [torch.cat(parts) for parts in zip(*rows, strict=True)]
    order = torch.argsort(tensors[0], stable=True)
    return Features(*(tensor[order].clone() for tensor in tensors))


def _require_memory(first: Tensor, num_samples: int, split: str) -> None:
    """Raise RunError if the features of all samples would not fit into memory; `first` is their first batch."""
    wanted_bytes = 2 * first[0].nbytes * num_samples  # the batches and their concatenation
    if wanted_bytes > MEMORY_BYTES:
        raise RunError(
            f"the features of the {num_samples:,} samples of {split} need {wanted_bytes / 1e9:,.1f} GB of memory, but "
            f"this machine has {MEMORY_BYTES / 1e9:,.1f} GB; train with pooling: gap (places multiplies the size of features "
            "by the number of places), or train the new head with `rayprob train` and model.frozen: backbone"
        )


def _read(uri: str, num_labels: int) -> Features:
    try:
        features = Features(**safetensors.torch.load(storage.read_bytes(uri)))
        _require_rows(features, num_labels)
    except (SafetensorError, TypeError, ValueError) as error:
        raise RunError(f"{uri} is not a valid features file ({error}); remove it to compute the features again") from error
    return features


def _require_rows(features: Features, num_labels: int) -> None:
    """Raise ValueError unless the tensors have one row per sample, and the types and labels that a fit needs."""
    dtypes = {"sample_ids_N": torch.int64, "features_NF": torch.float32, "targets_NL": torch.bool, "known_NL": torch.bool}
    for name, tensor in vars(features).items():
        last = [num_labels] if name.endswith("NL") else list(tensor.shape[1:])
        if tensor.dtype != dtypes[name] or list(tensor.shape) != [len(features), *last]:
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)} for {len(features):,} samples")
    if features.features_NF.ndim not in (2, 3):
        raise ValueError(f"features_NF has {features.features_NF.ndim} dimensions")
