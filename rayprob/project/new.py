"""`rayprob new`: a project that is ready to run, or one that fits a folder of labelled images."""

from rayprob.errors import SpecError
from rayprob.files import storage
from rayprob.models.backbones import require_backbone
from rayprob.project.find import find
from rayprob.project.fitting import Network, fit_to
from rayprob.project.found import Found
from rayprob.project.starters import starter_files
from rayprob.project.write import Written, files_for, name_for, write_project


def new_like(folder: str, name: str) -> Written:
    """Write a project from a run file that comes with rayprob. Raises SpecError and StorageError."""
    return write_project(folder, starter_files(name))


def new_from(
    folder: str, source: str, *, backbone: str | None = None, weights: str | None = None
) -> tuple[Written, Found, Network]:
    """Write a project that fits the images in `source`. Raises SourceError, SpecError and StorageError."""
    if backbone is not None:
        require_backbone(backbone)
    network = _network(backbone, weights)
    found = find(source)
    return write_project(folder, files_for(name_for(folder), found, fit_to(found), network)), found, network


def _network(backbone: str | None, weights: str | None) -> Network:
    """Return the network to start from. Weights in a file fit only one backbone, which must be named."""
    if weights is None:
        return Network(backbone, "DEFAULT") if backbone else Network()
    if backbone is None:
        raise SpecError(f"--weights {weights} also needs --backbone, the network of these weights, such as timm/resnet18")
    if storage.is_local(weights) and not storage.exists(weights):
        raise SpecError(f"there is no file {weights}; give the path of a .safetensors or .pth file")
    return Network(backbone, str(storage.local_path(weights).resolve()) if storage.is_local(weights) else weights)
