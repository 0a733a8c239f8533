"""`rayprob scenes DIR`: a drawn dataset in the layout of COCO-2014 whose label sets follow a known distribution.

    DIR/scenes.json                                the options, and whether it is finished
    DIR/train2014/COCO_train2014_%012d.jpg         pictures; an image's bytes depend on seed, split, index and size only
    DIR/annotations/instances_train2014.json       written after all pictures
    DIR/annotations/scene_truth.parquet            the mixture component of each image, and its labels before label noise

and the same for val2014. N images of a split, L labels.
"""

import json
import logging
import signal
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field

from rayprob.config.spec import Spec, differing_keys
from rayprob.errors import RunError, SourceError, SpecError
from rayprob.files import storage
from rayprob.files.documents import Count, Shape, read_json
from rayprob.files.uris import utf8_name
from rayprob.labels import COCO_80
from rayprob.processes import without_main
from rayprob.scenes.drawing import MAX_SIDE_PX
from rayprob.scenes.files import CHUNK, DrawJob, DrawnImage, annotations_of, draw_job, prepare_process
from rayprob.scenes.labels import SceneLabels
from rayprob.seeds import derive
from rayprob.text import first_of

log = logging.getLogger(__name__)

FORMAT_VERSION = 1  # increases when the same seed gives different pictures
STATE_FILE = "scenes.json"


class ScenesSpec(Spec):
    """What a drawn dataset contains; equal specs give equal bytes for any number of processes."""

    num_train: int = Field(default=4000, ge=1, le=1_000_000)
    """Number of training images."""
    num_val: int = Field(default=1000, ge=0, le=1_000_000)
    """Number of validation images."""
    size_px: int = Field(default=160, ge=64, le=MAX_SIDE_PX)
    """Length of the longer side of an image, in pixels."""
    num_labels: int = Field(default=80, ge=1, le=len(COCO_80))
    """Number of labels: the most prevalent of COCO's 80."""
    seed: int = Field(default=0, ge=0)
    """Seed of all images and labels."""
    label_noise: float = Field(default=0.0, ge=0, le=0.5)
    """Fraction of labels that are deliberately wrong; see SceneLabels.noise_rates."""

    @property
    def num_images(self) -> int:
        """Number of images over both splits."""
        return self.num_train + self.num_val

    def labels(self) -> SceneLabels:
        """Return the distribution of the label sets."""
        return SceneLabels.load().restricted(self.num_labels)


class ScenesSummary(Shape):
    """The contents of a finished dataset; `drawn_images` counts the pictures drawn by this call."""

    model_config = ConfigDict(frozen=True)

    images: Count
    objects: Count
    labels_per_image: float
    empty_images: Count
    drawn_images: Count
    elapsed_s: float


class _State(Shape):
    """The contents of scenes.json: the options, and the summary once it is finished."""

    format_version: int
    spec: dict[str, Any]
    summary: ScenesSummary | None


def generate_scenes(
    root: str | Path, spec: ScenesSpec, *, num_processes: int = 1, on_progress: Callable[[int], None] = lambda num_images: None
) -> ScenesSummary:
    """Draw the dataset of `spec` into the local folder `root` and return its summary.

    A finished folder of the same dataset is left unchanged; an unfinished one is completed. Calls `on_progress` with
    the number of images done since the last call. Raises SpecError, SourceError for a folder with anything else in it,
    StorageError for a picture that cannot be written, RunError if a process is killed.
    """
    if num_processes < 1:
        raise SpecError(f"num_processes is {num_processes}; allowed: 1 or more")
    started_at_s = time.perf_counter()
    folder = storage.local_path(str(root))
    finished = claim(folder, spec)
    if finished is not None:
        on_progress(spec.num_images)
        return finished
    splits = _draw(folder, spec, num_processes, on_progress)
    summary = _write_annotations(folder, spec, splits, started_at_s)
    _write_state(folder, spec, summary)
    log.info("%s: %d images, %d objects in %.1f s", folder, summary.images, summary.objects, summary.elapsed_s)
    return summary


def claim(folder: Path, spec: ScenesSpec) -> ScenesSummary | None:
    """Claim `folder` for `spec`; return the summary if this dataset is already finished there. Raises SourceError."""
    state = _read_state(folder)
    if state is None:
        names = sorted(utf8_name(path.name) for path in folder.iterdir()) if folder.exists() else []
        if names:
            found = first_of(names, 5, in_all=True)
            raise SourceError(f"{folder} is not empty and has no {STATE_FILE}: {found}; give a new or empty folder")
    else:
        asked = {"format_version": FORMAT_VERSION, **spec.model_dump()}
        differences = differing_keys({"format_version": state["format_version"], **state["spec"]}, asked)
        if differences:
            raise SourceError(
                f"{folder} contains scenes with different options ({'; '.join(differences)}); "
                "use the same options, use another folder, or delete this one"
            )
        if state["summary"] is not None and all(path.exists() for path in _last_files(folder)):
            return ScenesSummary.model_validate(state["summary"] | {"drawn_images": 0})
    for leftover in folder.glob("*/*.tmp"):
        leftover.unlink(missing_ok=True)
    _write_state(folder, spec, None)
    return None


def _read_state(folder: Path) -> dict[str, Any] | None:
    if folder.exists() and not folder.is_dir():
        raise SourceError(f"{folder} is a file; use a new or empty folder")
    path = folder / STATE_FILE
    if not path.exists():
        return None
    return read_json(str(path), _State, error=SourceError, remedy=f"delete {folder} or give another folder")


def _write_state(folder: Path, spec: ScenesSpec, summary: ScenesSummary | None) -> None:
    state = {
        "format_version": FORMAT_VERSION,
        "spec": spec.model_dump(),
        "summary": None if summary is None else summary.model_dump(),
    }
    storage.write_text(str(folder / STATE_FILE), json.dumps(state, indent=1) + "\n")


def _draw(
    folder: Path, spec: ScenesSpec, num_processes: int, on_progress: Callable[[int], None]
) -> dict[str, list[DrawnImage]]:
    """Draw the pictures of both splits and return their annotations, in the order of their ids."""
    jobs = jobs_of(folder, spec, "train") + jobs_of(folder, spec, "val")
    splits: dict[str, list[DrawnImage]] = {"train": [], "val": []}
    for split in splits:
        (folder / f"{split}2014").mkdir(parents=True, exist_ok=True)
    with closing(_run(jobs, min(num_processes, len(jobs)))) as pieces:
        for job, drawn in zip(jobs, pieces, strict=True):
            splits[job.split] += drawn
            on_progress(len(drawn))
    return splits


def jobs_of(folder: Path, spec: ScenesSpec, split: str) -> list[DrawJob]:
    """Return the work of a split in pieces of CHUNK images."""
    num_images, first_id = (spec.num_train, 1) if split == "train" else (spec.num_val, 1 + spec.num_train)
    labels = spec.labels()
    component_N, present_NL = labels.sample(derive(spec.seed, "scenes", split, "labels"), num_images)
    stated_NL = labels.add_noise(present_NL, spec.label_noise, derive(spec.seed, "scenes", split, "noise"))
    return [
        DrawJob(
            folder=folder,
            split=split,
            seed=spec.seed,
            size_px=spec.size_px,
            names=labels.label_space.names,
            first_id=first_id + start,
            first_index=start,
            component_N=component_N[start : start + CHUNK],
            present_NL=present_NL[start : start + CHUNK],
            stated_NL=stated_NL[start : start + CHUNK],
        )
        for start in range(0, num_images, CHUNK)
    ]


def _run(jobs: list[DrawJob], num_processes: int) -> Generator[list[DrawnImage], None, None]:
    """Yield the results in the order of the jobs. On closing, running jobs complete and the others do not start."""
    if num_processes == 1:
        yield from map(draw_job, jobs)
        return
    # spawn: a fork would copy the locks of OpenCV's and pyarrow's threads in an arbitrary state.
    pool = ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"), initializer=prepare_process)
    try:
        with _interrupts_held(), without_main():
            pieces = pool.map(draw_job, jobs)  # starts the processes
        yield from pieces
    except BrokenProcessPool as error:
        raise RunError("a drawing process was killed, possibly out of memory; run the command again to continue") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Deliver Ctrl-C after the block. A process started in it never receives one, not even before `prepare_process`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _write_annotations(
    folder: Path, spec: ScenesSpec, splits: dict[str, list[DrawnImage]], started_at_s: float
) -> ScenesSummary:
    """Write the annotations of both splits, and their ground truth."""
    label_space = spec.labels().label_space
    first_annotation_id = 1
    for split, images in splits.items():
        content = annotations_of(split, images, label_space, first_annotation_id)
        first_annotation_id += len(content["annotations"])
        storage.write_text(str(folder / "annotations" / f"instances_{split}2014.json"), json.dumps(content))
    _write_truth(folder / "annotations" / "scene_truth.parquet", splits)
    everything = [image for images in splits.values() for image in images]
    return ScenesSummary(
        images=len(everything),
        objects=first_annotation_id - 1,
        labels_per_image=sum(len(image.stated) for image in everything) / len(everything),
        empty_images=sum(not image.stated for image in everything),
        drawn_images=sum(image.is_new for image in everything),
        elapsed_s=round(time.perf_counter() - started_at_s, 3),
    )


def _write_truth(path: Path, splits: dict[str, list[DrawnImage]]) -> None:
    rows = [(split, image) for split, images in splits.items() for image in images]
    table = pa.table(
        {
            "image_id": pa.array([image.image_id for _, image in rows], pa.int64()),
            "split": pa.array([split for split, _ in rows], pa.string()),
            "component": pa.array([image.component for _, image in rows], pa.int32()),
            "labels": pa.array([list(image.present) for _, image in rows], pa.list_(pa.int32())),
            "arrange_seed": pa.array([image.arrange_seed for _, image in rows], pa.int64()),
        }
    )
    with storage.atomic_writer(str(path)) as target:
        pq.write_table(table, target)


def _last_files(folder: Path) -> list[Path]:
    names = ("instances_train2014.json", "instances_val2014.json", "scene_truth.parquet")
    return [folder / "annotations" / name for name in names]
