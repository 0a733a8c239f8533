"""Every path of a run's folder and of a sweep's, defined only here; a folder is a local path or a URI.

runs/NAME/run.yaml            the resolved run file
          run.json            its identity, and the fingerprint of its dataset
          metrics.jsonl       the history: one row per start, logged step and evaluation
          checkpoints/        step-00000100.pt and .json
          predictions/        SPLIT.parquet; FINGERPRINT/SPLIT.parquet of another dataset
          bundle/             everything needed to predict, and its card
          calibration.json    what `rayprob calibrate` fitted, and its evaluation
          threshold_search.*  what `rayprob calibrate --search` found
          features/           of the backbone, for `rayprob refit`
          tensorboard/        report.html
          tracking.json       the runs of tracking services that continue with this one
          wandb/              files of Weights & Biases
          stop                asks the run to save and stop
          failed.json         why it cannot continue, so that a restarted worker does not try again
          fault-RANK.json     what ended the last attempt of a rank on Ray, so that the same error is not retried forever
          worker.log          what a worker on this machine prints
          ray/                Ray Train's own files

A bundle that is evaluated alone has a folder predictions/ like a run's, for other datasets only.

sweeps/NAME/sweep.yaml         the resolved sweep file
           sweep.json         its identity
           sweep.lock         locked by the process that uses the folder
           ledger.jsonl       the events of the sweep, in order
           trials/NNN/        the folder of each trial, which is a run's
           summary.json       the whole sweep as plain data
           results.parquet    results.csv    best.yaml    tensorboard/    report.html
           tune/              Ray Tune's own files

systems/NAME/systems.json      what is compared
            SYSTEM/lr-L-seed-S/    a run's folder for each learning rate and seed
            SYSTEM/judged-S.json   the numbers of a system with seed S, and their bootstrap draws
            results.json       report.html
"""

from dataclasses import dataclass
from typing import Any

from rayprob.files import storage

TABLE = ".parquet"
RAYS_OWN, TUNES_OWN = "ray", "tune"  # subfolders for the files of Ray Train and of Ray Tune, which join the name themselves
EXAMPLES = "examples"  # subfolder of a bundle with images to try, which `rayprob serve` shows
DESCRIPTION_FILE = "bundle.json"  # written last, so a bundle with it is complete
CARD_FILE, CARD_PAGE = "card.json", "card.md"  # of a bundle, which is complete without them


class PathIn:
    """A name in a folder; as an attribute of the folder it is the path or URI of that entry, which need not exist."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: "Folder", kind: Any = None) -> str:
        return storage.join(folder.folder, self.name)


@dataclass(frozen=True)
class Folder:
    """Base class of the folders of a run and of a sweep."""

    folder: str

    tensorboard = PathIn("tensorboard")
    report_page = PathIn("report.html")


@dataclass(frozen=True)
class RunFolder(Folder):
    """The paths in a run's folder."""

    run_file = PathIn("run.yaml")
    identity_file = PathIn("run.json")
    history = PathIn("metrics.jsonl")
    checkpoints = PathIn("checkpoints")
    all_predictions = PathIn("predictions")
    bundle = PathIn("bundle")
    calibration = PathIn("calibration.json")
    threshold_search = PathIn("threshold_search.json")
    threshold_candidates = PathIn("threshold_search.parquet")
    features = PathIn("features")
    tracking = PathIn("tracking.json")
    stop = PathIn("stop")
    failure = PathIn("failed.json")
    worker_log = PathIn("worker.log")
    rays_own = PathIn(RAYS_OWN)

    def predictions(self, split: str) -> str:
        """Return the path of the predictions of a split."""
        return storage.join(self.all_predictions, split + TABLE)

    def fault(self, rank: int) -> str:
        """Return the path of the file that records what ended a rank's last attempt."""
        return storage.join(self.folder, f"fault-{rank}.json")

    def faults(self) -> list[str]:
        """Return the paths of these files of all ranks."""
        return [storage.join(self.folder, name) for name in storage.list_names(self.folder) if name.startswith("fault-")]

    def predictions_on(self, fingerprint: str, split: str) -> str:
        """Return the path of the predictions of a split of another dataset, which has this fingerprint."""
        return storage.join(self.all_predictions, fingerprint, split + TABLE)

    @property
    def has_bundle(self) -> bool:
        """Whether the run has its bundle, which it writes last, and so has finished."""
        return is_bundle(self.bundle)


@dataclass(frozen=True)
class SweepFolder(Folder):
    """The paths in a sweep's folder."""

    sweep_file = PathIn("sweep.yaml")
    identity_file = PathIn("sweep.json")
    lock = PathIn("sweep.lock")
    ledger = PathIn("ledger.jsonl")
    summary = PathIn("summary.json")
    results_table = PathIn("results.parquet")
    results_csv = PathIn("results.csv")
    best_file = PathIn("best.yaml")
    tunes_own = PathIn(TUNES_OWN)

    def trial(self, number: int) -> str:
        """Return the folder of a trial, which is a run's."""
        return storage.join(self.folder, trial_name(number))


@dataclass(frozen=True)
class SystemsFolder(Folder):
    """The paths in the folder of a comparison of systems."""

    identity_file = PathIn("systems.json")
    results = PathIn("results.json")

    def run(self, system: str, lr: float, seed: int) -> str:
        """Return the folder of a run."""
        return storage.join(self.folder, system, f"lr-{lr:g}-seed-{seed}")

    def judged(self, system: str, seed: int) -> str:
        """Return the path of what a system's run with a seed reaches, on all images and on each draw."""
        return storage.join(self.folder, system, f"judged-{seed}.json")


def trial_name(number: int) -> str:
    """Return the name of a trial's folder within the sweep's folder."""
    return f"trials/{number:03d}"


def is_bundle(folder: str) -> bool:
    """Return whether a folder contains a complete bundle."""
    return storage.exists(storage.join(folder, DESCRIPTION_FILE))


def bundle_folder(path: str) -> str:
    """Return the folder of the bundle at `path`, which may be a run's folder."""
    run = RunFolder(path)
    return run.bundle if not is_bundle(path) and run.has_bundle else path
