"""What is sent: the files, the command, and what is refused before anything is sent."""

import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from rayprob.cli.show_submit import parse_env, read_job
from rayprob.errors import RunError, SpecError
from rayprob.submit.job import Job, default_id

ROOT = Path(__file__).resolve().parents[2]
THERE = ("folder=/mnt/shared/runs/x", "data.root=s3://bucket/coco2014")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("file", "extra", "verb", "name", "files"),
    [
        ("tune_configs/paper.yaml", (), "train", "paper", ["paper.yaml"]),
        ("tune_configs/full.yaml", (), "tune", "full", ["full.yaml", "strong.yaml"]),
        ("tune_configs/demo-sweep.yaml", ("placement.num_workers=2",), "tune", "demo-sweep", ["demo-sweep.yaml", "demo.yaml"]),
    ],
)
def test_a_file_with_a_search_is_tuned_and_brings_what_it_extends(
    file: str, extra: tuple[str, ...], verb: str, name: str, files: list[str]
) -> None:
    found, job = read_job(file, (*THERE, *extra))
    assert (found, job.verb, [path.name for path in job.files]) == (name, verb, files)
    sets = [part for text in (*THERE, *extra) for part in ("--set", text)]
    assert shlex.split(job.entrypoint) == ["python", "-m", "rayprob", verb, file, *sets]


@pytest.mark.usefixtures("here")
def test_a_threshold_search_is_tuned_where_its_run_is_on_the_cluster() -> None:
    name, job = read_job("tune_configs/thresholds.yaml", ("thresholds.run=/mnt/shared/runs/paper",))
    assert (name, job.verb) == ("thresholds", "tune")
    with pytest.raises(RunError, match=r"thresholds.run runs/x is relative, and a job runs in a copy of only the package"):
        read_job("tune_configs/thresholds.yaml", ("thresholds.run=runs/x",))


@pytest.mark.usefixtures("here")
def test_a_systems_file_brings_the_run_files_that_it_compares() -> None:
    """On features it needs their run; end to end, each run must find its data."""
    there = ("folder=/mnt/shared/systems/all", "systems.source=/mnt/shared/runs/paper")
    name, job = read_job("tune_configs/systems.yaml", there)
    assert (name, job.verb) == ("systems", "tune")
    files = {path.relative_to(ROOT).as_posix() for path in job.files}
    assert files > {"tune_configs/systems.yaml", "tune_configs/systems/bernoulli.yaml", "tune_configs/systems/decoder.yaml"}
    for sets, message in (
        (there[:1], "systems.source runs/coco-places is relative"),
        (there[1:], "folder systems/systems is relative"),
        ((there[0], "systems.source=null", "systems.files=[systems/vit.yaml]"), "data.root .* is relative"),
    ):
        with pytest.raises(RunError, match=message):
            read_job("tune_configs/systems.yaml", sets)


def test_a_serve_file_is_served_with_bundles_that_every_node_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "serve.yaml").write_text(
        "bundles: {birds: /mnt/shared/runs/birds}\nhost: 0.0.0.0\ntoken_file: /mnt/shared/token\n"
    )
    monkeypatch.chdir(tmp_path)
    name, job = read_job("serve.yaml", ("port=9000",))
    assert (name, job.entrypoint) == ("serve", "python -m rayprob serve serve.yaml --set port=9000")
    for sets, key in ((("bundles.birds=runs/birds",), "bundles.birds runs/birds"), (("token_file=token",), "token_file token")):
        with pytest.raises(RunError, match=f"{key} is relative, and a job runs in a copy"):
            read_job("serve.yaml", sets)


def test_the_packed_folder_holds_the_package_and_the_files_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine.yaml").write_text("extends: ../base/base.yaml\nname: mine\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "base.yaml").write_text("name: base\n")
    (tmp_path / "runs" / "weights.pt").write_bytes(b"0" * 100)
    monkeypatch.chdir(tmp_path / "runs")
    job = Job.of("train", "mine.yaml", ["note=two words; rm"])
    packed = tmp_path / "packed"
    packed.mkdir()
    job.pack(packed)
    found = sorted(path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file())
    of_package = [name for name in found if name.startswith("rayprob/")]
    assert sorted(set(found) - set(of_package)) == ["base/base.yaml", "runs/mine.yaml"]
    assert not [name for name in of_package if "__pycache__" in name]
    assert shlex.split(job.entrypoint)[3:] == ["train", "runs/mine.yaml", "--set", "note=two words; rm"]
    script = "import rayprob; from rayprob.config import spec; print(rayprob.__file__, spec.read_yaml('runs/mine.yaml')"
    script += "['name'])"
    ran = subprocess.run([sys.executable, "-c", script], cwd=packed, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(packed / "rayprob" / "__init__.py"), "mine"]


def test_a_file_that_extends_an_absolute_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("name: base\n")
    (tmp_path / "mine.yaml").write_text(f"extends: {tmp_path}/base.yaml\n")
    with pytest.raises(
        SpecError, match=r"mine.yaml extends .*base.yaml, which the cluster does not have: .*write that path relat"
    ):
        Job.of("train", str(tmp_path / "mine.yaml"), ())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ("data.root=s3://b/c",),
            r"folder runs/paper is relative, but a job runs in a temporary copy of the working folder; set a path that",
        ),
        (("folder=s3://b/r",), r"data.root shards/coco2014 is relative, .*--set data.root=/mnt/shared/coco2014"),
        ((*THERE, "tracking.mlflow=sqlite:///m.db"), r"tracking.mlflow has a relative path, .*; set a server, or a path that"),
        ((*THERE, "model.weights=./w.pt"), r"model.weights ./w.pt is relative, .*--set model.weights=/mnt/shared/weights/w.pt"),
        (
            (*THERE, "model.head={name: mixture, components: 2, prior: ./p.safetensors}", "loss.name=mixture"),
            r"model.head.prior ./p.safetensors is relative, .*--set model.head.prior=/mnt/shared/prior/p.safetensors",
        ),
    ],
)
def test_relative_paths_are_refused(sets: tuple[str, ...], message: str) -> None:
    with pytest.raises(RunError, match=message):
        read_job("tune_configs/paper.yaml", sets)


@pytest.mark.usefixtures("here")
def test_a_sweep_without_a_folder_is_refused() -> None:
    with pytest.raises(RunError, match="folder sweeps/full is relative"):
        read_job("tune_configs/full.yaml", ("data.root=s3://b/c",))


@pytest.mark.usefixtures("here")
def test_weights_of_this_machine_are_refused_unless_they_lie_where_every_node_sees_them(tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    weights.touch()
    with pytest.raises(RunError, match=rf"is a path on this machine, not next to .*--set model.weights=file://{weights}"):
        read_job("tune_configs/paper.yaml", (*THERE, f"model.weights={weights}"))
    beside = f"folder=/{tmp_path.parts[1]}/runs"
    for path in (f"file://{weights}", "s3://bucket/w.pt", "/mnt/of/the/cluster/only/w.pt", "IMAGENET1K_V2"):
        assert read_job("tune_configs/paper.yaml", (*THERE, f"model.weights={path}"))
    assert read_job("tune_configs/paper.yaml", (beside, THERE[1], f"model.weights={weights}"))


def test_an_id_says_which_run_it_is() -> None:
    assert default_id("paper", datetime(2026, 11, 23, 20, 1, 2)) == "paper-20261123-200102"


def test_environment_variables_are_names_and_values() -> None:
    assert parse_env(["A=b=c", "D="]) == {"A": "b=c", "D": ""}
    with pytest.raises(SpecError, match=r"--env takes NAME=VALUE, .*; found 'A'"):
        parse_env(["A"])
