"""The verb that writes a bundle for other programs: export. Heavy imports stay inside it; app.py puts it on the app."""

from typing import TYPE_CHECKING, Annotated

import typer

from rayprob.cli.help import one_of
from rayprob.cli.terminal import err, out, show_line, status
from rayprob.cli.trained import BundleArgument, require_bundles
from rayprob.errors import RayprobError

if TYPE_CHECKING:
    from rayprob.export.checking import Exported
    from rayprob.export.hub import HubFolder
    from rayprob.export.measured import ExportImages, ExportLoss
    from rayprob.runs.bundle import Bundle

PRECISIONS = ("float32", "fp16", "int8")

Onnx = Annotated[str | None, typer.Option("--onnx", metavar="FILE", help="Write the ONNX graph, such as demo.onnx.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="Of the ONNX graph: float32, fp16, or int8, whose ranges come from images of the holdout.",
        autocompletion=one_of(*PRECISIONS),
    ),
]
Torch = Annotated[str | None, typer.Option("--torch", metavar="FILE", help="Write a torch.export program, such as demo.pt2.")]
Hub = Annotated[
    str | None, typer.Option("--hub", metavar="DIR", help="Write a folder for Hugging Face and timm, with the model card.")
]
Force = Annotated[bool, typer.Option("--force", help="Let --hub replace its files in a folder that is not empty.")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="DATASET", help="The images for fp16 and int8; by default the run's dataset.")
]
Split = Annotated[str, typer.Option("--split", metavar="SPLIT", help="On which split to measure the loss of fp16 and int8.")]
Number = Annotated[int, typer.Option("--images", metavar="N", min=1, help="On how many of its images, evenly spaced.")]


def export(
    bundle: BundleArgument,
    onnx: Onnx = None,
    precision: Precision = PRECISIONS[0],
    torch: Torch = None,
    hub: Hub = None,
    force: Force = False,
    data: Data = None,
    split: Split = "val",
    images: Number = 1000,
) -> None:
    """Write a bundle for other programs, checked against PyTorch.

    ONNX and torch.export files take pixels and return calibrated probabilities. A folder for Hugging Face has the model card,
    and weights that timm loads where it has the same network. Give one or several formats.

    Examples:

      rayprob export demo/run --onnx demo.onnx
      rayprob export demo/run --onnx small.onnx --precision int8
      rayprob export demo/run --torch demo.pt2 --hub demo-hub
    """
    _check_options(onnx, precision, torch, hub, force=force, data=data)
    require_bundles(bundle)
    from rayprob.runs.bundle import Bundle, bundle_fingerprint
    from rayprob.runs.paths import bundle_folder

    if hub is not None:
        from rayprob.export.hub import require_room

        require_room(hub, force=force)  # before anything is computed
    folder = bundle_folder(bundle)
    loaded, fingerprint = Bundle.load(folder), bundle_fingerprint(folder)
    if onnx is not None:
        _export_onnx(bundle, loaded, onnx, fingerprint, precision, data, split, images)
    if torch is not None:
        from rayprob.export.torch_file import export_torch

        with status(err, "exporting with torch.export"):
            exported = export_torch(loaded, torch, fingerprint=fingerprint)
        _show_file(exported, "torch.export")
    if hub is not None:
        from rayprob.export.hub import export_hub

        with status(err, "writing the folder"):
            written = export_hub(bundle, hub, force=force)
        _show_folder(written)


def _check_options(
    onnx: str | None, precision: str, torch: str | None, hub: str | None, *, force: bool, data: str | None
) -> None:
    if onnx is None and torch is None and hub is None:
        raise typer.BadParameter("give at least one of --onnx FILE, --torch FILE and --hub DIR")
    if precision not in PRECISIONS:
        raise typer.BadParameter(f"--precision must be one of {', '.join(PRECISIONS)}; got {precision}")
    if precision != PRECISIONS[0] and onnx is None:
        raise typer.BadParameter(f"--precision {precision} is that of an ONNX graph; add --onnx FILE")
    if data is not None and precision == PRECISIONS[0]:
        raise typer.BadParameter("--data has the images for a smaller graph; add --precision fp16 or int8, or leave it out")
    if force and hub is None:
        raise typer.BadParameter("--force is for --hub DIR; files are replaced without it")


def _export_onnx(
    path: str, bundle: "Bundle", onnx: str, fingerprint: str, precision: str, data: str | None, split: str, number: int
) -> None:
    from rayprob.export.onnx_file import export_onnx, onnx_reader
    from rayprob.files import storage

    if precision == PRECISIONS[0]:
        with status(err, "exporting to ONNX"):
            exported = export_onnx(bundle, onnx, fingerprint=fingerprint)
        _show_file(exported, "onnxruntime")
        return
    images, why_not = _open_images(path, precision, data, split)
    with status(err, f"exporting to ONNX in {precision}") as tell:
        calibration = images.for_calibration() if images and precision == "int8" else ()
        exported = export_onnx(bundle, onnx, fingerprint=fingerprint, precision=precision, images=calibration)
        tell(f"measuring the loss on {split}")
        reader = onnx_reader(storage.read_bytes(onnx))
        measured = images.measure({onnx: reader}, split, number)[onnx] if images else None
    _show_file(exported, f"onnxruntime in {precision}", is_checked=False)
    show_line(out, _loss(measured) if measured else f"the loss in mAP and ECE was not measured: {why_not}")


def _open_images(path: str, precision: str, data: str | None, split: str) -> tuple["ExportImages | None", str]:
    """Return the images to measure on, or why there are none, which is an error for int8 and for a dataset that was named."""
    from rayprob.export.measured import ExportImages

    try:
        return ExportImages.open(path, data, split), ""
    except RayprobError as error:
        if data is not None or precision == "int8":
            raise
        return None, str(error)


def _loss(measured: "ExportLoss") -> str:
    (before, after), (error, new_error) = measured.mAP, measured.ECE
    some = f"{measured.num_images:,} of the " if measured.num_images < measured.of_images else "the "
    return (
        f"on {some}{measured.of_images:,} images of {measured.split}: mAP {before:.4f} -> {after:.4f}, ECE {error:.4f} -> "
        f"{new_error:.4f}; marginals differ by at most {measured.largest_difference:.1e}"
    )


def _show_file(exported: "Exported", reader: str, *, is_checked: bool = True) -> None:
    from rayprob.export.checking import TOLERANCE

    show_line(out, f"{exported.path}: {exported.size_bytes / 1e6:.1f} MB; {', '.join(exported.outputs)}")
    batches = ", ".join(map(str, exported.batches))
    allowed = f" (allowed {TOLERANCE:.0e})" if is_checked else ""
    show_line(
        out,
        f"{reader} differs from PyTorch by at most {exported.largest_difference:.1e}{allowed}, "
        f"for batches of {batches} images of several sizes",
    )


def _show_folder(written: "HubFolder") -> None:
    total = sum(written.size_of.values()) / 1e6
    show_line(out, f"{written.path}: {total:.1f} MB; {', '.join(written.size_of)}")
    if written.timm_difference is None:
        show_line(out, f"timm cannot load it: {written.why_not_timm}; rayprob can: rp.load({written.path!r})")
    else:
        show_line(out, f"timm loads it: its logits differ from rayprob's by at most {written.timm_difference:.1e}")
    if written.why_no_onnx:
        show_line(out, f"no ONNX file: {written.why_no_onnx}")
