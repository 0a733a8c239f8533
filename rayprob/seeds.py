"""Seeds: one integer in the run file, and every other seed derived from it by name. Nothing else makes seeds."""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from rayprob.arrays import Ints

CHUNK = 2**16


def derive(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed for `parts` under `seed`: equal on every machine, unrelated for different parts.

    The parts are hashed with their types and lengths, so `derive(0, "a", 1)` and `derive(0, "a1")` differ.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        digest.update(_encoded(part))
    return int.from_bytes(digest.digest(), "little") >> 1


def derive_each(seed: int, *parts: int | str, last: Iterable[int | str]) -> Iterator[int]:
    """Yield `derive(seed, *parts, one)` for each `one` of `last`, in half the time."""
    for digest in _digests(seed, *parts, last=(f"{type(one).__name__}:{one}".encode() for one in last)):
        yield int.from_bytes(digest, "little") >> 1


def derive_all(seed: int, *parts: int | str, last: Ints) -> Ints:
    """Return `derive(seed, *parts, one)` for each integer of an array [N]."""
    found = np.empty(len(last), dtype=np.int64)
    for start in range(0, len(last), CHUNK):  # an integer of Python takes four times the memory of one in an array
        digests = _digests(seed, *parts, last=(b"int:%d" % one for one in last[start : start + CHUNK].tolist()))
        found[start : start + CHUNK] = np.frombuffer(b"".join(digests), "<u8") >> 1
    return found


def _digests(seed: int, *parts: int | str, last: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the digest of each last part, encoded but for its length, after the others."""
    common = hashlib.blake2b(b"".join(map(_encoded, (seed, *parts))), digest_size=8)
    for encoded in last:
        digest = common.copy()
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
        yield digest.digest()


def _encoded(part: int | str) -> bytes:
    encoded = f"{type(part).__name__}:{part}".encode()
    return len(encoded).to_bytes(4, "little") + encoded
