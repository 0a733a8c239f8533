"""The user's text files with one name per line."""

import codecs

from rayprob.errors import SourceError
from rayprob.files import storage

HEAD_BYTES = 2**20


def read_text(uri: str) -> str:
    """Return the content of a text file in UTF-8, or in UTF-16 with a byte order mark. Raises SourceError and StorageError."""
    return _decoded(uri, storage.read_bytes(uri), is_whole=True)


def read_head(uri: str) -> tuple[str, str]:
    """Return the first MiB of a text file, and its encoding. Raises SourceError and StorageError."""
    with storage.open_input(uri) as file:
        content = file.read(HEAD_BYTES)
    return _decoded(uri, content, is_whole=len(content) < HEAD_BYTES), encoding_of(content)


def encoding_of(content: bytes) -> str:
    """Return UTF-16 if content has its byte order mark, else UTF-8."""
    return "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _decoded(uri: str, content: bytes, *, is_whole: bool) -> str:
    try:
        return codecs.getincrementaldecoder(encoding_of(content))().decode(content, is_whole)
    except UnicodeDecodeError as error:
        raise SourceError(f"{uri} is not text in UTF-8: {error.reason} at byte {error.start:,}; save it as UTF-8") from error


def read_lines(uri: str) -> list[str]:
    """Return the stripped lines of a text file, without blank ones."""
    return [line.strip() for line in read_text(uri).splitlines() if line.strip()]
