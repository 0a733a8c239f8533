"""What `--help` shows at 80 columns, completion, the version, and that none of them imports torch or Ray."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rayprob
from rayprob.cli.app import PANELS, app
from rayprob.cli.help import EXAMPLES
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
