"""The rehearsal of cluster/onprem.yaml as a test. It takes half an hour and root: pytest -m rehearsal tests/cluster."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.files import ROOT


@pytest.mark.rehearsal
@pytest.mark.timeout(5400)
def test_the_way_of_the_onprem_file_with_every_fault_ends_bit_equal(shared: Path) -> None:
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("test hosts are Linux namespaces, which only root can create")
    done = subprocess.run(
        [sys.executable, "benchmarks/rehearsal.py"], cwd=ROOT, text=True, capture_output=True, check=False, timeout=5000
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("bit-equal") == 4, done.stdout
    assert re.search(r"2 -> 1 -> 2 workers", done.stdout), done.stdout
