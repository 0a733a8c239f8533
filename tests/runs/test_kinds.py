"""A path that is not the folder of a run is named for what it is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rayprob.errors import BundleError, RunError
from rayprob.runs.kinds import require_bundle, require_run

ROOT = Path(__file__).resolve().parents[2]


def made(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return str(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("bundle.json",), "is a bundle; give the run's folder, which also contains its predictions"),
        (("sweep.yaml",), "is the folder of a sweep; give that of one of its runs, such as {folder}/trials/000"),
        (("systems.json",), "is the folder of a comparison of systems, whose page is {folder}/report.html; `rayprob tune` on"),
        (("dataset.json",), "is a dataset; `rayprob inspect {folder}` shows it"),
        (("photo.jpg",), "is not a run folder: it has no run.yaml"),
        ((), "does not exist; give the folder that `rayprob train` printed"),
    ],
)
def test_a_folder_of_another_kind_is_no_run(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    folder = made(tmp_path / "x", *names)
    with pytest.raises(RunError) as caught:
        require_run(folder)
    assert str(caught.value).startswith(f"{folder} {message.format(folder=folder)}")


def test_the_folder_above_a_run_names_the_run(tmp_path: Path) -> None:
    made(tmp_path, "demo/run/run.yaml", "demo/run/bundle/bundle.json", "demo/shards/dataset.json", "demo/photo.jpg")
    demo = str(tmp_path / "demo")
    with pytest.raises(BundleError, match=f"^no bundle at {demo}: it is the folder above a run; give {demo}/run$"):
        require_bundle(demo)
    with pytest.raises(RunError, match=f"^{demo} is the folder above a run; give {demo}/run$"):
        require_run(demo)
    made(tmp_path, "demo/two/bundle/bundle.json")
    with pytest.raises(BundleError, match=f"is the folder above runs; give {demo}/run or {demo}/two$"):
        require_bundle(demo)
    made(tmp_path, "demo/three/bundle/bundle.json", "demo/four/bundle/bundle.json")
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        require_bundle(demo)


def test_a_file_is_no_run() -> None:
    path = str(ROOT / "tune_configs/demo.yaml")
    with pytest.raises(RunError) as caught:
        require_run(path)
    assert str(caught.value) == f"{path} is a run file, not a folder; use `rayprob train {path}`"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("run.yaml",), "has no bundle yet: the run is not finished"),
        (("dataset.json",), "no bundle at .*: it is a dataset"),
        (("photo.jpg",), "no bundle at .*: bundle.json is missing"),
    ],
)
def test_a_folder_without_a_bundle_is_named(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        require_bundle(made(tmp_path, *names))


@pytest.mark.parametrize(
    ("require", "names"), [(require_run, ["run.yaml"]), (require_bundle, ["run.yaml", "bundle/bundle.json"])]
)
def test_a_run_is_one(tmp_path: Path, require: Callable[[str], None], names: list[str]) -> None:
    require(made(tmp_path, *names))
