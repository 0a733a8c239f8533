"""How the processes of loader workers are started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rayprob.loader import workers


@pytest.mark.parametrize("before", [None, "x"])
def test_what_starts_loader_workers_takes_nothing_from_the_working_folder(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if before:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    (tmp_path / "queue.py").write_text("raise RuntimeError('a file of the user')")
    with workers._own_modules_only():  # as multiprocessing starts its server
        assert subprocess.run([sys.executable, "-c", "import queue"], cwd=tmp_path, check=False).returncode == 0
    assert os.environ.get("PYTHONSAFEPATH") == before
