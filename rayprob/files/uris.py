"""What a string from outside names: a local path, a file: URI, or a URI of a remote store.

A local path is taken letter by letter, but for a home at its start. In a URI, %20 stands for a blank (RFC 3986, RFC 8089) and
every other character for itself: `#` anywhere, and `?` in file: URIs. In a remote URI, `?` starts the store's options, such as
`?endpoint_override=...`; a `?` in a key is written %3F.
"""

import os
import posixpath
import re
import unicodedata
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from rayprob.errors import StorageError

FILE = re.compile(r"file:/", re.IGNORECASE)
FILE_PARTS = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>.*)", re.IGNORECASE | re.DOTALL)
REMOTE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://[^/?]*", re.IGNORECASE)
STRAY_PERCENT = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)
OPTIONS = re.compile(r"[^=&]+=[^&]*(&[^=&]+=[^&]*)*")


def is_local(uri: str) -> bool:
    """Return whether `uri` lies on this machine's file system."""
    return bool(FILE.match(uri)) or not REMOTE.match(uri)


def local_path(uri: str) -> Path:
    """Return the local path of `uri`, with `~` and `~user` at its start replaced by that home.

    `~name` is the file of that name where there is one, or where no user is called so; write ./~name to be sure. Raises
    StorageError for a remote URI, and for one of another machine.
    """
    if not is_local(uri):
        raise StorageError(f"{uri} is remote; a local path is needed here")
    if "\0" in uri or (FILE.match(uri) and "%00" in uri):
        raise StorageError(f"{uri!r} holds a NUL character, which no file name can have; check the path")
    path = Path(_path_of_file_uri(uri) if FILE.match(uri) else _with_home(uri))
    # Path drops the "./" that keeps a name from being read as a home, should it be read again.
    return path.absolute() if str(path).startswith("~") else path


def file_uri(path: str | Path) -> str:
    """Return the file: URI of an absolute local path, from which `local_path` gives that path."""
    return "file://" + quote(os.fsencode(path))


def join(uri: str, *parts: str) -> str:
    """Return `uri` with the names `parts` below it. Raises StorageError for a part that would leave it."""
    for part in parts:
        if part.startswith("/") or ".." in part.split("/"):
            raise StorageError(f"{part!r} is not a name below {uri}; use a relative path without '..'")
    if FILE.match(uri):
        uri = str(local_path(uri))
    if is_local(uri):
        return posixpath.join(uri, *parts)
    place, mark, options = uri.partition("?")
    return posixpath.join(place, *map(_escaped, parts)) + mark + options


def beside(uri: str, ending: str) -> str:
    """Return the URI of the file or folder that is named like that of `uri`, with `ending` after it."""
    if is_local(uri):
        return uri.rstrip("/") + ending
    place, mark, options = uri.partition("?")
    return place.rstrip("/") + ending + mark + options


def split(uri: str) -> tuple[str, str]:
    """Return the URI of the folder that `uri` lies in, with its store's options, and the last part of its path."""
    place, mark, options = (uri, "", "") if is_local(uri) else uri.partition("?")
    folder, name = posixpath.split(place.rstrip("/"))
    return folder + mark + options, name


def scheme_of(uri: str) -> str:
    """Return the scheme of a remote URI in lower case."""
    match = REMOTE.match(uri)
    assert match, uri
    return match["scheme"].lower()


def for_arrow(uri: str) -> str:
    """Return a remote URI as pyarrow reads it: with every character of its path that it would refuse or lose escaped.

    Raises StorageError for a `?` that starts no options: pyarrow would drop it in silence.
    """
    match = REMOTE.match(uri)
    assert match, uri
    path, mark, options = uri[match.end() :].partition("?")
    if mark and not OPTIONS.fullmatch(options):
        raise StorageError(
            f"{uri}: ? starts options such as ?endpoint_override=..., and {options!r} is not KEY=VALUE; "
            "write a ? that is part of the key as %3F"
        )
    return match[0] + quote(STRAY_PERCENT.sub("%25", path), safe="/%!$&'()*+,;=:@~") + mark + options.replace("#", "%23")


def canonical(uri: str) -> str:
    """Return the local path, or the escaped URI, by which other libraries find what `uri` names."""
    return str(local_path(uri)) if is_local(uri) else for_arrow(uri)


def absolute(uri: str) -> str:
    """Return `uri` as a process with another working folder finds it: a local path absolute, a remote URI as it is."""
    return str(local_path(uri).absolute()) if is_local(uri) else uri


def utf8_name(name: str) -> str:
    """Return a file name as it can be printed and stored: bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if not is_utf8(name) else name


def caseless(name: str) -> str:
    """Return what two names share that are one file on some disk: whatever the case, and how accents are written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_utf8(name: str) -> bool:
    """Return whether a file name, as Python gives it, is UTF-8 on the disk."""
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
