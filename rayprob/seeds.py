"""Seeds: one integer in the run file, and every other seed derived from it by name. Nothing else makes seeds."""

import hashlib


def derive(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed for `parts` under `seed`: equal on every machine, unrelated for different parts.

    The parts are hashed with their types and lengths, so `derive(0, "a", 1)` and `derive(0, "a1")` differ.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        encoded = f"{type(part).__name__}:{part}".encode()
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return int.from_bytes(digest.digest(), "little") >> 1
