"""The log of a job as one text, although it may be read several times, each time from its beginning."""

from collections.abc import Callable


class Log:
    """Writes every character once: a reading that starts over is skipped up to where the last one ended."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._written = self._read = 0

    def rewind(self) -> None:
        """Expect the log from its beginning again."""
        self._read = 0

    def take(self, text: str) -> None:
        """Write what is new in the next piece of the log."""
        new = text[max(0, self._written - self._read) :]
        self._read += len(text)
        self._written = max(self._written, self._read)
        if new:
            self._write(new)
