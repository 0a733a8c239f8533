"""Are maps of where a label is seen largest at its objects? The pointing game, random weights, and what a map costs.

    python benchmarks/explain.py RUN [RUN...] --images FOLDER --boxes FILE [--split val] [--limit 200] [--slow-limit 20]

RUNs are runs or bundles, often refits of one run with several heads; each is explained by every method that its head allows.
FOLDER has images that training did not see (or is a built dataset, of which SPLIT is taken). FILE has their boxes: COCO's
instances_*.json, or the folder Annotations of Pascal VOC, whose `difficult` objects are left out; VOC's names of labels are
COCO's. Slow methods (integrated_gradients) see the first SLOW-LIMIT images.

Pointing game (Zhang et al., ECCV 2016): for each label that an image has, the largest value of its map, resized by cubic
interpolation, is a hit if it is within a box of the label, or at most 3 % of the longer side away (there 15 of 500 px). `small`
are their difficult cases: boxes of less than a quarter of the image, and another label is present. The baseline is the image's
centre. Accuracies are over pairs of image and label, with 95 % intervals over draws of the images; `over centre` is the
difference from the baseline on the same pairs.

Random weights (Adebayo et al., NeurIPS 2018): the mean rank correlation of a map with that of the same network after the
entries of each tensor of the head, or of the whole network, are shuffled. Near 1, a map does not depend on what was learned.
Pairs of which one map is the same everywhere have no correlation: they are left out, and their share is in brackets.

Cost: the median time of a map of one label over that of a forward pass of the same image, measured in turns.
"""

import argparse
import copy
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

from rayprob.arrays import Bools, Floats, Ints, Pixels
from rayprob.explain.choosing import PREFERRED
from rayprob.explain.explainer import EXPLAINERS
from rayprob.explain.members import Seen, explain
from rayprob.labels import columns_by_name
from rayprob.loader.augment import resize
from rayprob.models.backbones import Backbone
from rayprob.predict.images import find_images
from rayprob.runs.bundle import Bundle
from rayprob.runs.paths import bundle_folder

SLOW = ("integrated_gradients",)
TOLERANCE = 0.03
DRAWS, CHECKED, TIMED = 2000, 20, 3

Boxes = dict[str, list[tuple[float, float, float, float]]]  # by label: left, top, right, bottom in pixels


@dataclass(frozen=True)
class Scene:
    """An image as the network takes it, its size in pixels, and the boxes of its labels."""

    pixels_HWC: Pixels
    width_px: int
    height_px: int
    boxes: Boxes

    def is_hit(self, label: str, x: float, y: float) -> bool:
        """Return whether a point, in fractions of the image, is within a box of the label or near one."""
        near_px = TOLERANCE * max(self.width_px, self.height_px)
        x_px, y_px = x * self.width_px, y * self.height_px
        return any(
            left - near_px <= x_px <= right + near_px and top - near_px <= y_px <= bottom + near_px
            for left, top, right, bottom in self.boxes[label]
        )

    def is_small(self, label: str) -> bool:
        """Return whether the label is one of Zhang's difficult cases."""
        area_px2 = sum((right - left) * (bottom - top) for left, top, right, bottom in self.boxes[label])
        return area_px2 < self.width_px * self.height_px / 4 and len(self.boxes) > 1


@dataclass(frozen=True)
class Entry:
    """A run and a method, and the cost of a map."""

    bundle: Bundle
    method: str
    cost: float

    @property
    def name(self) -> str:
        """The head and the pooling."""
        return f"{self.bundle.model_spec.head.title}, {self.bundle.model_spec.pooling}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--images", required=True, metavar="FOLDER")
    parser.add_argument("--boxes", required=True, metavar="FILE")
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--slow-limit", type=int, default=20)
    options = parser.parse_args()
    bundles = [Bundle.load(bundle_folder(run)) for run in options.runs]
    found = read_scenes(bundles[0], options.images, options.split, read_boxes(Path(options.boxes)))
    scenes = list(islice(found, options.limit))
    entries = [
        Entry(bundle, name, relative_cost(bundle, name, scenes[0]))
        for bundle in bundles
        for name in methods_of(bundle, options.slow_limit)
    ]
    share_backbones(bundles)
    print(f"{'head, pooling':22}{'method':22}{'pairs':>6}{'all':>19}{'centre':>8}{'over centre':>20}{'small':>19}", end="")
    print(f"{'shuffled head, all':>26}{'cost':>7}")
    for one in entries:
        seen = scenes[: options.slow_limit] if one.method in SLOW else scenes
        print(line(one, [point for place, scene in enumerate(seen) for point in play(one, scene, place)], seen), flush=True)


def methods_of(bundle: Bundle, slow_limit: int) -> list[str]:
    """Return the methods for a bundle; without slow ones if they see no image."""
    names = [*PREFERRED, *(name for name in EXPLAINERS if name not in PREFERRED)]
    possible = [name for name in names if not EXPLAINERS[name]().why_not(bundle.classifier)]
    return [name for name in possible if slow_limit or name not in SLOW]


def share_backbones(bundles: Sequence[Bundle]) -> None:
    """Let networks with the backbone of the first share it; it remembers the maps of all images."""
    first = bundles[0].classifier.backbone
    for bundle in bundles:
        own, theirs = bundle.classifier.backbone.state_dict(), first.state_dict()
        if own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in own):
            bundle.classifier.backbone = first
        remember(bundle.classifier.backbone)


def remember(backbone: nn.Module) -> None:
    """Keep the maps of images for which no gradient is needed."""
    known: dict[bytes, Any] = {}
    forward = type(backbone).forward

    def remembered(images_BCHW: Tensor) -> Any:
        if images_BCHW.requires_grad:
            return forward(backbone, images_BCHW)
        key = sha256(images_BCHW.numpy().tobytes()).digest()
        if key not in known:
            known[key] = forward(backbone, images_BCHW)
        return known[key]

    backbone.forward = remembered


class Point(NamedTuple):
    """Whether a map and the image's centre hit an object of the label, whether it is difficult, and the image's number."""

    hit: bool
    centre: bool
    is_small: bool
    image: int


def play(one: Entry, scene: Scene, place: int) -> list[Point]:
    """Point once for each label of the image."""
    maps = explain([Seen(one.bundle, scene.pixels_HWC)], list(scene.boxes), one.method)
    return [
        Point(scene.is_hit(label, *peak(found.grid_HW)), scene.is_hit(label, 0.5, 0.5), scene.is_small(label), place)
        for label, found in zip(scene.boxes, maps, strict=True)
    ]


def line(one: Entry, points: Sequence[Point], scenes: Sequence[Scene]) -> str:
    """Return the row of a run and a method."""
    hit_P, centre_P, is_small_P, image_P = (np.array(column) for column in zip(*points, strict=True))
    every_P = np.ones(len(points), bool)
    cells = [f"{interval(hit_P, every_P, image_P):>19}{100 * centre_P.mean():>8.1f}"]
    cells += [f"{interval(hit_P * 1.0 - centre_P, every_P, image_P):>20}{interval(hit_P, is_small_P, image_P):>19}"]
    few, own = scenes[: 1 if one.method in SLOW else CHECKED], one.bundle.classifier.backbone
    alike = f"{correlation(one, few, own)}, {correlation(one, few, shuffled(own))}"
    return f"{one.name:22}{one.method:22}{len(points):6}{''.join(cells)}{alike:>26}{one.cost:>7.2f}"


def peak(grid_HW: Floats, side: int = 224) -> tuple[float, float]:
    """Return where a map is largest once it is resized: x and y as fractions."""
    large_HW = cv2.resize(grid_HW, (side, side), interpolation=cv2.INTER_CUBIC)
    row, column = np.unravel_index(int(large_HW.argmax()), large_HW.shape)
    return (column + 0.5) / side, (row + 0.5) / side


def interval(values_P: NDArray[Any], chosen_P: Bools, image_P: Ints) -> str:
    """Return the mean over the chosen pairs and its 95 % interval over draws of the images, in per cent."""
    num_images = int(image_P.max()) + 1
    sum_N = np.bincount(image_P[chosen_P], values_P[chosen_P].astype(float), num_images)
    count_N = np.bincount(image_P[chosen_P], minlength=num_images)
    drawn_DN = np.random.default_rng(0).multinomial(num_images, np.full(num_images, 1 / num_images), DRAWS)
    means_D = 100 * (drawn_DN @ sum_N) / np.maximum(drawn_DN @ count_N, 1)
    low, high = np.percentile(means_D, [2.5, 97.5])
    return f"{100 * sum_N.sum() / max(count_N.sum(), 1):.1f} [{low:.1f}, {high:.1f}]"


def correlation(one: Entry, scenes: Sequence[Scene], backbone: nn.Module) -> str:
    """Return the mean rank correlation of maps with those of a network with this backbone, and a head that is shuffled.

    In brackets is the share of pairs that have none.
    """
    own = one.bundle.classifier
    other = copy.deepcopy(own, {id(own.backbone): backbone})
    shuffle(other.pooling)
    shuffle(other.head)
    both, found = (one.bundle, replace(one.bundle, classifier=other)), []
    for scene in scenes:
        maps = [explain([Seen(bundle, scene.pixels_HWC)], list(scene.boxes), one.method) for bundle in both]
        pairs = [(a.grid_HW.ravel(), b.grid_HW.ravel()) for a, b in zip(*maps, strict=True)]
        found += [float(spearmanr(a, b).statistic) if np.ptp(a) and np.ptp(b) else np.nan for a, b in pairs]
    constant = f" ({np.isnan(found).mean():.0%})" if np.isnan(found).any() else ""
    return f"{np.nanmean(found) if not np.isnan(found).all() else np.nan:.2f}{constant}"


@cache
def shuffled(backbone: Backbone) -> Backbone:
    """Return a copy whose weights are shuffled."""
    kept = backbone.__dict__.pop("forward")
    other = copy.deepcopy(backbone)
    backbone.forward = kept
    shuffle(other)
    remember(other)
    return other


def shuffle(module: nn.Module) -> None:
    """Shuffle the entries of each trained tensor, which keeps their distribution and forgets what they learned."""
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 1:
                order = torch.randperm(parameter.numel(), generator=chance)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))


def relative_cost(bundle: Bundle, method: str, scene: Scene) -> float:
    """Return the median time of a map of one label over that of a forward pass, in turns."""
    image_1CHW = torch.from_numpy(scene.pixels_HWC).permute(2, 0, 1).unsqueeze(0)
    label = next(iter(scene.boxes))
    times = []
    for _ in range(1 + (1 if method in SLOW else TIMED)):
        starts = [time.perf_counter()]
        with torch.inference_mode():
            bundle.classifier(image_1CHW)
        starts.append(time.perf_counter())
        explain([Seen(bundle, scene.pixels_HWC)], [label], method)
        times.append(np.diff([*starts, time.perf_counter()]))
    forward_s, map_s = np.median(times[1:], axis=0)
    return float(map_s / forward_s)


def read_scenes(bundle: Bundle, folder: str, split: str, boxes_of: dict[str, Boxes]) -> Iterator[Scene]:
    """Yield the images that have boxes of labels which the bundle knows, in an order that does not follow their names."""
    names = bundle.label_space.names
    images = find_images([folder], split)
    for place in np.random.default_rng(0).permutation(len(images)).tolist():
        boxes = boxes_of.get(Path(images[place].name).stem) or boxes_of.get(str(images[place].sample_id), {})
        named = columns_by_name(names, list(boxes))
        if named:
            pixels_HWC = images[place].decode(bundle.reading).pixels_HWC
            height_px, width_px = pixels_HWC.shape[:2]
            known = {names[column]: [*boxes.values()][which] for column, which in named.items()}
            yield Scene(resize(pixels_HWC, bundle.transform_spec.size_px), width_px, height_px, known)


def read_boxes(path: Path) -> dict[str, Boxes]:
    """Return the boxes of every image, by the stem of its file's name and by its id, which built datasets have."""
    return dict(_voc(sorted(path.glob("*.xml")))) if path.is_dir() else _coco(path)


def _voc(files: Sequence[Path]) -> Iterator[tuple[str, Boxes]]:
    for file in files:
        boxes: Boxes = defaultdict(list)
        for node in ElementTree.parse(file).getroot().findall("object"):
            if node.findtext("difficult", "0") == "0":
                ends = [float(node.findtext(f"bndbox/{end}", "0")) for end in ("xmin", "ymin", "xmax", "ymax")]
                boxes[node.findtext("name", "")].append((ends[0], ends[1], ends[2], ends[3]))
        yield file.stem, dict(boxes)
        if file.stem.isdecimal():
            yield str(int(file.stem)), dict(boxes)


def _coco(file: Path) -> dict[str, Boxes]:
    described = json.loads(file.read_text())
    names = {one["id"]: one["name"] for one in described["categories"]}
    keys = {one["id"]: Path(one["file_name"]).stem for one in described["images"]}
    found: dict[str, Boxes] = defaultdict(lambda: defaultdict(list))
    for one in described["annotations"]:
        x, y, width, height = one["bbox"]
        found[keys[one["image_id"]]][names[one["category_id"]]].append((x, y, x + width, y + height))
    by_stem = {key: dict(boxes) for key, boxes in found.items()}
    return by_stem | {str(key): by_stem[stem] for key, stem in keys.items() if stem in by_stem}


if __name__ == "__main__":
    main()
