"""timm's networks as backbones, `timm/<name>`: built without head and pooling."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rayprob.errors import ModelError
from rayprob.models.cut import Cut, fetching, require_weights
from rayprob.models.stages import Stage, Staged

TIMM = "timm/"


def import_timm() -> Any:
    """Return the module timm. Raises ModelError with how to install it."""
    try:
        import timm
    except ImportError as error:
        raise ModelError("timm/<name> needs the package timm, which is missing; run pip install 'rayprob[timm]'") from error
    return timm


def cut_timm(name: str, weights: str | None, image_size_px: int | None, load: bool) -> Cut:
    """Return the network `name`, without `timm/`. Raises ModelError for weights or sizes that it cannot have."""
    if weights and weights != "DEFAULT":
        plain = name.split(".")[0]
        models = import_timm().list_models(f"{plain}.*", pretrained=True)
        require_weights(f"timm/{name}", weights, [model.split(".", 1)[1] for model in models])
        name = f"{plain}.{weights}"
    headless = {"num_classes": 0, "global_pool": ""} | ({"img_size": image_size_px} if image_size_px else {})
    try:
        whole = import_timm().create_model(name, pretrained=False, **headless)
    except (TypeError, AssertionError, RuntimeError) as error:
        at = f" at image_size_px {image_size_px}" if image_size_px else ""
        raise ModelError(
            f"timm/{name} cannot be built without its head{at}: {error}; leave out what it names, or choose another"
        ) from error
    if weights and load:
        with fetching(f"timm/{name}", weights):
            whole = import_timm().create_model(name, pretrained=True, **headless)
    described = whole.pretrained_cfg
    heads = described.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    return Cut(_TimmMaps(whole), whole.head_hidden_size, heads, tuple(described["mean"]), tuple(described["std"]))


class _TimmMaps(Staged):
    """A headless timm model as maps: NHWC is transposed, and N patch tokens become an N x 1 grid (poolings ignore places)."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole
        self.num_prefix_tokens = int(getattr(whole, "num_prefix_tokens", 0))
        self.is_nhwc = str(getattr(whole, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self._as_maps(self.whole(images_BCHW))

    def stages(self) -> dict[int, Stage]:
        if not hasattr(self.whole, "forward_intermediates"):
            return {}
        described = list(self.whole.feature_info)
        numbers = [round(math.log2(one["reduction"])) for one in described]
        found = {number: Stage(place, described[place]["num_chs"]) for place, number in enumerate(numbers)}
        return found | {numbers[-1]: Stage(len(described) - 1, self.whole.head_hidden_size)}

    def read(self, images_BCHW: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, ...]:
        *places, _ = (stage.position for stage in stages)
        last, maps = self.whole.forward_intermediates(images_BCHW, indices=places, output_fmt="NCHW")
        return (*maps, self._as_maps(self.whole.forward_head(last)))

    def _as_maps(self, maps: Tensor) -> Tensor:
        if maps.ndim == 3:
            return maps[:, self.num_prefix_tokens :].transpose(1, 2).unsqueeze(3)
        return maps.permute(0, 3, 1, 2) if self.is_nhwc else maps
