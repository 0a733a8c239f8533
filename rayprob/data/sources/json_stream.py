"""Reads the lists of a large JSON mapping entry by entry, with the standard library's parser in a window of the text."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from rayprob.data.sources.json_file import GZIP, Pairs
from rayprob.files import storage

WINDOW_BYTES = 2**22
BLANKS = re.compile(r"[ \t\n\r]*")
NEAR_END = 16  # a value this close to the end of the window may change when more text follows: 1., -Infinit


class NotStreamed(Exception):
    """The file is not a mapping in valid JSON; the parser of whole files reports what it is."""


def stream_json(uri: str, hook: Callable[[Pairs], Any], on_entry: Callable[[str, Any], None]) -> None:
    """Call `on_entry` with the key and each entry of the lists in a mapping, and skip values of other types.

    `hook` builds each mapping. Raises NotStreamed for any other content, gzipped or not, and for faulty JSON.
    """
    try:
        with _opened(uri) as file:
            _Text(file, hook).mapping(on_entry)
    except (OSError, EOFError, zlib.error, UnicodeError, ValueError, RecursionError) as error:
        raise NotStreamed(str(error)) from error


@contextmanager
def _opened(uri: str) -> Iterator[IO[bytes]]:
    with storage.open_input(uri) as file:
        is_packed = file.read(len(GZIP)) == GZIP
    with storage.open_input(uri) as file:
        yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_packed else file


class _Text:
    """A window of a file's text: from the current place to where it was read."""

    def __init__(self, file: IO[bytes], hook: Callable[[Pairs], Any]) -> None:
        self._file = file
        self._decode = json.JSONDecoder(object_pairs_hook=hook).raw_decode
        start = file.read(WINDOW_BYTES)
        self._decoder = codecs.getincrementaldecoder(json.detect_encoding(start))()
        self._text, self._at, self._is_whole = self._decoder.decode(start), 0, False

    def mapping(self, on_entry: Callable[[str, Any], None]) -> None:
        """Read the text, a mapping, up to its end."""
        keys: set[str] = set()
        for _ in self._members("{", "}"):
            key = self._value()
            self._take(":")
            if not isinstance(key, str) or key in keys:
                raise ValueError(f"{key!r:.80} cannot be a key here")
            keys.add(key)
            if self._sign() == "[":
                for _ in self._members("[", "]"):
                    on_entry(key, self._value())
            else:
                self._value()
        if self._sign():
            raise ValueError("more than one value")

    def _members(self, start: str, end: str) -> Iterator[None]:
        """Consume the punctuation around and between members; the caller reads a member at each yield."""
        self._take(start)
        if self._sign() == end:
            self._take(end)
            return
        while True:
            yield
            if self._sign() == end:
                self._take(end)
                return
            self._take(",")

    def _value(self) -> Any:
        self._sign()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.pos >= len(self._text) - NEAR_END or error.msg.startswith("Unterminated")
                if not is_cut or not self._read_on():
                    raise
                continue
            # A number at the end of the window may continue: 1, 1., 1.5e, 1.5e-3.
            if end < len(self._text) - NEAR_END or not self._read_on():
                self._at = end
                return value

    def _take(self, sign: str) -> None:
        if self._sign() != sign:
            raise ValueError(f"{sign} is missing")
        self._at += 1

    def _sign(self) -> str:
        """Return the next character that is not blank; "" at the end."""
        while True:
            match = BLANKS.match(self._text, self._at)
            assert match
            self._at = match.end()
            if self._at < len(self._text) or not self._read_on():
                return self._text[self._at : self._at + 1]

    def _read_on(self) -> bool:
        """Read more text, discard what was consumed, and return whether there was more."""
        if self._is_whole:
            return False
        content = self._file.read(WINDOW_BYTES)
        self._is_whole = not content
        self._text = self._text[self._at :] + self._decoder.decode(content, self._is_whole)
        self._at = 0
        return True
