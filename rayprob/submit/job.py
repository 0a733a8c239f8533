"""What is submitted: a command, and the folder that it runs in, with the package, the run's files and its plugins."""

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import rayprob
from rayprob import plugins
from rayprob.config.spec import plugin_names, read_chain, read_yaml
from rayprob.errors import RunError, SpecError
from rayprob.files import storage
from rayprob.files.uris import file_uri
from rayprob.models.weights import is_file
from rayprob.runs.spec import Run
from rayprob.train.launch import require_absolute_folder

PACKAGE = Path(rayprob.__file__).parent
NO_BYTECODE = shutil.ignore_patterns("__pycache__", "*.pyc")
COPY = "a job runs in a copy of only the package and its run files"


@dataclass(frozen=True)
class Job:
    """`rayprob VERB file --set ...`; `base` is the folder that file paths are relative to."""

    verb: str
    file: Path
    files: tuple[Path, ...]
    base: Path
    overrides: tuple[str, ...]
    plugins: tuple[Path, ...] = ()  # modules and packages, next to the package in the job

    @classmethod
    def of(cls, verb: str, file: str, overrides: Sequence[str], others: Sequence[str] = ()) -> "Job":
        """Return the job of a file and of `others` that it names, with all files that they extend. Raises SpecError."""
        chain = {path: mapping for one in (file, *others) for path, mapping in read_chain(one).items()}
        for path, mapping in chain.items():
            if os.path.isabs(str(mapping.get("extends", ""))):
                raise SpecError(
                    f"{path} extends {mapping['extends']}, which the cluster does not have: {COPY}; write that path relative "
                    f"to {path}"
                )
        files = tuple(Path(os.path.abspath(path)) for path in chain)
        read = [read_yaml(file, overrides), *map(read_yaml, others)]
        modules = tuple(dict.fromkeys(plugins.file_of(name) for value in read for name in plugin_names(value)))
        return cls(verb, files[0], files, _base(files), tuple(overrides), modules)

    @property
    def command(self) -> tuple[str, ...]:
        """What the cluster runs. `python -m` uses the package in the working folder, even if another one is installed."""
        sets = (part for text in self.overrides for part in ("--set", text))
        return ("python", "-m", "rayprob", self.verb, self.file.relative_to(self.base).as_posix(), *sets)

    @property
    def entrypoint(self) -> str:
        """The command as a line of shell, as Ray expects it."""
        return shlex.join(self.command)

    def pack(self, folder: Path) -> None:
        """Copy the package, the run's files and its plugins into an empty folder: no data, no weights, no runs."""
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=NO_BYTECODE)
        for path in self.files:
            target = folder / path.relative_to(self.base)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        for path in self.plugins:
            if path.is_dir():
                shutil.copytree(path, folder / path.name, ignore=NO_BYTECODE)
            else:
                shutil.copyfile(path, folder / path.name)


def _base(files: Sequence[Path]) -> Path:
    here = Path.cwd()
    return here if all(path.is_relative_to(here) for path in files) else Path(os.path.commonpath([p.parent for p in files]))


def default_id(name: str, now: datetime) -> str:
    """Return a unique job id that contains the run's name."""
    return f"{name}-{now:%Y%m%d-%H%M%S}"


def check_run(run: Run) -> None:
    """Refuse a run whose folder, dataset, weights or files of the head the cluster will not find. Raises RunError."""
    require_absolute_folder(run)
    for root in run.data.roots:
        require_absolute("data.root", root, "/mnt/shared/coco2014")
    for name, service in run.tracking.items():
        if service.absolute() != service:
            raise RunError(f"tracking.{name} has a relative path, and {COPY}; set a server, or a path that every node sees")
    files = {"model.weights": run.model.weights}
    files |= {f"model.head.{option}": path for option, path in run.model.head.files.items()}
    for key, uri in files.items():
        if uri is not None and is_file(uri):
            _check_file(run, key, uri)


def _check_file(run: Run, key: str, uri: str) -> None:
    """Refuse a file that the nodes will not find. Raises RunError."""
    require_absolute(key, uri, f"/mnt/shared/{key.rpartition('.')[2]}/" + uri.rstrip("/").rpartition("/")[2])
    roots = " or ".join(run.data.roots)
    if _is_of_this_machine(uri, beside=(run.run_folder, *run.data.roots)):
        raise RunError(
            f"{key} {uri} is a path on this machine, not next to folder {run.run_folder} or data.root "
            f"{roots}, and {COPY}; copy the file to a place that every node sees, or to a URI, and set {key} to "
            f"that; if every node already has the file at this path: --set {key}={file_uri(storage.local_path(uri))}"
        )


def require_absolute(key: str, uri: str, example: str) -> None:
    """Refuse a relative path, which means a different place in a job. Raises RunError."""
    if storage.is_local(uri) and not storage.local_path(uri).is_absolute():
        raise RunError(f"{key} {uri} is relative, and {COPY}; set a path that every node sees, or a URI: --set {key}={example}")


def _is_of_this_machine(path: str, beside: Sequence[str]) -> bool:
    """Return whether a path exists here and shares no top-level folder with the paths that every node sees."""
    if "://" in path or not storage.local_path(path).exists():
        return False
    tops = {storage.local_path(uri).parts[1:2] for uri in beside if storage.is_local(uri)}
    return storage.local_path(path).parts[1:2] not in tops
