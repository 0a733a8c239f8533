"""What a path is where the folder of a run is expected. Imports nothing heavy, so that a wrong path is refused at once."""

from rayprob.config.kinds import kind_of
from rayprob.config.spec import read_yaml
from rayprob.data.manifest.facts import is_dataset
from rayprob.errors import BundleError, RunError, SpecError, StorageError
from rayprob.files import storage
from rayprob.runs.paths import DESCRIPTION_FILE, RunFolder, SweepFolder, SystemsFolder, is_bundle

UNFINISHED = "has no bundle yet: the run is not finished; continue with `rayprob train` and the same file"
UNKNOWN = "is not a run folder: it has no run.yaml; give the folder that `rayprob train` printed"
MOST_LOOKED_INTO, MOST_NAMED = 50, 3  # folders, when a path is that of the folder above


def require_run(folder: str) -> None:
    """Raise RunError unless `folder` is a run's; it names what else the path is, and what to do with that."""
    if not storage.exists(RunFolder(folder).run_file):
        raise RunError(f"{folder} {found_instead(folder) or UNKNOWN}")


def require_finished(folder: str) -> None:
    """Raise RunError unless `folder` is that of a run with its bundle."""
    if is_bundle(folder) or not RunFolder(folder).has_bundle:
        require_run(folder)
        raise RunError(f"{folder} {UNFINISHED}")


def require_bundle(path: str) -> None:
    """Raise BundleError unless `path` is a bundle's folder or that of a finished run; it names what else the path is."""
    if is_bundle(path) or RunFolder(path).has_bundle:
        return
    if storage.exists(RunFolder(path).run_file):
        raise BundleError(f"{path} {UNFINISHED}")
    instead = found_instead(path)
    why = f"it {instead}" if instead else f"{DESCRIPTION_FILE} is missing; give the folder that training wrote"
    raise BundleError(f"no bundle at {path}: {why}")


def is_sweep(folder: str) -> bool:
    """Return whether a folder is a sweep's."""
    paths = SweepFolder(folder)
    return storage.exists(paths.summary) or storage.exists(paths.sweep_file)


def found_instead(path: str) -> str:
    """Return what a path is that is not a run's folder, and which command takes it; "" for what rayprob did not write."""
    if is_bundle(path):
        return "is a bundle; give the run's folder, which also contains its predictions"
    if is_sweep(path):
        return f"is the folder of a sweep; give that of one of its runs, such as {SweepFolder(path).trial(0)}"
    if storage.exists(SystemsFolder(path).identity_file):
        page = SystemsFolder(path).report_page
        return f"is the folder of a comparison of systems, whose page is {page}; `rayprob tune` on its file writes it again"
    if is_dataset(path):
        return f"is a dataset; `rayprob inspect {path}` shows it"
    if path.endswith((".yaml", ".yml")):
        return _file(path)
    if finished := _finished_runs_in(path):
        return f"is the folder above {'a run' if len(finished) == 1 else 'runs'}; give {' or '.join(finished)}"
    return "" if storage.exists(path) else "does not exist; give the folder that `rayprob train` printed"


def _finished_runs_in(path: str) -> list[str]:
    """Return the folders of finished runs directly in a folder; none if there are more than a few, or too many to look into."""
    try:
        folders = [entry.name for entry in storage.list_entries(path) if entry.is_folder] if storage.exists(path) else []
    except StorageError:  # such as of a file
        return []
    if len(folders) > MOST_LOOKED_INTO:
        return []
    finished = [run for name in folders if RunFolder(run := storage.join(path, name)).has_bundle]
    return finished if len(finished) <= MOST_NAMED else []


def _file(path: str) -> str:
    try:
        kind = kind_of(read_yaml(path))
    except SpecError:
        return ""
    return f"is {kind.name}, not a folder; use `{kind.command} {path}`" if kind else ""
