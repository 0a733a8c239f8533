"""The page in use: by keyboard, on a phone, with other bundles, a token, and a server that forgets, refuses or changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rayprob as rp
from rayprob.labels import LabelSpace
from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits
from tests.loader.tiny import photo
from tests.predict.small import make_bundle
from tests.serve.page.conftest import MEMBERS, ODD, Services
from tests.serve.page.on_page import MINUS, ask, focus_by_tab, focused, marginals, mark, row, state
from tests.serve.page.site import Site, serving

Open = Callable[..., Any]
TOKEN = "a-token-of-twenty-letters"


def test_everything_can_be_done_by_keyboard(open_page: Open, site: Site, model: rp.Model) -> None:
    page = open_page(site.url)
    page.get_by_role("button", name="Example an example.jpg").wait_for()
    focus_by_tab(page, "Example an example.jpg")
    page.keyboard.press("Enter")
    page.wait_for_selector("#bars li")
    first, second = list(marginals(page))[:2]
    focus_by_tab(page, first)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.get_by_role("button", name=f"Take back {second}").wait_for()
    assert marginals(page) == pytest.approx(model.predict(photo(7), evidence={second: True}).marginals, abs=1e-6)
    assert second in focused(page)  # although its row has moved to the top
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    row(page, second).locator(".sign").get_by_text(MINUS).wait_for()
    focus_by_tab(page, "Ask")


def test_an_image_that_the_server_has_forgotten_is_sent_again(page: Any, site: Site, model: rp.Model, jpeg_path: Path) -> None:
    site.bundles[0].forget()
    state(page, "cat", "+")
    assert marginals(page) == pytest.approx(model.predict(jpeg_path, evidence={"cat": True}).marginals, abs=1e-6)
    assert site.bundles[0].asked == ["predict", "query", "predict"]


def test_the_latest_of_several_quick_clicks_wins(page: Any, site: Site, model: rp.Model, jpeg_path: Path) -> None:
    site.bundles[0].may_answer.clear()
    for label in ("cat", "dog", "fork"):
        row(page, label).locator(".state").click()
    site.bundles[0].may_answer.set()
    page.get_by_role("button", name="Take back fork").wait_for()
    expected = model.predict(jpeg_path, evidence={"cat": True, "dog": True, "fork": True})
    assert marginals(page) == pytest.approx(expected.marginals, abs=1e-6)


def test_a_query_that_is_asked_while_evidence_is_computed_takes_it_into_account(
    page: Any, site: Site, model: rp.Model, jpeg_path: Path
) -> None:
    site.bundles[0].may_answer.clear()
    row(page, "cat").locator(".state").click()
    ask(page, "P(dog)")
    site.bundles[0].may_answer.set()
    page.wait_for_selector("#answers strong")
    expected = model.predict(jpeg_path, evidence={"cat": True}).marginals["dog"]
    assert float(page.locator("#answers strong").get_attribute("title")) == pytest.approx(expected, abs=1e-6)
    assert marginals(page)["cat"] == pytest.approx(1)


def test_a_file_that_is_no_image_is_refused_and_the_answer_stays(page: Any, tmp_path: Path) -> None:
    before = marginals(page)
    (tmp_path / "notes.jpg").write_text("not an image")
    page.set_input_files("#file", tmp_path / "notes.jpg")
    page.locator("#fault").wait_for()
    assert "not a JPEG, PNG or WebP" in page.locator("#fault").inner_text()
    assert marginals(page) == before
    assert page.locator("#picture").evaluate("one => one.decode().then(() => one.naturalWidth)") == 64
    state(page, "cat", "+")
    assert not page.locator("#fault").is_visible()


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted(open_page: Open, site: Site, model: rp.Model, event: str) -> None:
    page = open_page(site.url)
    page.get_by_text("answers for").wait_for()
    send = """([event, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "photo.jpg", { type: "image/jpeg" }));
        const kind = event === "drop" ? DragEvent : ClipboardEvent;
        const carried = { dataTransfer: data, clipboardData: data };
        document.body.dispatchEvent(new kind(event, { ...carried, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(send, [event, list(photo(3))])
    page.wait_for_selector("#bars li")
    assert marginals(page) == pytest.approx(model.predict(photo(3)).marginals, abs=1e-6)


def test_another_bundle_answers_for_the_same_image(page: Any, services: Services, jpeg_path: Path) -> None:
    state(page, "cat", "+")
    page.select_option("#bundle", "other")
    page.get_by_text("other answers for 6 labels").wait_for()
    page.get_by_text(f"Over {MEMBERS} members").wait_for()
    expected = rp.load(services[1].folder, mc_dropout=MEMBERS).predict(jpeg_path, evidence={"cat": True})
    assert marginals(page) == pytest.approx(expected.marginals, abs=1e-6)
    assert page.locator(".track .ghost:visible").count() == 0  # its labels are independent: the evidence moves no other
    assert expected.uncertainty is not None
    dog = next(line for line in expected.uncertainty.labels if line.label == "dog")
    assert mark(page, "dog", "range") == pytest.approx(dog.lowest, abs=1e-4)


def test_a_token_is_asked_for_and_a_wrong_one_again(open_page: Open, services: Services) -> None:
    with serving(services, token=TOKEN) as guarded:
        page = open_page(guarded.url)
        page.fill("#token", "wrong")
        page.press("#token", "Enter")
        page.get_by_text("refused this token").wait_for()
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.get_by_role("button", name="Example an example.jpg").click()
        page.wait_for_selector("#bars li")
        page.context.close()


def test_a_bundle_that_changes_brings_its_labels(open_page: Open, tmp_path: Path, jpeg_path: Path) -> None:
    folder, fewer = str(tmp_path / "bundle"), LabelSpace(("cat", "dog", "owl"), (1, 2, 3))
    make_bundle(1, {"name": "bernoulli"}).save(folder)
    service = BundleService("changing", folder, Limits())
    with serving([service]) as changing:
        page = open_page(changing.url)
        page.set_input_files("#file", jpeg_path)
        page.wait_for_selector("#bars li")
        state(page, "person", "+")
        make_bundle(2, {"name": "bernoulli"}, labels=fewer).save(folder)
        assert service.reload()
        row(page, "cat").locator(".state").click()  # the evidence has person, which the changed bundle lacks
        row(page, "owl").wait_for()
        assert "unknown label 'person'" in page.locator("#fault").inner_text()
        assert marginals(page) == pytest.approx(rp.load(folder).predict(jpeg_path).marginals, abs=1e-6)
        page.context.close()


def test_many_labels_are_listed_a_few_at_a_time(open_page: Open, tmp_path: Path, jpeg_path: Path) -> None:
    names = tuple(f"label {place}" for place in range(300))
    make_bundle(1, {"name": "bernoulli"}, labels=LabelSpace(names, tuple(range(300)))).save(str(tmp_path / "bundle"))
    with serving([BundleService("large", str(tmp_path / "bundle"), Limits())]) as large:
        page = open_page(large.url)
        page.set_input_files("#file", jpeg_path)
        page.wait_for_selector("#bars li")
        assert page.locator("#bars li").count() == 25
        page.get_by_role("button", name="Show all 300 labels").click()
        assert set(marginals(page)) == set(names)
        page.fill("#filter", "label 277")
        state(page, "label 277", "+")
        assert marginals(page) == {"label 277": 1}
        page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_can_be_read(open_page: Open, site: Site, jpeg_path: Path, scheme: str) -> None:
    page = open_page(site.url, viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True, is_mobile=True)
    page.set_input_files("#file", jpeg_path)
    page.wait_for_selector("#bars li")
    for label in ODD[:3]:
        state(page, label, "+")
    ask(page, "P(dgo)")
    page.wait_for_selector("#query-fault mark")
    page.click("#map-draw")
    page.wait_for_selector("#map canvas")
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.get_by_text("Take a photo").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate(POOR_CONTRASTS) == []


POOR_CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const [red, green, blue] = parts(colour).map((part) => linear(part / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (one) => {
    const colour = getComputedStyle(one).backgroundColor;
    return parts(colour)[3] === 0 ? behind(one.parentElement) : colour;
  };
  const ratio = (one) => {
    const [high, low] = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const hasText = (one) => [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const read = [...document.querySelectorAll("body *")].filter((one) => hasText(one) && one.checkVisibility() && !one.disabled);
  return read.filter((one) => ratio(one) < 4.5).map((one) => `${one.tagName} ${one.textContent.slice(0, 30)} ${ratio(one)}`);
}"""
