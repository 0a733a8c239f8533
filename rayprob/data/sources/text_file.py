"""Text files of a user, line by line: lists of names, one per line."""

from rayprob.errors import SourceError
from rayprob.files import storage


def read_text(uri: str) -> str:
    """Return a text file in UTF-8, or in UTF-16 with its mark. Raises SourceError and StorageError."""
    content = storage.read_bytes(uri)
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise SourceError(f"{uri} is not text in UTF-8: {error.reason} at byte {error.start:,}; save it as UTF-8") from error


def read_lines(uri: str) -> list[str]:
    """Return the lines of a text file that are not blank, without blanks around them."""
    return [line.strip() for line in read_text(uri).splitlines() if line.strip()]
