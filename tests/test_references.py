"""What one file says of another holds: commands are known, links lead somewhere, and each file that is named is there."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.commands import SPAN, blocks, fault_of, fault_of_keys, header_commands, rayprob_commands

ROOT = Path(__file__).resolve().parents[1]
TRACKED = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split()
# A template's names are filled in by `rayprob new`; a notebook's and a test's are their own.
TEXTS = [
    name
    for name in TRACKED
    if name.endswith((".md", ".yaml", ".sh", ".toml", "Makefile", ".py")) or name.startswith((".ci/", "cluster/"))
    if not name.startswith(("rayprob/project/templates/", "tests/"))
]
PAGES = [name for name in TRACKED if name.endswith(".md") and not name.startswith("tests/")]
HEADERS = [name for name in TEXTS if name.startswith(("shards/", "tune_configs/", "cluster/"))]
WITH_COMMANDS = [name for name in HEADERS if list(rayprob_commands(header_commands((ROOT / name).read_text())))]

FOLDERS = "benchmarks|cluster|docs|examples|rayprob|shards|tests|tune_configs"
PATH = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*\w\.(?:py|yaml|md|sh|html|css|ipynb)\b")
BARE = re.compile(r"(?<![\w./*-])([a-z][\w-]*\.yaml)\b")
WRITTEN = {"best.yaml", "run.yaml", "data.yaml", "recipe.yaml", "sweep.yaml"}  # by a run, a sweep, or rayprob new
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.M)
MAKE = re.compile(r"`(?:make ([a-z0-9-]+))`|^make ([a-z0-9-]+)", re.M)
# Shown as what a user would have: a project of `rayprob new birds`, a file of one's own.
EXAMPLES = {"shards/birds.yaml", "tune_configs/birds.yaml", "shards/mine.yaml", "tune_configs/mine.yaml"}


def anchor(heading: str) -> str:
    """Return the anchor of a heading as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_in_the_code_blocks_of_a_page_are_known(name: str) -> None:
    commands = [command for block in blocks((ROOT / name).read_text()) for command in rayprob_commands(block)]
    faults = {" ".join(command): fault for command in commands if (fault := fault_of(command))}
    assert not faults


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_the_commands_in_the_header_of_a_file_are_known(name: str) -> None:
    commands = list(rayprob_commands(header_commands((ROOT / name).read_text())))
    faults = {" ".join(command): fault for command in commands if (fault := fault_of(command, whole=False))}
    assert not faults


@pytest.mark.parametrize("name", sorted({*PAGES, *WITH_COMMANDS}))
def test_the_keys_that_shown_commands_set_are_known(name: str) -> None:
    text = (ROOT / name).read_text()
    shown = [*blocks(text), *SPAN.findall(text)] if name in PAGES else [header_commands(text)]
    commands = [command for code in shown for command in rayprob_commands(code)]
    faults = {" ".join(command): fault for command in commands if (fault := fault_of_keys(command, ROOT))}
    assert not faults


@pytest.mark.parametrize("name", TEXTS)
def test_the_commands_in_prose_are_known(name: str) -> None:
    spans = [span for span in SPAN.findall((ROOT / name).read_text()) if re.match(r"rayprob [a-z]", span)]
    commands = [command for span in spans for command in rayprob_commands(span)]
    faults = {" ".join(command): fault for command in commands if (fault := fault_of(command, whole=False))}
    assert not faults


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_to_files_and_headings(name: str) -> None:
    faults = []
    for target in LINK.findall((ROOT / name).read_text()):
        path, _, fragment = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        if "://" in target or target.startswith("mailto:"):
            continue
        headings = (
            [anchor(heading) for heading in HEADING.findall(page.read_text())] if page.suffix == ".md" and page.exists() else []
        )
        if not page.exists() or (fragment and fragment not in headings):
            faults.append(target)
    assert not faults


@pytest.mark.parametrize("name", TEXTS)
def test_the_files_that_a_file_names_are_there(name: str) -> None:
    found = {path for path in PATH.findall((ROOT / name).read_text()) if not re.search("/FILE\\.|/_build/", path)} - EXAMPLES
    assert not {path for path in found if not (ROOT / path).exists()}


@pytest.mark.parametrize("name", [name for name in HEADERS if name.endswith(".yaml")])
def test_the_files_that_a_yaml_file_names_without_a_folder_lie_beside_it(name: str) -> None:
    text = (ROOT / name).read_text()
    found = set(BARE.findall(text)) - WRITTEN
    assert not {other for other in found if not ((ROOT / name).parent / other).exists()}


def test_no_file_refers_to_a_part_of_the_readme_without_its_heading() -> None:
    headings = set(HEADING.findall((ROOT / "README.md").read_text()))
    vague = [
        (name, found)
        for name in TEXTS
        for found in re.findall(r"README's (?:table|section|part)[^.;)]*", (ROOT / name).read_text())
    ]
    assert not [(name, found) for name, found in vague if not any(f'"{heading}"' in found for heading in headings)]


def test_the_targets_of_make_that_pages_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.M))
    code = {name: (ROOT / name).read_text() for name in (*PAGES, ".ci/run")}
    asked = {(name, found[0] or found[1]) for name, text in code.items() for found in MAKE.findall(text)}
    assert not {(name, target) for name, target in asked if target not in targets}
