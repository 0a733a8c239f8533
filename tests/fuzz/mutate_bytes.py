"""Files as bytes and as text: flipped, cut, repeated, with an odd word in them."""

import re
from collections.abc import Callable

from hypothesis import strategies as st

from tests.fuzz.odd import ODD_SOURCE

WORD = re.compile(rb"[\w.+-]+")
Draw = Callable[[st.SearchStrategy[int]], int]


@st.composite
def damaged(draw: Draw, content: bytes) -> bytes:
    """Return some content with one to three faults of a disk or a transfer, anywhere."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            content = content[:place]
        elif kind == 1:
            content = content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1 :]
        elif kind == 2:
            length = draw(st.integers(1, 64))
            content = content[:place] + content[place + length :]
        elif kind == 3:
            content = content[:place] + bytes(draw(st.sampled_from([1, 8, 512]))) + content[place:]
        else:
            content = content[:place] + b"\xff" * draw(st.integers(1, 8)) + content[place + 8 :]
    return content


@st.composite
def miswritten(draw: Draw, content: bytes) -> bytes:
    """Return a text with one to three slips of a person who edits it."""
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 4))
        lines = content.split(b"\n")
        line = draw(st.integers(0, len(lines) - 1))
        if kind == 0:
            lines.insert(line, lines[draw(st.integers(0, len(lines) - 1))])
            content = b"\n".join(lines)
        elif kind == 1:
            content = b"\n".join(lines[:line] + lines[line + 1 :])
        elif kind == 2:
            lines[line] = b" " * draw(st.integers(1, 4)) + lines[line]
            content = b"\n".join(lines)
        else:
            words = list(WORD.finditer(content)) or [re.match(b"", content)]
            word = words[draw(st.integers(0, len(words) - 1))]
            assert word is not None
            odd = ODD_SOURCE[draw(st.integers(0, len(ODD_SOURCE) - 1))].encode()
            content = content[: word.start()] + odd + content[word.end() :]
    return content


def text_mutants(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a text edited badly, damaged as bytes, or both."""
    return st.one_of(miswritten(content), damaged(content), miswritten(content).flatmap(damaged))
