"""benchmarks/gpu_day.py without a GPU and without COCO: its commands, what it skips, and all of it on drawn scenes."""

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayprob.cli.app import main as rayprob
from rayprob.train.assess import NUMBERS
from tests.commands import fault_of

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _beside_the_benchmarks() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def in_this_process(step: Any) -> int:
    """Run a step of rayprob without the seconds that a new process takes to import torch."""
    before = sys.argv
    sys.argv = list(step.command)
    try:
        with contextlib.ExitStack() as stack:
            if step.keeps_output:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(step.makes.open("w"))))
            rayprob()
    except SystemExit as ending:
        return int(ending.code or 0)
    finally:
        sys.argv = before
    return 0


def test_the_plan_has_known_commands_from_the_download_to_the_last_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpu_day import main

    assert main(["--dry-run", "--out", str(tmp_path / "out"), "--images", str(tmp_path / "coco"), "--systems", "csra"]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line.partition(" > ")[0]) for line in lines if line.startswith(("wget", "unzip", "rayprob"))]
    programs = [command[1] if command[0] == "rayprob" else command[0] for command in commands]
    of_a_run = ["calibrate", "evaluate", "report"]
    assert programs == ["wget", "unzip"] * 3 + ["shard", "tune"] + of_a_run * 6 + ["compare", "tune"]
    assert not [fault for command in commands if command[0] == "rayprob" and (fault := fault_of(command[1:]))]
    # paper: 30 epochs; strong, bernoulli and csra: 40; three seeds each.
    assert "12 runs, 450 epochs, 35 million images" in lines[-2]
    assert not (tmp_path / "out").exists()


def test_archives_are_skipped_where_their_files_are(tmp_path: Path) -> None:
    from gpu_day import ARCHIVES, downloads
    from gpu_day_steps import Ledger

    ledger = Ledger(tmp_path / "steps.json")
    folder = tmp_path / ARCHIVES[2].folder
    folder.mkdir()
    for number in range(ARCHIVES[2].num_files):
        assert not any(ledger.is_done(step) for step in downloads(tmp_path))
        (folder / str(number)).touch()
    assert [ledger.is_done(step) for step in downloads(tmp_path)] == [False] * 4 + [True] * 2


def test_a_step_is_done_once_its_command_made_its_result(tmp_path: Path) -> None:
    from gpu_day_steps import Ledger, Step

    made = tmp_path / "made"
    codes = {"first": 1, "second": 0}
    taken: list[str] = []

    def run(step: Step) -> int:
        taken.append(step.command[0])
        made.touch()
        return codes[step.command[0]]

    first, second = (Step("make", (name,), made) for name in ("first", "second"))
    ledger = Ledger(tmp_path / "steps.json")
    assert ledger.take(first, run) == 1
    # What a failed command left behind counts as little as the result of another command.
    assert not ledger.is_done(first)
    assert ledger.take(second, run) == 0
    again = Ledger(tmp_path / "steps.json")
    assert (again.is_done(second), again.is_done(first)) == (True, False)
    assert again.take(second, run) == 0
    assert taken == ["first", "second"]
    made.unlink()
    assert not again.is_done(second)


def test_output_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    from gpu_day_steps import Step, run_step

    for code in (0, 3):
        made = tmp_path / f"{code}.txt"
        words = (sys.executable, "-c", f"import sys; print('said'); sys.exit({code})")
        assert run_step(Step("say", words, made, keeps_output=True)) == code
        assert made.exists() == (code == 0)
    assert (tmp_path / "0.txt").read_text() == "said\n"


def test_without_a_gpu_it_ends_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_day

    monkeypatch.setattr(gpu_day.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU; --rehearse"):
        gpu_day.main(["--out", str(tmp_path / "out")])
    monkeypatch.setattr(gpu_day.shutil, "which", lambda name: name)
    monkeypatch.setattr(gpu_day, "free_gb", lambda day: 20.0)
    with pytest.raises(SystemExit, match=r"has 20 GB free, and \d+ GB are needed"):
        gpu_day.main(["--out", str(tmp_path / "out"), "--images", str(tmp_path / "coco"), "--part", "paper"])
    with pytest.raises(SystemExit, match="unknown systems nothing; known are apart, asymmetric"):
        gpu_day.main(["--systems", "nothing", "--dry-run"])


def test_numbers_are_means_and_spreads_over_the_seeds_of_a_run_file(tmp_path: Path) -> None:
    from gpu_day_summary import RULES, in_words, recipes

    values = {"paper": (0.79, 0.81, 0.8), "strong-er": (0.5,)}
    for name, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            numbers = dict.fromkeys(NUMBERS, value)
            (tmp_path / f"{name}-{seed}.json").write_text(json.dumps(dict.fromkeys(RULES, numbers)))
    found = recipes(tmp_path)
    for name, of_seeds in values.items():
        assert found[name]["tuned"]["OF1"]["values"] == list(of_seeds)
    assert in_words(found["paper"]["at_half"]["mAP"]) == "0.800 ± 0.010"
    assert in_words(found["strong-er"]["at_half"]["mAP"]) == "0.500"


def test_a_signal_reaches_the_command_which_ends_first() -> None:
    child = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('ready', flush=True); time.sleep(60)"
    script = (
        "import subprocess, sys; from gpu_day_steps import waited_for; "
        f"print(waited_for(subprocess.Popen([sys.executable, '-c', {child!r}])))"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=FOLDER, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.read() == "7\n"


@pytest.mark.slow
def test_all_of_it_is_rehearsed_on_scenes_and_done_once(tmp_path: Path) -> None:
    from gpu_day import main

    words = ["--rehearse", "--out", str(tmp_path / "out"), "--seeds", "1"]
    assert main(words, in_this_process) == 0
    facts = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(facts["recipes"]) == {"paper", "strong"}
    evaluation = json.loads((tmp_path / "out" / "evaluations" / "paper-0.json").read_text())
    assert {name: one["mean"] for name, one in facts["recipes"]["paper"]["at_half"].items()} == evaluation["at_half"]
    names = {part: [row["name"] for row in rows] for part, rows in facts["judged"].items()}
    assert names == {"paper": ["paper", "strong"], "systems": ["bernoulli", "decoder"]}
    # Both rank by raw scores, so `tune` and `evaluate` have found the same number.
    judged = facts["judged"]["paper"][0]["cells"]["mAP"]["by_seed"]
    assert judged == pytest.approx([evaluation["at_half"]["mAP"]], abs=1e-6)
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "A rehearsal" in text
    assert "| the paper, at 0.5 | 0.794 | 0.995 |" in text
    assert {"pages/paper-0.html", "pages/comparison.html", "systems/report.html"} <= set(facts["pages"])

    def never(step: Any) -> int:
        raise AssertionError(step.name)

    assert main(words, never) == 0
