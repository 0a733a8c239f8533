"""The log of a job as one text, although it may come in several readings, each from its beginning."""

from collections.abc import Callable


class Log:
    """Writes every character once: a reading that begins anew is passed over as far as the last one came."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._written = self._read = 0

    def rewind(self) -> None:
        """Expect the log from its beginning."""
        self._read = 0

    def take(self, text: str) -> None:
        """Write what is new in the next piece of the log."""
        new = text[max(0, self._written - self._read) :]
        self._read += len(text)
        self._written = max(self._written, self._read)
        if new:
            self._write(new)
