"""What the page shows, in headless Chromium: real uploads, clicks and keys; numbers equal those of `Model.predict`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rayprob as rp
from tests.predict.small import NAMES
from tests.serve.page.conftest import ODD
from tests.serve.page.on_page import MINUS, ask, chosen, gone, marginals, mark, row, state
from tests.serve.page.site import COLUMNS, REST, ROWS, Site


def test_an_uploaded_image_shows_every_label_with_its_marginal(page: Any, model: rp.Model, jpeg_path: Path, site: Site) -> None:
    answer = model.predict(jpeg_path)
    assert marginals(page) == pytest.approx(answer.marginals, abs=1e-6)
    assert list(marginals(page)) == sorted(answer.marginals, key=answer.marginals.__getitem__, reverse=True)
    assert chosen(page) == list(answer.label_set)
    assert page.locator("#bars .chosen").count() == len(answer.label_set)
    assert row(page, "dog").locator(".value").inner_text().startswith(f"{100 * answer.marginals['dog']:.1f}\xa0%")
    best = answer.top_sets(1)[0]
    assert page.locator("#sets li").first.locator("bdi").all_inner_texts() == list(best.labels)
    assert f"{answer.entropy:.2f} nats" in page.locator("#uncertainty").inner_text()
    assert page.locator("#picture").evaluate("one => [one.naturalWidth, one.naturalHeight]") == [64, 48]
    assert site.bundles[0].asked == ["predict"]


def test_examples_of_questions_have_labels_of_the_bundle(page: Any) -> None:
    shown = page.locator("[data-of-labels]").all_text_contents()
    assert "P(person | cat, !dog)" in shown
    assert "P(count{person, cat} == 1)" in shown
    assert "P(exactly {person, cat})" in shown


def test_odd_names_of_labels_are_text(page: Any) -> None:
    for name in ODD:
        assert row(page, name).locator(".name").inner_text() == name
    assert page.locator("#bars b, #chosen b, #sets b").count() == 0


def test_labels_are_found_and_ordered_by_name(page: Any) -> None:
    page.check("[name=order][value=name]")
    assert [label for label in marginals(page) if label in NAMES] == sorted(NAMES)
    page.fill("#filter", "TABLE")
    assert list(marginals(page)) == ["dining table"]
    page.fill("#filter", "no such label")
    assert page.locator("#bars-none").is_visible()


def test_clicks_state_a_label_present_then_absent_then_unknown(page: Any, model: rp.Model, jpeg_path: Path, site: Site) -> None:
    before = model.predict(jpeg_path)
    for evidence, sign in (({"dining table": True}, "+"), ({"dining table": False}, MINUS), ({}, "")):
        state(page, "dining table", sign)
        after = before.given(evidence)
        assert marginals(page) == pytest.approx(after.marginals, abs=1e-6)
        assert chosen(page) == list(after.label_set)
        if evidence:
            changes = {label: abs(after.marginals[label] - before.marginals[label]) for label in NAMES if label not in evidence}
            moved = max(changes, key=changes.__getitem__)
            assert mark(page, moved, "ghost") == pytest.approx(before.marginals[moved], abs=1e-4)
    assert page.locator(".track .ghost:visible").count() == 0
    assert site.bundles[0].asked == ["predict", "query", "query", "query"]


def test_odd_labels_are_stated_and_taken_back(page: Any, model: rp.Model, jpeg_path: Path) -> None:
    for name in ODD:
        state(page, name, "+")
    assert page.locator("#evidence bdi").all_inner_texts() == [f"{name}: present" for name in ODD]
    assert marginals(page) == pytest.approx(model.predict(jpeg_path, evidence=dict.fromkeys(ODD, True)).marginals, abs=1e-6)
    page.get_by_role("button", name=f"Take back {ODD[0]}").click()
    gone(page, f"Take back {ODD[0]}")
    page.click("#clear")
    page.locator("#evidence-part").wait_for(state="hidden")
    assert marginals(page) == pytest.approx(model.predict(jpeg_path).marginals, abs=1e-6)


def test_evidence_explains_what_it_changed(page: Any, model: rp.Model, jpeg_path: Path) -> None:
    state(page, "dining table", "+")
    why = model.predict(jpeg_path, evidence={"dining table": True}).to_dict()["why"]
    assert isinstance(why, list)
    assert why
    assert page.locator("#reasons h4 bdi").all_inner_texts() == [one["label"] for one in why]
    assert page.locator("#reasons table").first.locator("tbody tr").count() == len(why[0]["scenes"])
    assert "dining table present" in page.locator("#reasons ul").first.inner_text()


def test_a_query_is_answered_and_follows_the_evidence(page: Any, model: rp.Model, jpeg_path: Path) -> None:
    answer, query = model.predict(jpeg_path), 'P("a | b" | dog, !cat)'
    ask(page, query)
    shown = page.locator("#answers strong")
    assert float(shown.get_attribute("title")) == pytest.approx(answer.prob(query), abs=1e-6)
    state(page, "fork", "+")
    assert float(shown.get_attribute("title")) == pytest.approx(answer.given({"fork": True}).prob(query), abs=1e-6)
    state(page, "cat", "+")  # contradicts the query's own condition; the rest of the page is answered all the same
    assert "cat" in page.locator("#answers .unanswered .small").inner_text()
    assert marginals(page)["cat"] == 1
    page.get_by_role("button", name=f"Remove {query}").click()
    assert page.locator("#answers li").count() == 0


def test_an_error_in_a_query_is_shown_under_its_place(page: Any) -> None:
    ask(page, 'P("🍕 pizza" & dgo)')
    assert page.locator("#query-fault mark").inner_text() == "dgo"
    assert "nearest: dog" in page.locator("#query-fault .fault").inner_text()
    assert page.locator("#query").evaluate("one => one.value.slice(one.selectionStart, one.selectionEnd)") == "dgo"
    assert page.locator("#query").get_attribute("aria-invalid") == "true"
    page.fill("#query", "P(dog)")
    assert page.locator("#query-fault").inner_text() == ""


def test_names_are_completed_by_the_keyboard(page: Any) -> None:
    query = page.locator("#query")
    query.press_sequentially("din")
    assert page.locator("[role=option]").all_inner_texts() == ["dining table"]
    assert query.get_attribute("aria-expanded") == "true"
    query.press("ArrowDown")
    assert query.get_attribute("aria-activedescendant") == page.locator("[aria-selected=true]").get_attribute("id")
    query.press("Enter")
    assert query.input_value() == "P(dining table)"
    query.press_sequentially(" & quot")
    query.press("ArrowUp")
    query.press("Enter")
    assert query.input_value() == 'P(dining table & "a ""quoted"" name")'
    query.press("Enter")
    assert page.locator("#answers code").inner_text() == 'P(dining table & "a ""quoted"" name")'
    query.press_sequentially("P(do")
    assert page.locator("[role=option]:visible").count() > 0
    query.press("Escape")
    assert page.locator("[role=option]:visible").count() == 0


def test_a_rule_is_chosen_with_its_guarantee_and_thresholds_are_marked(page: Any, model: rp.Model, jpeg_path: Path) -> None:
    assert mark(page, "cat", "threshold") == pytest.approx(np.linspace(0.3, 0.6, len(model.labels))[1], abs=1e-6)
    page.select_option("#rule", "recall@0.1")
    page.get_by_text("Guarantee:").wait_for()
    assert page.locator("#guarantee").inner_text() == f"Guarantee: this rule {model.guarantees['recall@0.1']}."
    assert chosen(page) == list(model.predict(jpeg_path, rule="recall@0.1").label_set)
    page.select_option("#rule", "a threshold")
    page.fill("#threshold", "0.25")
    page.press("#threshold", "Enter")
    page.locator("#guarantee").get_by_text("0.25").wait_for()
    assert chosen(page) == list(model.predict(jpeg_path, rule="0.25").label_set)
    assert mark(page, "cat", "threshold") == 0.25


def test_a_map_is_painted_over_the_image_and_adds_up(page: Any, site: Site) -> None:
    row(page, "fork").get_by_role("button", name="Why fork").click()
    page.wait_for_selector("#map canvas")
    places = 2 - 0.01 * (ROWS * COLUMNS - 1)
    text = page.locator("#map").inner_text()
    assert f"logit +{places + REST:.2f} = +{places:.2f} from all places together, and {MINUS}{-REST:.2f}" in text
    assert f"at the bottom right: row {ROWS} of {ROWS}, column {COLUMNS} of {COLUMNS}" in text
    page.uncheck("#map input")
    read = "one => [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data]"
    pixels = page.locator("#map canvas").evaluate(read)
    red, _, blue, alpha = pixels[-4:]
    assert red > blue
    assert page.locator("#map .overlay img").bounding_box()["width"] == 4 * 64  # a small picture is enlarged
    assert alpha > 200
    assert pixels[3] < 10
    page.click("#map-draw")  # the map is kept: it is not asked for again
    page.wait_for_selector("#map canvas")
    assert site.bundles[0].asked == ["predict", "query"]
