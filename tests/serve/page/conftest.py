"""One Chromium for all tests of the page, bundles with odd names of labels, and a page that must not complain."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rayprob as rp
from rayprob.labels import LabelSpace
from rayprob.predict.members import with_dropout
from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits
from tests.loader.tiny import photo
from tests.predict.small import NAMES, make_bundle
from tests.serve.page.site import Site, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
LONG = "a name of sixty characters that no one shortens in any place"
ODD = ("<b>bold</b>", 'a "quoted" name', "a | b", "🍕 pizza", LONG, "x" * 60, "__proto__")
MEMBERS = 4
ANSWERED = "Failed to load resource: the server responded with a status of 4"  # Chromium's line for an error as an answer

Services = tuple[BundleService, BundleService]


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Services:
    """A mixture over ordinary and odd names, with an example image; and a bundle of fewer labels, with members."""
    folder, names = tmp_path_factory.mktemp("bundles"), (*NAMES, *ODD)
    odd = LabelSpace(names, tuple(range(1, len(names) + 1)))
    make_bundle(3, {"name": "mixture", "components": 3}, labels=odd).save(str(folder / "mixture"))
    make_bundle(2, {"name": "bernoulli", "dropout": 0.3}).save(str(folder / "other"))
    (folder / "mixture" / "examples").mkdir()
    (folder / "mixture" / "examples" / "an example.jpg").write_bytes(photo(7))
    mixture, other = (BundleService(name, str(folder / name), Limits()) for name in ("mixture", "other"))
    members = with_dropout(other.generation.predictor.bundle, torch.device("cpu"), MEMBERS)
    other.generation = replace(other.generation, predictor=members)
    return mixture, other


@pytest.fixture(scope="session")
def site(services: Services) -> Iterator[Site]:
    with serving(services) as running:
        yield running


@pytest.fixture(scope="session")
def model(services: Services) -> rp.Model:
    return rp.load(services[0].folder)


@pytest.fixture(scope="session")
def jpeg_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upload") / "photo.jpg"
    path.write_bytes(photo(1, 48, 64))
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser. Until it ends, Playwright's event loop keeps asyncio.run from running in this thread."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page at an address; at the end it must have complained of nothing but of errors that the server answered."""
    contexts, complaints = [], []

    def opened(url: str, **settings: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **settings})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [one for one in complaints if not one.startswith(ANSWERED)] == []


@pytest.fixture
def page(open_page: Callable[..., Any], site: Site, jpeg_path: Path) -> Any:
    """The page with the answer for a photo."""
    site.bundles[0].asked.clear()
    page = open_page(site.url)
    page.set_input_files("#file", jpeg_path)
    page.wait_for_selector("#bars li")
    return page
