"""The quickstart runs, and the notebook is the quickstart with the outputs that it has."""

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

import rayprob as rp
from rayprob.data.manifest.dataset import Dataset
from rayprob.loader.order import Place
from rayprob.runs.folder import claim
from rayprob.runs.spec import Run, absolute
from rayprob.train.loop import Outcome, fit

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICKSTART = (EXAMPLES / "quickstart.py").read_text()
SIZES, TINY = "NUM_IMAGES, EPOCHS = 1000, 8", "NUM_IMAGES, EPOCHS = 160, 1"


def make_notebook(script: str) -> Any:
    spec = spec_from_file_location("make_notebook", EXAMPLES / "make_notebook.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_notebook(script)


def train_here(run: Run, tell: Any, fresh: bool) -> Outcome:
    """Train in this process, which has imported everything already."""
    run = absolute(run)
    claim(run, Dataset.open(run.data.root))
    return fit(run, Place(), torch.device("cpu"))


def kinds(notebook: Any) -> list[tuple[str, list[str]]]:
    """Return each cell's source, and the kinds of what it shows."""
    cells = notebook["cells"]
    return [
        (
            "".join(cell["source"]),
            [f"{out['output_type']}: {', '.join(out.get('data', ()))}" for out in cell.get("outputs", ())],
        )
        for cell in cells
    ]


def test_the_notebook_is_the_quickstart_and_runs_to_the_same_kinds_of_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rayprob.api.verbs.launch", train_here)
    stored = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
    assert SIZES in QUICKSTART
    made = make_notebook(QUICKSTART.replace(SIZES, TINY))
    assert kinds(stored) == [(source.replace(TINY, SIZES), shown) for source, shown in kinds(made)]
    assert rp.load("runs/quickstart").rules[0] == "global_OF1"


def test_the_stored_notebook_is_small_whole_and_from_nobodys_machine() -> None:
    text = (EXAMPLES / "quickstart.ipynb").read_text()
    stored = json.loads(text)
    assert (stored["nbformat"], len({cell["id"] for cell in stored["cells"]})) == (4, len(stored["cells"]))
    assert sum("text/html" in out.get("data", ()) for cell in stored["cells"] for out in cell.get("outputs", ())) >= 2
    assert len(text) < 100_000
    assert not [word for word in ("/home", "/root", "/work", "/tmp", "Traceback") if word in text]


@pytest.mark.slow
def test_the_quickstart_runs_twice_in_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "quickstart.py").write_text(QUICKSTART.replace(SIZES, TINY))
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    for _ in range(2):
        said = subprocess.run([sys.executable, "quickstart.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (said.returncode, said.stdout) == (0, ""), said.stderr
    assert rp.load(tmp_path / "runs" / "quickstart").labels[0] == "person"


def test_the_outputs_of_the_python_page_are_those_of_the_notebook() -> None:
    page = (EXAMPLES.parent / "docs" / "python.md").read_text()
    shown = [text.strip() for text in page.split("```text\n")[1:]]
    shown = [text.split("\n```")[0] for text in shown if not text.startswith("LabelError")]
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    stored = ["".join(out["data"]["text/plain"]) for cell in cells for out in cell.get("outputs", ()) if "data" in out]
    assert len(shown) == 6
    assert [text for text in shown if text not in stored] == []
