"""What is written when 1,000 images are added to a built dataset, against building it again.

    python benchmarks/grow.py [--images 10000] [--new 1000] [--processes 2]

Scenes are drawn in COCO's layout. A dataset of --images of them is built; then its source gains --new images, twice, and the
dataset grows each time; last, all are built again. Printed are the files that each step wrote, their bytes, its seconds in this
process, and which files of the first build changed, by sha256 and time of change, besides dataset.json and rejected.jsonl. The
first growth writes the rows of manifest.parquet again, in parts, which the second one uses as they are.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rayprob.data.building.build import Summary, build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.manifest.label_fingerprint import label_fingerprint
from rayprob.data.verify import verify
from rayprob.scenes.generate import ScenesSpec, generate_scenes

REWRITTEN = {"dataset.json", "rejected.jsonl"}
State = tuple[int, int, str]  # time of change, bytes, sha256
HEAD = f"{'':<22}{'tars':>6}{'MB':>9}{'manifest kB':>13}{'other kB':>10}{'seconds':>9}"


def main() -> None:
    """Draw, build, grow twice, build again, and print."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        source = Source(Path(folder), options.images + 2 * options.new, options.processes)
        recipe = source.recipe("grown")
        print(HEAD)
        source.offer(options.images)
        measured("build", Path(recipe.root), lambda: build(recipe, run_tasks=in_process))
        first = states(Path(recipe.root))
        for number in (1, 2):
            source.offer(options.images + number * options.new)
            measured(f"{options.new:,} images added", Path(recipe.root), lambda: build(recipe, run_tasks=in_process, grow=True))
        again = source.recipe("again")
        measured("all built again", Path(again.root), lambda: build(again, run_tasks=in_process))
        last = states(Path(recipe.root))
        changed = [name for name in first.keys() - REWRITTEN if last.get(name) != first[name]]
        print(f"\nof {len(first.keys() - REWRITTEN)} files of the first build, {len(changed)} changed")
        same = label_fingerprint(Dataset.open(recipe.root)) == label_fingerprint(Dataset.open(again.root))
        print(f"ids, splits and labels as built again: {'yes' if same else 'NO'}; faults of verify: {len(verify(recipe.root))}")


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--new", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


class Source:
    """Drawn scenes, of which the annotations list some."""

    def __init__(self, folder: Path, num_images: int, num_processes: int) -> None:
        self.folder = folder
        spec = ScenesSpec(num_train=num_images, num_val=200, size_px=160, num_labels=80, seed=0)
        generate_scenes(str(folder / "scenes"), spec, num_processes=num_processes)
        self.annotations = folder / "scenes" / "annotations" / "instances_train2014.json"
        self.all: dict[str, Any] = json.loads(self.annotations.read_text())

    def offer(self, num_images: int) -> None:
        """List the first images only."""
        images = self.all["images"][:num_images]
        ids = {image["id"] for image in images}
        boxes = [box for box in self.all["annotations"] if box["image_id"] in ids]
        self.annotations.write_text(json.dumps({**self.all, "images": images, "annotations": boxes}))

    def recipe(self, name: str) -> Recipe:
        """Return a recipe that builds a dataset of that name."""
        scenes = self.folder / "scenes"
        splits = {
            split: {"images": str(scenes / split), "annotations": str(scenes / "annotations" / f"instances_{split}.json")}
            for split in ("train2014", "val2014")
        }
        named = {"train": splits["train2014"], "val": splits["val2014"]}
        return Recipe.parse({"name": name, "splits": named, "target": str(self.folder / name), "keep_unlabelled": True})


def measured(what: str, root: Path, step: Callable[[], Summary]) -> None:
    """Print what a step wrote below a folder, and how long it took."""
    before = states(root)
    began_at_s = time.monotonic()
    step()
    elapsed_s = time.monotonic() - began_at_s
    written = {name: state[1] for name, state in states(root).items() if before.get(name) != state}
    tars = {name for name in written if name.endswith(".tar")}
    manifest = {name for name in written if name.endswith(".parquet")}
    size = [sum(written[name] for name in names) for names in (tars, manifest, written.keys() - tars - manifest)]
    print(f"{what:<22}{len(tars):>6}{size[0] / 1e6:>9.1f}{size[1] / 1e3:>13.1f}{size[2] / 1e3:>10.1f}{elapsed_s:>9.1f}")


def states(root: Path) -> dict[str, State]:
    """Return when each file below a folder changed, its size and its sha256."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(root)): (
            path.stat().st_mtime_ns,
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in files
    }


if __name__ == "__main__":
    main()
