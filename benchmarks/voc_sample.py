"""Writes ../shared/voc-sample as COCO annotations, and a recipe, so that the VOC sample can be sharded and trained.

    python benchmarks/voc_sample.py FOLDER
    rayprob shard FOLDER/voc-sample.yaml
    rayprob train tune_configs/coco-sample.yaml --set name=voc-sample --set data.root=FOLDER/shards --set duration.epochs=5 \\
      --set evaluation.every.epochs=5
    rayprob evaluate runs/voc-sample

A label is unknown in an image that has only `difficult` objects of it, as in VOC's own class lists: 131 labels of the
1,000 train images, 51 of the 400 val images. 16 % of train become holdout.
"""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "shared" / "voc-sample" / "VOC2007"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
RECIPE = {"name": "voc-sample", "holdout": {"of": "train", "fraction": 0.16}, "max_shard_samples": 32}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    lists = SOURCE / "ImageSets" / "Main"
    names = sorted(path.name.removesuffix("_val.txt") for path in lists.glob("*_val.txt"))
    splits = {}
    for split in ("train", "val"):
        content = annotations((lists / f"{split}.txt").read_text().split(), names)
        (folder / f"{split}.json").write_text(json.dumps(content))
        splits[split] = {"images": str(SOURCE / "JPEGImages"), "annotations": str(folder / f"{split}.json")}
        num_unknown = sum(len(image["unknown_category_ids"]) for image in content["images"])
        print(f"{split}: {len(content['images']):,} images, {num_unknown} labels unknown")
    recipe = {**RECIPE, "target": str(folder / "shards"), "splits": splits}
    (folder / "voc-sample.yaml").write_text(json.dumps(recipe, indent=1))  # JSON is YAML as well


def annotations(keys: list[str], names: list[str]) -> dict[str, Any]:
    """Return one split as COCO annotations; a category's id is its position in `names`, from 1."""
    images, boxes = zip(*(image_of(key, names) for key in keys), strict=True)
    numbered = [{**box, "id": number} for number, box in enumerate((box for part in boxes for box in part), start=1)]
    categories = [{"id": place, "name": name} for place, name in enumerate(names, start=1)]
    return {"images": list(images), "annotations": numbered, "categories": categories}


def image_of(key: str, names: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return an image's entry and the boxes of its objects that are not difficult."""
    root = ElementTree.parse(SOURCE / "Annotations" / f"{key}.xml").getroot()
    objects = [(names.index(one.findtext("name", "")) + 1, one) for one in root.iter("object")]
    plain = [(category, one) for category, one in objects if one.findtext("difficult") != "1"]
    unknown = {category for category, _ in objects} - {category for category, _ in plain}
    size = {side: int(root.findtext(f"size/{side}", "0")) for side in ("height", "width")}
    entry = {"id": int(key), "file_name": f"{key}.jpg", **size, "unknown_category_ids": sorted(unknown)}
    return entry, [box_of(int(key), category, one) for category, one in plain]


def box_of(image_id: int, category: int, one: ElementTree.Element) -> dict[str, Any]:
    left, top, right, bottom = (float(one.findtext(f"bndbox/{corner}", "0")) for corner in CORNERS)
    bbox = [left, top, right - left, bottom - top]
    return {"image_id": image_id, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}


if __name__ == "__main__":
    main()
