"""What the tests of the page read from it, and do on it."""

from typing import Any

import pytest

MINUS = "\N{MINUS SIGN}"


def row(page: Any, label: str) -> Any:
    return page.locator("#bars li").filter(has=page.locator("bdi").get_by_text(label, exact=True))


def state(page: Any, label: str, sign: str) -> None:
    """Click a label, and wait until the answer shows the sign; "" waits until nothing is stated about it."""
    row(page, label).locator(".state").click()
    if sign:
        row(page, label).locator(".sign").get_by_text(sign, exact=True).wait_for()
    else:
        gone(page, f"Take back {label}")


def gone(page: Any, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).wait_for(state="detached")


def marginals(page: Any) -> dict[str, float]:
    """Return the numbers next to the bars, from the first bar to the last."""
    read = "rows => rows.map((row) => [row.dataset.label, Number(row.querySelector('.value').title)])"
    return dict(page.locator("#bars li").evaluate_all(read))


def chosen(page: Any) -> list[str]:
    return [str(text) for text in page.locator("#chosen bdi").all_inner_texts()]


def mark(page: Any, label: str, kind: str) -> float:
    """Return where a mark is on the bar of a label, from 0 to 1; it must be visible."""
    found = row(page, label).locator(f".{kind}")
    assert found.is_visible()
    return float(found.evaluate("one => parseFloat(one.style.left)")) / 100


def ask(page: Any, query: str) -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")


def focused(page: Any) -> str:
    name = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
    return str(page.evaluate(name)).strip()


def focus_by_tab(page: Any, name: str) -> None:
    """Press Tab until an element whose name starts so has the focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if focused(page).startswith(name):
            return
    pytest.fail(f"{name} cannot be reached by Tab")
