"""A bundle as a folder for Hugging Face: the layout that timm and its hub expect, which `rp.load` reads as a bundle.

config.json            architecture, labels and preprocessing, as timm writes them
model.safetensors      the weights, under timm's names where timm computes the same
labels.json            the labels in column order
README.md, card.json   the model card
model.onnx             the ONNX graph, if the bundle has one and the extra is installed
bundle.json, calibrator.safetensors    what else rayprob needs
"""

import json
import tempfile
from dataclasses import dataclass
from typing import Any

from rayprob.data.manifest.facts import is_dataset
from rayprob.errors import BundleError, ModelError
from rayprob.export.onnx_file import export_onnx
from rayprob.export.timm_layout import TimmLayout, timm_layout
from rayprob.files import storage
from rayprob.models.weights import HUB_WEIGHTS_FILE, WEIGHTS_FILE, classifier_bytes
from rayprob.runs.bundle import CALIBRATOR_FILE, Bundle, fingerprint_of, replace_files, replace_local
from rayprob.runs.card import read_card
from rayprob.runs.card.page import page_of
from rayprob.runs.kinds import is_sweep
from rayprob.runs.paths import CARD_FILE, DESCRIPTION_FILE, RunFolder, bundle_folder, is_bundle
from rayprob.text import first_of

CONFIG_FILE, LABELS_FILE, PAGE_FILE, ONNX_FILE = "config.json", "labels.json", "README.md", "model.onnx"
OPTIONAL = (CALIBRATOR_FILE, ONNX_FILE)  # removed where an earlier export left them
MOST_NAMED = 5


@dataclass(frozen=True)
class HubFolder:
    """What was written: the sizes of files in bytes, and why timm or ONNX cannot read the model, "" if they can."""

    path: str
    size_of: dict[str, int]
    timm_difference: float | None  # the largest difference of a logit on drawn images
    why_not_timm: str
    why_no_onnx: str


def export_hub(path: str, folder: str, *, force: bool = False, with_onnx: bool = True) -> HubFolder:
    """Write the bundle at `path`, of a bundle or a run, into a folder or URI in the layout of Hugging Face.

    A folder that does not exist appears complete. One with files is refused unless `force`, which replaces the files of the
    layout and keeps the others, such as those of git. Raises BundleError for such a folder, StorageError.
    """
    require_room(folder, force=force)
    bundle = Bundle.load(bundle_folder(path))
    layout = timm_layout(bundle)
    names = layout.names if isinstance(layout, TimmLayout) else None
    files = bundle.files({HUB_WEIGHTS_FILE: classifier_bytes(bundle.classifier, bundle.label_space, names)})
    description = files.pop(DESCRIPTION_FILE)
    card = read_card(path) | {"bundle": fingerprint_of(description)}
    onnx, why_no_onnx = _onnx(bundle, card["bundle"]) if with_onnx else ({}, "not asked for")
    files |= {
        CONFIG_FILE: _as_json(config_of(bundle, layout)),
        LABELS_FILE: _as_json(bundle.label_space.to_dict()),
        CARD_FILE: _as_json(card),
        PAGE_FILE: _page(card, layout, has_onnx=bool(onnx)).encode(),
        **onnx,
        DESCRIPTION_FILE: description,  # last
    }
    _write(folder, files)
    sizes = {name: len(content) for name, content in files.items()}
    if isinstance(layout, str):
        return HubFolder(folder, sizes, None, layout, why_no_onnx)
    return HubFolder(folder, sizes, layout.largest_difference, "", why_no_onnx)


def require_room(folder: str, *, force: bool) -> None:
    """Raise BundleError unless a folder can take the export."""
    if storage.exists(folder) and not storage.is_folder(folder):
        raise BundleError(f"{folder} is a file; give a folder that does not exist yet")
    is_own = storage.exists(storage.join(folder, WEIGHTS_FILE)) or storage.exists(RunFolder(folder).run_file)
    if is_own or is_sweep(folder) or is_dataset(folder):
        raise BundleError(f"{folder} is a folder of rayprob itself, which export never writes to; give another folder")
    found = storage.list_below(folder).size_of
    if found and not force:
        what = "an earlier export" if is_bundle(folder) else first_of(found, MOST_NAMED)
        raise BundleError(
            f"{folder} is not empty ({what}); give another folder, or --force, which replaces the files of an export and keeps "
            "the others"
        )


def config_of(bundle: Bundle, layout: TimmLayout | str) -> dict[str, Any]:
    """Return config.json: what timm needs to build the network, and how images become its input."""
    backbone, size_px, num_labels = bundle.classifier.backbone, bundle.transform_spec.size_px, len(bundle.label_space)
    config: dict[str, Any] = {
        "architecture": bundle.model_spec.backbone,
        "num_classes": num_labels,
        "num_features": bundle.classifier.num_features,
        "label_names": list(bundle.label_space.names),
    }
    preprocessing: dict[str, Any] = {
        "input_size": [3, size_px, size_px],
        "fixed_input_size": False,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": [float(value) for value in backbone.mean.flatten()],
        "std": [float(value) for value in backbone.std.flatten()],
        "num_classes": num_labels,
    }
    if isinstance(layout, TimmLayout):
        config |= {"architecture": layout.architecture, "num_features": layout.num_features}
        config |= {"model_args": layout.model_args} if layout.model_args else {}
        preprocessing |= {"first_conv": layout.first_conv, "classifier": layout.names.classifier, "custom_load": False}
    return {**config, "pretrained_cfg": preprocessing}


def _onnx(bundle: Bundle, fingerprint: str) -> tuple[dict[str, bytes], str]:
    """Return the ONNX file, or why there is none."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(bundle, f"{folder}/{ONNX_FILE}", fingerprint=fingerprint)
            return {ONNX_FILE: storage.read_bytes(f"{folder}/{ONNX_FILE}")}, ""
    except ModelError as error:
        return {}, str(error)


def _write(folder: str, files: dict[str, bytes]) -> None:
    if storage.is_local(folder) and not storage.exists(folder):
        replace_local(storage.local_path(folder), files)
        return
    replace_files(folder, files)
    for name in OPTIONAL:
        if name not in files:
            storage.remove(storage.join(folder, name))


def _as_json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _page(card: dict[str, Any], layout: TimmLayout | str, *, has_onnx: bool) -> str:
    is_timms = isinstance(layout, TimmLayout)
    return page_of(card, library="timm" if is_timms else "rayprob", use=_use(layout, has_onnx=has_onnx))


def _use(layout: TimmLayout | str, *, has_onnx: bool) -> str:
    """Return how to load the model from the folder, as Markdown."""
    parts = ["## Load it", "With rayprob, calibrated and with all rules; DIR is this folder:", RAYPROB_CODE]
    if isinstance(layout, TimmLayout):
        parts += ["With timm, without calibration (its outputs are logits; apply a sigmoid):", TIMM_CODE]
    else:
        parts.append(f"timm cannot load it: {layout}.")
    if has_onnx:
        parts.append(f"`{ONNX_FILE}` takes pixels (uint8, N x H x W x 3, RGB) and returns calibrated probabilities.")
    return "\n\n".join(parts)


RAYPROB_CODE = """```python
import rayprob as rp

rp.load("DIR").predict("photo.jpg").marginals
```"""
TIMM_CODE = """```python
import timm

model = timm.create_model("local-dir:DIR", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```"""
