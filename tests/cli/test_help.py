"""What `--help` shows at 80 columns, completion, the version, and that none of them imports torch or Ray."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rayprob
from rayprob.cli.app import PANELS, app
from rayprob.cli.help import EXAMPLES
from rayprob.runs.spec import Run, identity
from tests.commands import fault_of, rayprob_commands, verbs

ROOT = Path(__file__).resolve().parents[2]
VERBS = verbs()
# What a shell sets when it asks; of bash, whose words are COMP_WORDS.
COMPLETE = {"_RAYPROB_COMPLETE": "complete_bash"}
MODULES = (
    "import sys\nfrom rayprob.cli import main\nsys.argv = ['rayprob', *sys.argv[1:]]\n"
    "try:\n    main()\nfinally:\n"
    "    print(sorted({'torch', 'ray', 'numpy', 'pyarrow'} & sys.modules.keys()), file=sys.stderr)\n"
)


def shown(*arguments: str) -> str:
    """Return what a command prints on a terminal of 80 columns."""
    return CliRunner().invoke(app, list(arguments), terminal_width=80, prog_name="rayprob").output


def started(*arguments: str, **variables: str) -> tuple[str, list[str]]:
    """Return what a process of its own prints, and which heavy modules it imported."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **variables}
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    return done.stdout, ast.literal_eval(done.stderr.splitlines()[-1])


def completed(words: str, **variables: str) -> list[str]:
    """Return what bash is offered for the last word of a command."""
    offered, heavy = started(**COMPLETE, COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1), **variables)
    assert heavy == []
    return offered.split()


def test_the_list_of_verbs_shows_each_whole_and_in_its_panel() -> None:
    lines = shown("--help").splitlines()
    assert all(len(line) <= 80 for line in lines)
    for panel, members in PANELS.items():
        below = lines[lines.index(f"{panel}:") + 1 :]
        names = [verb.__name__.replace("_", "-") for verb in members]
        assert [line.split()[0] for line in below[: len(names)]] == names
        assert [line.split(maxsplit=1)[1] for line in below[: len(names)]] == [VERBS[name].summary for name in names]
    assert "..." not in "".join(lines).replace("[ARGS]...", "")
    assert sum(map(len, PANELS.values())) == len(VERBS)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_the_help_of_a_verb_fits_and_ends_with_examples_that_are_commands(name: str) -> None:
    page = shown(name, "--help")
    assert page == shown(name, "-h")
    assert all(len(line) <= 80 for line in page.splitlines())
    examples = list(rayprob_commands(page.partition("\nExamples:\n")[2]))
    assert 1 <= len(examples) <= 3
    assert {example[0] for example in examples} == {name}
    assert [fault for example in examples if (fault := fault_of(example))] == []
    assert VERBS[name].help.partition(EXAMPLES)[2]


def test_the_examples_run_after_the_demo() -> None:
    pages = (shown(name, "--help").partition("\nExamples:\n")[2] for name in VERBS)
    examples = [example for page in pages for example in rayprob_commands(page)]
    made = {"demo/run", "demo/shards", "demo/sweep", "demo/scenes", "demo/again", "demo/again/bundle"}
    named = {
        word for example in examples for word in example if re.fullmatch(r"(tune_configs|shards|demo|runs|sweeps)/\S+", word)
    }
    assert "folder=demo/again" in shown("train", "--help")
    assert [path for path in named - made if not (ROOT / path).exists()] == ["shards/mine"]
    trained = [Run.read(rest[1], [word for word in rest if "=" in word]) for rest in examples if rest[0] == "train"]
    assert len({(run.run_folder, str(identity(run))) for run in trained}) == len({run.run_folder for run in trained})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train tune_configs/demo.yaml --set optimizr.lr=1", "unknown key 'optimizr'; nearest: optimizer"),
        ("train shards/scenes.yaml", "use `rayprob shard shards/scenes.yaml`"),
        ("tune shards/scenes.yaml", "use `rayprob shard shards/scenes.yaml`"),
        ("evaluate runs/nothing", "runs/nothing does not exist"),
        ("calibrate tune_configs/demo.yaml", "is a run file"),
        ("predict runs/nothing photo.jpg", "no bundle at runs/nothing"),
    ],
)
def test_mistyped_names_are_refused_before_torch_or_ray_is_imported(arguments: str, message: str) -> None:
    code = MODULES.replace("'numpy', 'pyarrow'", "'torchvision'")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert message in done.stderr
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "[]")


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_option_of_a_verb_says_what_it_is_for(name: str) -> None:
    assert [param.name for param in VERBS[name].params if not param.help] == []


def test_a_command_without_arguments_shows_the_first_three_commands() -> None:
    assert shown() == shown("--help")
    first = shown().partition("Start here:\n")[2].partition("\n\n")[0].splitlines()
    commands = [command for line in first for command in rayprob_commands(line)]
    assert [command[0] for command in commands] == ["new", "shard", "train"]
    assert [fault for command in commands if (fault := fault_of(command))] == []


def test_the_version_is_the_packages() -> None:
    assert shown("--version") == f"rayprob {rayprob.__version__}\n"


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("calibrate", "-h"), ("tran",)])
def test_help_version_and_a_misspelt_verb_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert started(*arguments)[1] == []


def test_a_misspelt_verb_is_answered_with_the_nearest() -> None:
    assert "No such command 'tran'. Did you mean 'train'" in CliRunner().invoke(app, ["tran"]).output


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("rayprob tr", ["train"]),
        ("rayprob calibrate --me", ["--method"]),
        ("rayprob calibrate --method sh", ["shared_platt"]),
        ("rayprob new x --like pa", ["paper"]),
    ],
)
def test_completion_offers_verbs_options_and_choices_without_torch_or_ray(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


def test_completion_of_bash_is_a_script_of_this_command() -> None:
    script, heavy = started("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert script.rstrip().endswith("complete -o default -F _rayprob_completion rayprob")
    assert heavy == []


@pytest.mark.parametrize(
    ("verb", "usage"), [("predict", "{BUNDLE} {IMAGES}..."), ("compare", "{RUN}..."), ("report", "{RUN}...")]
)
def test_an_argument_that_repeats_has_its_dots_once(verb: str, usage: str) -> None:
    assert shown(verb, "--help").splitlines()[0] == f"Usage: rayprob {verb} [OPTIONS] {usage}"


def test_a_new_project_takes_every_layout_of_labels() -> None:
    said = " ".join(shown("new", "--help").split())
    assert "Your images with labels: COCO, LVIS, a table, Pascal VOC, YOLO, folders, Hugging Face, WebDataset." in said
