"""From values to a page. Names of labels, files, runs and parameters are untrusted: everything is escaped (Jinja2 autoescape).

The Content-Security-Policy allows no script, no network and no style except the page's own, by its hash.
"""

import base64
import hashlib
import time
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

NONE = "\N{EN DASH}"
TEMPLATES = Path(__file__).with_name("templates")


def fill(template: str, values: dict[str, Any]) -> str:
    """Return a page: its template filled with values, the time, the style sheet and the policy that allows it."""
    style = (TEMPLATES / "style.css").read_text()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": share, "number": number, "percent": percent}
    written_at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return environment.get_template(template).render(values, style=Markup(style), policy=policy(style), written_at=written_at)


def policy(style: str) -> str:
    """Return the Content-Security-Policy of a page with this style sheet."""
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{sha256}'; img-src data:; base-uri 'none'; form-action 'none'"


def share(value: float | None, digits: int = 3) -> str:
    """Return a fraction of one with fixed digits, so that columns align; a dash for None."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Return a probability as a percentage that is never rounded to 0 or 100 %."""
    if value is None:
        return NONE
    if 0 < value < 0.001:
        return "< 0.1\N{NO-BREAK SPACE}%"
    if 0.999 < value < 1:
        return "> 99.9\N{NO-BREAK SPACE}%"
    return f"{value * 100:.1f}\N{NO-BREAK SPACE}%"


def number(value: float | None) -> str:
    """Return a count with thousands separated; a dash for None."""
    return NONE if value is None else f"{value:,.0f}"
