"""The page in headless Chromium: it renders, complains of nothing, and looks for nothing outside itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.page_checks import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--window-size=1280,2000",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def browse(path: Path, tmp_path: Path) -> tuple[str, list[str]]:
    """Return the document as the browser holds it, and what it wrote to its console."""
    screenshot = tmp_path / "page.png"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={screenshot}", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=240, check=True)
    assert screenshot.stat().st_size > 20_000
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_renders_without_complaint(mixture_run: str, mixture_page: str, tmp_path: Path) -> None:
    document, console = browse(Path(mixture_run) / "report.html", tmp_path)
    assert console == []
    seen = Page(document)
    assert seen.faults() == []
    assert seen.text == Page(mixture_page).text


def test_a_complaint_would_be_seen(mixture_page: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(mixture_page.replace("</main>", '<p style="color: red">x</p><script>1</script></main>'))
    _, console = browse(broken, tmp_path)
    assert len(console) >= 2
    assert all("Content Security Policy" in line for line in console)
