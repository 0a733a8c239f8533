"""The quickstart runs, and the notebook is the quickstart with the outputs that it has."""

import json
import os
import re
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


def script_module() -> Any:
    spec = spec_from_file_location("make_notebook", EXAMPLES / "make_notebook.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page_blocks() -> list[tuple[str, str]]:
    """Return the blocks of code on the Python page, each with the output that is shown below it, or ""."""
    page = (EXAMPLES.parent / "docs" / "python.md").read_text()
    found = re.findall(r"```python\n(.*?)\n```(?:\n\n```text\n(.*?)\n```)?", page, flags=re.DOTALL)
    return [(code, shown) for code, shown in found]


def stored_cells() -> list[Any]:
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def text_of(cell: Any) -> str:
    """Return what the cell shows, as a script prints it."""
    shown = ["".join(out["text"] if "text" in out else out["data"]["text/plain"]).rstrip("\n") for out in cell["outputs"]]
    return "\n".join(shown)


def train_here(run: Run, tell: Any, fresh: bool) -> Outcome:
    """Train in this process, which has imported everything already."""
    run = absolute(run)
    claim(run, Dataset.open(run.data.root))
    return fit(run, Place(), torch.device("cpu"), lambda numbers: tell({"kind": "evaluation", "step": 1, "mAP": 0.5}))


def kinds(cells: Any) -> list[tuple[str, list[str]]]:
    """Return each cell's source, and the kinds of what it shows."""
    return [
        (
            "".join(cell["source"]),
            [f"{out['output_type']}: {', '.join(out.get('data', ()))}" for out in cell.get("outputs", ())],
        )
        for cell in cells
    ]


def test_the_code_of_the_python_page_runs_and_is_the_quickstart_and_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rayprob.api.verbs.launch", train_here)
    *blocks, (wrong, error) = page_blocks()
    make, names = script_module(), {"__name__": "__main__"}
    made = []
    for code, _ in blocks:
        source = make.LAST_PRINT.sub(r"\1", code)
        made.append({"source": source, "outputs": make.outputs_of(source.replace(SIZES, TINY), names, 1)})
    assert [kind for kind in kinds(made) if kind in kinds(stored_cells())] == kinds(stored_cells())
    with pytest.raises(rp.RayprobError) as caught:
        exec(wrong, names)
    assert error == f"{type(caught.value).__name__}: {caught.value}"
    assert rp.load("runs/quickstart").rules[0] == "global_OF1"


def test_the_notebook_is_the_quickstart() -> None:
    make = script_module()
    stored = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    assert SIZES in QUICKSTART
    assert ["".join(cell["source"]) for cell in stored] == [
        source if is_text else make.LAST_PRINT.sub(r"\1", source) for is_text, source in make.cells_of(QUICKSTART)
    ]


def test_the_outputs_of_the_python_page_are_those_of_its_code() -> None:
    make = script_module()
    stored = {"".join(cell["source"]): text_of(cell) for cell in stored_cells()}
    shown = {make.LAST_PRINT.sub(r"\1", code): text for code, text in page_blocks()[:-1] if text}
    assert shown == {source: text for source, text in stored.items() if text}


def test_the_stored_notebook_is_small_whole_and_from_nobodys_machine() -> None:
    text = (EXAMPLES / "quickstart.ipynb").read_text()
    stored = json.loads(text)
    assert (stored["nbformat"], len({cell["id"] for cell in stored["cells"]})) == (4, len(stored["cells"]))
    assert sum("text/html" in out.get("data", ()) for cell in stored["cells"] for out in cell.get("outputs", ())) >= 2
    assert len(text) < 100_000
    assert not [word for word in ("/home", "/root", "/work", "/tmp", "Traceback") if word in text]


@pytest.mark.slow
def test_the_quickstart_prints_what_the_notebook_shows_and_runs_twice(tmp_path: Path) -> None:
    """In full, about a minute: the table of `evaluate`, whose last digits depend on the processor."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(EXAMPLES / "quickstart.py")]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        numbers = [_numbers(text) for text in (done.stdout, "\n".join(map(text_of, stored_cells())))]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.1)
    assert rp.load(tmp_path / "runs" / "quickstart").labels[0] == "person"


def _numbers(text: str) -> dict[str, float]:
    """Return the numbers of the table of `evaluate`, at 0.5."""
    return {name: float(value) for name, value in re.findall(r"^(mAP|O[PRF]1?|C[PRF]1?) +(\d\.\d{4})", text, flags=re.M)}
