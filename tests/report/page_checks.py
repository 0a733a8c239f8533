"""What any page must keep to, read from its HTML with the standard library's parser."""

from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, ids, links, visible text, and tags left open."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.unbalanced.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All visible text, blanks collapsed."""
        return " ".join(" ".join(self.texts).split())

    def faults(self) -> list[str]:
        """Return what is wrong with links, ids, images, names of graphics, and anything that would load or run."""
        found = [f"unbalanced {tag}" for tag in self.unbalanced]
        ids = Counter(attributes["id"] for _, attributes in self.tags if "id" in attributes)
        found += [f"id {name} stands {times} times" for name, times in ids.items() if times > 1]
        for tag, attributes in self.tags:
            found += self._faults_of(tag, attributes, ids)
        return found

    def _faults_of(self, tag: str, attributes: dict[str, str], ids: Counter[str]) -> list[str]:
        found = []
        for key in ("href", "src"):
            target = attributes.get(key, "")
            if tag == "a" and target.endswith("/report.html") and ":" not in target:
                continue  # a link to another page, which loads nothing
            if target.startswith("#") and target[1:] not in ids:
                found.append(f"<{tag}> leads to {target}, which is not there")
            elif target and not target.startswith(("#", "data:")):
                found.append(f"<{tag}> loads {target}")
        for value in attributes.values():
            if "url(#" in value and value.split("url(#")[1].split(")")[0] not in ids:
                found.append(f"<{tag}> uses {value}, which is not there")
        if tag == "script" or any(key.startswith("on") or key == "style" for key in attributes):
            found.append(f"<{tag} {attributes}> is refused by the page's policy")
        if tag == "img" and not attributes.get("alt"):
            found.append(f"<img> without alt: {attributes.get('src', '')[:30]}")
        if tag == "svg" and attributes.get("aria-hidden") != "true" and not attributes.get("aria-label"):
            found.append("<svg> without a description")
        return found
