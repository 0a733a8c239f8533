"""No path of a run's or a sweep's folder is spelled twice: outside `paths.py` no string of the package holds one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayprob.runs.paths import DESCRIPTION_FILE, RAYS_OWN, TUNES_OWN, PathIn, RunFolder, SweepFolder, bundle_folder, trial_name

PACKAGE = Path(__file__).resolve().parents[2] / "rayprob"
KINDS = {*RunFolder.__mro__, *SweepFolder.__mro__}
NAMES = {
    DESCRIPTION_FILE,
    "trials",
    *(entry.name for kind in KINDS for entry in vars(kind).values() if isinstance(entry, PathIn)),
} - {RAYS_OWN, TUNES_OWN}  # which are words of other paths, too
FILES = {name for name in NAMES if "." in name}
# A name by itself, or beside a slash: in the middle of a sentence it is a word of a message. /v1/ is a path of a server.
SPELLED = re.compile(rf"(?:{'|'.join(map(re.escape, FILES))})$|(?!/v1/)\S*/(?:{'|'.join(map(re.escape, NAMES))})\b")


def spelled(path: Path) -> Iterator[str]:
    """Yield the strings of a module that are a path of a run's folder: constants, parts of f-strings, names that are joined."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            if SPELLED.match(node.value):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value!r}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("RunConfig"):  # which joins name to a folder
            names = [word.value.value for word in node.keywords if word.arg == "name" and isinstance(word.value, ast.Constant)]
            yield from (f"{path.relative_to(PACKAGE)}:{node.lineno}: joins {name!r}" for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("storage.join", "join"):
            joined = [part.value for part in node.args if isinstance(part, ast.Constant)]
            yield from (f"{path.relative_to(PACKAGE)}:{node.lineno}: joins {name!r}" for name in joined if name in NAMES)


def test_no_path_of_a_run_is_spelled_twice() -> None:
    found = [line for path in PACKAGE.rglob("*.py") if path != PACKAGE / "runs/paths.py" for line in spelled(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        'uri = storage.join(folder, "bundle")',
        'show(f"{folder}/predictions/{split}.parquet")',
        'FILE = "metrics.jsonl"',
        'tune.RunConfig(name="tune")',
    ],
)
def test_a_path_spelled_again_is_found(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__name__ + ".PACKAGE", tmp_path)
    (tmp_path / "module.py").write_text(source)
    assert list(spelled(tmp_path / "module.py"))


def test_paths_of_local_and_remote_folders() -> None:
    assert RunFolder("runs/demo/").predictions("val") == "runs/demo/predictions/val.parquet"
    assert RunFolder("s3://bucket/demo?region=x").history == "s3://bucket/demo/metrics.jsonl?region=x"
    assert SweepFolder("runs/sweep").trial(7) == "runs/sweep/" + trial_name(7) == "runs/sweep/trials/007"


def test_a_bundle_is_found_by_its_own_folder_and_by_its_runs(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    assert not run.has_bundle
    assert bundle_folder(run.folder) == run.folder
    Path(run.bundle).mkdir()
    (Path(run.bundle) / DESCRIPTION_FILE).write_text("{}")
    assert run.has_bundle
    assert bundle_folder(run.folder) == run.bundle == bundle_folder(run.bundle)
