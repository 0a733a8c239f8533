"""The wheel, built of a copy of what is tracked: it holds every file of the package, and runs away from the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCENES = ("--train", "600", "--val", "60", "--size", "64", "--labels", "6")
SHORT = ("duration.epochs=1", "evaluation.every.epochs=1", "transforms.train.size_px=32", "transforms.evaluate.size_px=32")


def copy_of_the_checkout(folder: Path) -> Path:
    """Copy the package, the starters and what a build reads; beside the recipes, a dataset was built."""
    leave = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "rayprob", folder / "rayprob", ignore=leave)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for path in (*ROOT.glob("shards/*.yaml"), *ROOT.glob("tune_configs/**/*.yaml")):
        (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    (folder / "shards" / "built").mkdir()
    (folder / "shards" / "built" / "dataset.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = copy_of_the_checkout(tmp_path_factory.mktemp("checkout"))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, "built"], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (checkout / "built").glob("*.whl")
    return wheel


def test_the_wheel_holds_every_file_of_the_package_and_the_starters_and_nothing_else(wheel: Path) -> None:
    package = [path for path in (ROOT / "rayprob").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    starters = [*ROOT.glob("shards/*.yaml"), *ROOT.glob("tune_configs/**/*.yaml")]
    expected = {path.relative_to(ROOT).as_posix() for path in package}
    expected |= {f"rayprob/starters/{path.relative_to(ROOT).as_posix()}" for path in starters}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected


@pytest.mark.slow
def test_the_quickstart_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([*pip, "--prefix", str(prefix), str(wheel)], check=True, timeout=300)
    (package,) = prefix.glob("lib/python*/site-packages/rayprob")
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}

    def rayprob(*arguments: str) -> str:
        command = [str(prefix / "bin" / "rayprob"), *arguments]
        cwd = tmp_path / "first" if (tmp_path / "first").exists() else tmp_path
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=800, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = [sys.executable, "-c", "import rayprob; print(rayprob.__file__)"]
    assert subprocess.check_output(where, env=environment, cwd=tmp_path, text=True).strip() == str(package / "__init__.py")
    assert "rayprob shard shards/scenes.yaml" in rayprob("new", "first")
    rayprob("scenes", "demo/scenes", *SCENES)
    rayprob("shard", "shards/scenes.yaml")
    sets = [part for key in (*SHORT, "placement.num_workers=1", "stream.global_batch=16") for part in ("--set", key)]
    assert "finished at step" in rayprob("train", "tune_configs/demo.yaml", *sets)
    assert "mAP" in rayprob("evaluate", "demo/run")
    rayprob("calibrate", "demo/run")
    rayprob("report", "demo/run")
    assert (tmp_path / "first" / "demo" / "run" / "report.html").stat().st_size > 10_000
