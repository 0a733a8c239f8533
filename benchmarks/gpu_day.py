"""Trains, judges and compares everything on COCO-2014, on a machine with GPUs: start it and leave. `make coco2014` starts it.

    python benchmarks/gpu_day.py --dry-run                      # what it would do: commands, sizes, number of images
    python benchmarks/gpu_day.py [--part paper] [--seeds 3] [--systems decoder csra]
    python benchmarks/gpu_day.py --rehearse --out FOLDER        # the same commands on drawn scenes, a tiny network, a CPU

It downloads COCO-2014, builds its dataset, trains tune_configs/paper.yaml and strong.yaml with three seeds each, calibrates,
evaluates and compares them, writes a page about each run, and then does the same for the systems of tune_configs/systems. Each
step is one command, which is printed. The same command continues after an interruption: finished steps are skipped, and
rayprob itself continues a step that was interrupted. OUT/summary.md and OUT/summary.json are rewritten after each part.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpu_day_rehearsal import TINY_RECIPE, draw_scenes, write_tiny_files  # noqa: E402
from gpu_day_steps import Ledger, Step, run_step  # noqa: E402
from gpu_day_summary import write_summary  # noqa: E402

from rayprob.runs.paths import SystemsFolder  # noqa: E402
from rayprob.systems.spec import SystemsFile, open_systems, rates_of  # noqa: E402

CONFIGS = ROOT / "tune_configs"
PARTS = {"paper": "coco2014.yaml", "systems": "coco2014-systems.yaml"}
ADDRESS = "http://images.cocodataset.org"


@dataclass(frozen=True)
class Archive:
    """A file of COCO's download page: its size there, and the folder and number of files that come out of it."""

    path: str
    gigabytes: float
    folder: str
    num_files: int


ARCHIVES = (
    Archive("zips/train2014.zip", 13.0, "train2014", 82_783),
    Archive("zips/val2014.zip", 6.0, "val2014", 40_504),
    Archive("annotations/annotations_trainval2014.zip", 0.241, "annotations", 6),
)
# Weights, two moments of Adam and an average of a ResNet-101 in float32 are 0.7 GB, and a run keeps four checkpoints.
RUN_GB = 3.0
SPEED = 1_000  # images/s, to turn images into hours


@dataclass(frozen=True)
class Day:
    """What is to be done, and where."""

    out: Path
    images: Path
    shards: Path
    parts: tuple[str, ...]
    seeds: int
    systems: tuple[str, ...]  # names of files in tune_configs/systems; () is all
    is_rehearsal: bool

    @property
    def configs(self) -> Path:
        """The folder of the systems files and of their run files."""
        return self.out / "files" if self.is_rehearsal else CONFIGS

    def results(self, part: str) -> SystemsFolder:
        """Return the folder of a part's runs and results."""
        return SystemsFolder(str(self.out / part))

    def overrides(self, part: str) -> list[str]:
        """Return the keys of a part's systems file that are set on the command line."""
        found = [f"folder={self.out / part}", f"systems.seeds={self.seeds}"]
        if part == "systems" and self.systems:
            names = dict.fromkeys(("bernoulli", *self.systems))
            found.append(f"systems.files=[{', '.join(f'systems/{name}.yaml' for name in names)}]")
        return found

    def opened(self, part: str) -> SystemsFile:
        """Return the systems file of a part. Raises SpecError."""
        return SystemsFile.read(self.configs / PARTS[part], self.overrides(part))

    def runs(self, part: str) -> dict[str, str]:
        """Return the folders of a part's runs, as NAME-SEED; for a part whose learning rates are those of its files."""
        spec, folder = self.opened(part).systems, self.results(part)
        kept = [one for one in open_systems(spec) if not one.left_out]
        return {
            f"{one.name}-{seed}": folder.run(one.name, rates_of(spec, one)[0], seed)
            for one in kept
            for seed in range(spec.seeds)
        }


def main(arguments: list[str] | None = None, run: Callable[[Step], int] = run_step) -> int:
    """Do what is left of the day; return the exit code of the step that failed, or 0."""
    options = parse(arguments)
    day = day_of(options)
    if day.is_rehearsal:
        write_tiny_files(day.configs, CONFIGS, day.shards, ("bernoulli", *day.systems))
    ledger = Ledger(day.out / "steps.json")
    if options.dry_run:
        show_plan(day, ledger)
        return 0
    require_machine(day, ledger)
    for part in (None, *day.parts):
        for step in steps_of(day, part):
            if code := ledger.take(step, run):
                return code
        if part:
            print(f"written: {write_summary(day.out, day.shards, ledger, is_rehearsal=day.is_rehearsal)}", flush=True)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of all runs and results; by default coco2014")
    parser.add_argument("--images", type=Path, default=Path("data/coco2014"), help="where COCO is, or is downloaded to")
    parser.add_argument("--part", choices=list(PARTS), help="only this part: paper is paper.yaml and strong.yaml")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each file")
    parser.add_argument("--systems", nargs="+", default=[], help="only these files of tune_configs/systems, and bernoulli")
    parser.add_argument("--rehearse", action="store_true", help="drawn scenes and a tiny network; needs no GPU and no data")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and run none")
    return parser.parse_args(arguments)


def day_of(options: argparse.Namespace) -> Day:
    """Return what the options ask for. Ends the process if a system is unknown or a rehearsal would use the day's folder."""
    known = sorted(path.stem for path in (CONFIGS / "systems").glob("*.yaml"))
    if unknown := set(options.systems) - set(known):
        raise SystemExit(f"unknown systems {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    if options.rehearse and options.out is None:
        raise SystemExit("--rehearse needs --out FOLDER, so that its results do not mix with those of COCO")
    out = (options.out or Path("coco2014")).resolve()
    # The run files name this folder, relative to the checkout.
    images, shards = (out / "scenes", out / "shards") if options.rehearse else (options.images, ROOT / "shards" / "coco2014")
    return Day(
        out,
        images.resolve(),
        shards,
        (options.part,) if options.part else tuple(PARTS),
        options.seeds,
        tuple(options.systems) or (("decoder",) if options.rehearse else ()),
        options.rehearse,
    )


def steps_of(day: Day, part: str | None) -> Iterator[Step]:
    """Yield the steps of a part, or, for None, those that make the dataset."""
    if part is None:
        yield from [draw_scenes(day.images)] if day.is_rehearsal else downloads(day.images)
        yield shard(day)
        return
    settings = [word for key in day.overrides(part) for word in ("--set", key)]
    tune = ("rayprob", "tune", str(day.configs / PARTS[part]), *settings)
    yield Step(f"{part}: train and judge", tune, Path(day.results(part).results))
    if part == "paper":
        yield from pages(day, day.runs(part))


def downloads(images: Path) -> Iterator[Step]:
    """Yield the steps that fetch and unpack COCO-2014; they are done where the files are there."""
    for archive in ARCHIVES:
        folder, zipped = images / archive.folder, images / Path(archive.path).name
        fetch = ("wget", "--continue", "--tries=20", f"--directory-prefix={images}", f"{ADDRESS}/{archive.path}")
        yield Step(f"download {zipped.name}, {archive.gigabytes:g} GB", fetch, folder, num_files=archive.num_files)
        unpack = ("unzip", "-q", "-o", str(zipped), "-d", str(images))
        yield Step(f"unpack {zipped.name}", unpack, folder, num_files=archive.num_files)


def shard(day: Day) -> Step:
    """Return the step that builds the dataset, with the recipe of COCO-2014 in a rehearsal too."""
    keys = {f"splits.{split}.images": f"{day.images}/{split}2014" for split in ("train", "val")}
    keys |= {
        f"splits.{split}.annotations": f"{day.images}/annotations/instances_{split}2014.json" for split in ("train", "val")
    }
    keys |= {"target": str(day.shards), **(TINY_RECIPE if day.is_rehearsal else {})}
    settings = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    return Step("shard", ("rayprob", "shard", str(ROOT / "shards" / "coco2014.yaml"), *settings), day.shards)


def pages(day: Day, runs: dict[str, str]) -> Iterator[Step]:
    """Yield the steps that calibrate and evaluate runs, write a page about each, and compare all with the first."""
    for name, folder in runs.items():
        yield Step(f"{name}: calibrate", ("rayprob", "calibrate", folder), Path(folder))
        evaluation = day.out / "evaluations" / f"{name}.json"
        yield Step(f"{name}: evaluate", ("rayprob", "evaluate", folder, "--json"), evaluation, keeps_output=True)
        page = day.out / "pages" / f"{name}.html"
        yield Step(f"{name}: page", ("rayprob", "report", folder, "--out", str(page)), page)
    page = day.out / "pages" / "comparison.html"
    yield Step("compare the runs", ("rayprob", "compare", *runs.values(), "--out", str(page)), page)


def show_plan(day: Day, ledger: Ledger) -> None:
    """Print the commands, what is downloaded, the disk space that is needed, and the number of images to train on."""
    for part in (None, *day.parts):
        for step in steps_of(day, part):
            print(f"# {step.name}{' (done)' if ledger.is_done(step) else ''}\n{step.shell()}")
    print(f"\n{amount(day)}")
    if not day.is_rehearsal:
        print(f"disk space: {needed_gb(day, ledger):,.0f} GB; free in {day.out.parent}: {free_gb(day):,.0f} GB")


def amount(day: Day) -> str:
    """Return how many images the runs train on together, and how long that is at a round speed."""
    systems = [one for part in day.parts for one in open_systems(day.opened(part).systems) if not one.left_out]
    epochs = day.seeds * sum(one.run.duration.epochs or 0.0 for one in systems)
    images = 82_081 * 0.95 * epochs
    return (
        f"{len(systems) * day.seeds} runs, {epochs:,.0f} epochs, {images / 1e6:,.0f} million images of COCO: "
        f"{images / SPEED / 3600:,.0f} hours at {SPEED:,} images/s (benchmarks/gpu.py measures a machine's speed)"
    )


def require_machine(day: Day, ledger: Ledger) -> None:
    """End the process where a GPU, a program or disk space is missing for what is left."""
    if day.is_rehearsal:
        return
    if not shutil.which("nvidia-smi"):
        raise SystemExit("needs an NVIDIA GPU; --rehearse runs the same commands on drawn scenes, --dry-run prints them")
    left = [step for step in steps_of(day, None) if not ledger.is_done(step)]
    if missing := {step.command[0] for step in left if step.command[0] != "rayprob" and not shutil.which(step.command[0])}:
        raise SystemExit(f"needs {' and '.join(sorted(missing))}; install them with the machine's package manager")
    if (needed := needed_gb(day, ledger)) > (free := free_gb(day)):
        raise SystemExit(
            f"{day.out.parent} has {free:,.0f} GB free, and {needed:,.0f} GB are needed; see --out, --systems, --seeds"
        )


def needed_gb(day: Day, ledger: Ledger) -> float:
    """Return the space that is needed for archives, images, shards and runs; less what is there."""
    of_data = sum(archive.gigabytes for archive in ARCHIVES)
    unfinished = {step.name.split()[0] for step in steps_of(day, None) if not ledger.is_done(step)}
    data = of_data * len(unfinished & {"download", "unpack", "shard"})
    runs = sum(not Path(folder).exists() for part in day.parts for folder in day.runs(part).values())
    return data + RUN_GB * runs


def free_gb(day: Day) -> float:
    """Return the free space where the results go."""
    return shutil.disk_usage(next(folder for folder in day.out.parents if folder.exists())).free / 1e9


if __name__ == "__main__":
    sys.exit(main())
