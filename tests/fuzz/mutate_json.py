"""JSON by its structure: any node replaced, removed, renamed or repeated."""

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.odd import texts, values

Path = tuple[str | int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]


def paths_of(document: Any, above: Path = ()) -> list[Path]:
    """Return the way to every node below the document; of a long list, to its first nodes and its last."""
    if isinstance(document, dict):
        keys: list[str | int] = list(document)
    elif isinstance(document, list):
        keys = [*range(min(3, len(document))), *([len(document) - 1] if len(document) > 3 else [])]
    else:
        return []
    return [path for key in keys for path in [(*above, key), *paths_of(document[key], (*above, key))]]


@st.composite
def changed(draw: Draw, document: Any) -> Any:
    """Return a document in which one to three nodes are other ones."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        paths = paths_of(document)
        if not paths:
            return draw(values)
        *above, key = draw(st.sampled_from(paths))
        parent = document
        for step in above:
            parent = parent[step]
        _change(draw, parent, key)
    return document


def _change(draw: Draw, parent: Any, key: Any) -> None:
    kind = draw(st.sampled_from(["replace"] * 6 + ["remove", "remove", "rename", "repeat", "swap"]))
    if kind == "remove":
        del parent[key]
    elif kind == "rename" and isinstance(parent, dict):
        parent[draw(texts)] = parent.pop(key)
    elif kind == "repeat" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif kind == "swap":
        other = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else list(range(len(parent)))))
        parent[key], parent[other] = parent[other], parent[key]
    else:
        parent[key] = draw(values)


def json_mutants(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a JSON file in which nodes are other ones, or one that is no JSON document of this kind at all."""
    document = json.loads(content)
    return st.one_of(changed(document), changed(document), changed(document), values).map(encoded)


def line_mutants(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a file of JSON lines in which nodes, or whole lines, are other ones."""
    rows = [json.loads(line) for line in content.split(b"\n")[:-1]]
    return changed(rows).map(lambda rows: b"\n".join([*map(encoded, rows if isinstance(rows, list) else [rows]), b""]))


def encoded(document: Any) -> bytes:
    """Return a document as JSON; numbers that are none are written as Python's json writes them."""
    return json.dumps(document).encode()
