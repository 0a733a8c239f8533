"""One dataset, and one calibrated mixture run with its page, for the whole folder."""

from pathlib import Path

import pytest

from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import calibrate
from rayprob.report.run.write import report
from tests.report.run_folders import build_dataset, write_run


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The root of a built dataset with nasty label names."""
    return build_dataset(tmp_path_factory.mktemp("nasty"))


@pytest.fixture(scope="session")
def mixture_run(root: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A calibrated run with a mixture head, and its report.html."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "mixture", root, family="mixture")
    calibrate(folder, CalibrateSpec.parse({"method": "temperature"}))
    report(folder)
    return folder


@pytest.fixture(scope="session")
def mixture_page(mixture_run: str) -> str:
    """The HTML of the calibrated mixture run."""
    return (Path(mixture_run) / "report.html").read_text()
