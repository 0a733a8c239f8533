"""The files of the page, read once, and the headers that keep a browser from loading anything from elsewhere."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page."""

    content: bytes
    kind: str


def path_of(name: str) -> str:
    """Return the path at which a file of the page is served."""
    return "/" if name == INDEX else f"/{name}"


def page_files(folder: Path = FOLDER) -> dict[str, PageFile]:
    """Return the files in a folder by name; only those of known kinds, so that a request never names a path."""
    found = sorted(path for path in folder.glob("*") if path.suffix in KINDS and path.is_file())
    return {path.name: PageFile(path.read_bytes(), KINDS[path.suffix]) for path in found}
