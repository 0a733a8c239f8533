"""What to do about a full disk, for every step of a build that writes."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from rayprob.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_full_explained() -> Iterator[None]:
    """Add what to do to a StorageError that a full disk caused."""
    try:
        yield
    except StorageError as error:
        if getattr(error.__cause__, "errno", None) not in FULL:
            raise
        raise StorageError(f"{error}; make room or choose another target, then the same command continues") from error
