"""The token of a server: where it is read from, and how a request's is compared with it."""

import hmac
import os
import stat
from collections.abc import Mapping

from rayprob.errors import ServeError
from rayprob.files import storage

SCHEME = "bearer"
LEAST_LETTERS = 16
MAKE_ONE = "python -c 'import secrets; print(secrets.token_urlsafe())'"


def read_token(token_file: str | None, token_variable: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token of a file or variable; None if both are None. Raises ServeError for one that does not protect."""
    if token_file is not None:
        return _usable(_content(token_file), f"the token file {token_file}")
    if token_variable is not None:
        if token_variable not in environment:
            raise ServeError(f"the environment variable {token_variable} is not set; it must contain the token")
        return _usable(environment[token_variable], f"the environment variable {token_variable}")
    return None


def is_allowed(header: str | None, token: str | None) -> bool:
    """Return whether a header `Authorization: Bearer TOKEN` has the token, in a time independent of where they differ."""
    if token is None:
        return True
    scheme, _, given = (header or "").partition(" ")
    same = hmac.compare_digest(given.strip().encode(), token.encode())
    return same and scheme.lower() == SCHEME


def _content(path: str) -> str:
    local = storage.local_path(path)
    try:
        mode = stat.S_IMODE(local.stat().st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ServeError(f"other users can read the token file {path} (mode {mode:o}); run chmod 600 {path}")
        return local.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        made = f"(umask 077; {MAKE_ONE} > {path})"
        raise ServeError(f"cannot read the token file {path}: {why}; to make one: {made}") from error


def _usable(text: str, what: str) -> str:
    token = text.strip()
    if len(token) < LEAST_LETTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise ServeError(
            f"{what} must contain one token of at least {LEAST_LETTERS} ASCII letters, without spaces; to make one: {MAKE_ONE}"
        )
    return token
