"""How a location is written: a local path, a file: URI, or a URI of a remote store.

A local path is taken literally, except for a home folder at its start. In a URI, %20 is a space (RFC 3986, RFC 8089) and
other characters are literal, also `#` anywhere and `?` in file: URIs. In a remote URI, `?` starts the store's options, such as
`?endpoint_override=...`; a `?` in a key is written %3F.
"""

import os
import posixpath
import re
import unicodedata
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes

from rayprob.errors import StorageError

FILE = re.compile(r"file:/", re.IGNORECASE)
FILE_PARTS = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>.*)", re.IGNORECASE | re.DOTALL)
REMOTE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://[^/?]*", re.IGNORECASE)
STRAY_PERCENT = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)
OPTIONS = re.compile(r"[^=&]+=[^&]*(&[^=&]+=[^&]*)*")


def is_local(uri: str) -> bool:
    """Return whether `uri` is on this machine's file system."""
    return bool(FILE.match(uri)) or not REMOTE.match(uri)


def local_path(uri: str) -> Path:
    """Return the local path of `uri`, with `~` and `~user` at its start replaced by that home.

    `~name` is the file of that name if it exists or if there is no user `name`; write ./~name to be sure. Raises
    StorageError for a remote URI, and for a URI of another machine.
    """
    if not is_local(uri):
        raise StorageError(f"{uri} is remote; a local path is needed here")
    if "\0" in uri or (FILE.match(uri) and "%00" in uri):
        raise StorageError(f"{uri!r} contains a NUL character, which file names cannot contain; check the path")
    path = Path(_path_of_file_uri(uri) if FILE.match(uri) else _with_home(uri))
    # Path drops the "./" that keeps a name from being parsed as a home folder when it is parsed again.
    return path.absolute() if str(path).startswith("~") else path


def file_uri(path: str | Path) -> str:
    """Return the file: URI of an absolute local path; `local_path` is the inverse."""
    return "file://" + quote(os.fsencode(path))


def join(uri: str, *parts: str) -> str:
    """Return `uri` with the names `parts` below it. Raises StorageError for a part that leads outside of it."""
    for part in parts:
        if part.startswith("/") or ".." in part.split("/"):
            raise StorageError(f"{part!r} is not a name below {uri}; use a relative path without '..'")
    if FILE.match(uri):
        uri = str(local_path(uri))
    if is_local(uri):
        return posixpath.join(uri, *parts)
    place, mark, options = uri.partition("?")
    return posixpath.join(place, *map(_escaped, parts)) + mark + options


def below(folder: str, uri: str) -> str | None:
    """Return the name of `uri` below `folder`, for which `join` leads back to it; None where it lies elsewhere."""
    if is_local(folder) and is_local(uri):
        path = posixpath.relpath(absolute(uri), absolute(folder))
        return None if path.split("/")[0] in ("..", ".") else path
    (place, _, options), (path, _, options_of_uri) = folder.partition("?"), uri.partition("?")
    prefix = place.rstrip("/") + "/"
    return unquote(path.removeprefix(prefix)) if options == options_of_uri and path.startswith(prefix) else None


def beside(uri: str, ending: str) -> str:
    """Return the URI of the file or folder next to `uri` with `ending` appended to its name."""
    if is_local(uri):
        return uri.rstrip("/") + ending
    place, mark, options = uri.partition("?")
    return place.rstrip("/") + ending + mark + options


def split(uri: str) -> tuple[str, str]:
    """Return the URI of the folder that contains `uri`, with its store's options, and the last part of its path."""
    place, mark, options = (uri, "", "") if is_local(uri) else uri.partition("?")
    folder, name = posixpath.split(place.rstrip("/"))
    return folder + mark + options, name


def scheme_of(uri: str) -> str:
    """Return the scheme of a remote URI in lower case."""
    match = REMOTE.match(uri)
    assert match, uri
    return match["scheme"].lower()


def for_arrow(uri: str) -> str:
    """Return a remote URI for pyarrow, with every character of its path that pyarrow would reject or drop escaped.

    Raises StorageError for a `?` that does not start options, because pyarrow would drop it silently.
    """
    match = REMOTE.match(uri)
    assert match, uri
    path, mark, options = uri[match.end() :].partition("?")
    if mark and not OPTIONS.fullmatch(options):
        raise StorageError(
            f"{uri}: ? starts options such as ?endpoint_override=..., but {options!r} is not KEY=VALUE; "
            "write a ? that is part of the key as %3F"
        )
    return match[0] + quote(STRAY_PERCENT.sub("%25", path), safe="/%!$&'()*+,;=:@~") + mark + options.replace("#", "%23")


def canonical(uri: str) -> str:
    """Return the local path, or the escaped URI, for other libraries."""
    return str(local_path(uri)) if is_local(uri) else for_arrow(uri)


def absolute(uri: str) -> str:
    """Return `uri` independent of the working folder: an absolute local path, or the remote URI unchanged."""
    return str(local_path(uri).absolute()) if is_local(uri) else uri


def utf8_name(name: str) -> str:
    """Return a printable file name: bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if not is_utf8(name) else name


def caseless(name: str) -> str:
    """Return a key that is equal for names that are the same file on some disk: it ignores case and the encoding of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_utf8(name: str) -> bool:
    """Return whether a file name, as decoded by Python, is UTF-8 on disk."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(part: str) -> str:
    return part.replace("%", "%25").replace("#", "%23").replace("?", "%3F")


def _path_of_file_uri(uri: str) -> str:
    match = FILE_PARTS.fullmatch(uri)
    assert match, uri
    if (match["host"] or "localhost").lower() != "localhost":
        raise StorageError(
            f"{uri} names a file of the machine {match['host']!r}; a file: URI of this machine has three slashes: "
            "file:///absolute/path"
        )
    return os.fsdecode(unquote_to_bytes(os.fsencode(match["path"]))) or "/"


def _with_home(path: str) -> str:
    first = path.partition("/")[0]
    if not first.startswith("~") or (first != "~" and os.path.lexists(first)):
        return path
    return os.path.expanduser(first) + path[len(first) :]
