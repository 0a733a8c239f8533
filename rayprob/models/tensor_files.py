"""Reads bytes that torch.save or safetensors wrote. Only tensors and plain values are ever unpickled.

Other files are recognised by their content, whatever their name.
"""

import io
import json
import posixpath
import re
import shlex
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch

from rayprob.errors import ModelError, one_line
from rayprob.text import first_of

SHOWN = 5
TEXT_SHOWN = 60
# Only the user runs it, on a machine where torch.load may import what the file's author used.
RESAVE = (
    'import torch; f = torch.load({source}, map_location="cpu", weights_only=False); '
    'm = f if isinstance(f, dict) else {{"model": f}}; '
    'm = {{k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in m.items()}}; '
    "torch.save({{k: v for k, v in m.items() if torch.is_tensor(v) "
    "or isinstance(v, dict) and v and all(map(torch.is_tensor, v.values()))}}, {target})"
)
RESAVE_SCRIPT = 'import torch; torch.save(torch.jit.load({source}, map_location="cpu").state_dict(), {target})'


def read_tensors(content: bytes, where: str) -> Any:
    """Return the contents of a .safetensors or torch.save file: tensors by name, or nested plain values with tensors in them.

    Raises ModelError that states what the file at `where` is instead, and what to do.
    """
    if not content:
        raise ModelError(f"{where} is empty (0 bytes); copy it again")
    if _is_safetensors(content):
        return _read_safetensors(content, where)
    for is_it, message in FOREIGN:
        if is_it(content):
            raise ModelError(f"{where} {message(content, where)}")
    return _read_pickle(content, where)


def header_of(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty for any other file."""
    if not _is_safetensors(content):
        return {}
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length]).get("__metadata__") or {})


def resave_command(where: str, recipe: str = RESAVE) -> str:
    """Return a shell command that writes the weights of a file next to it, for a user who trusts the file."""
    source = where if "://" not in where else posixpath.basename(where)
    target = posixpath.splitext(source)[0] + "-weights.pth"
    return "python -c " + shlex.quote(recipe.format(source=json.dumps(source), target=json.dumps(target)))


def _read_safetensors(content: bytes, where: str) -> dict[str, torch.Tensor]:
    try:
        return dict(safetensors.torch.load(content))
    except Exception as error:  # SafetensorError, and KeyError for a type that torch does not have
        raise ModelError(
            f"{where} cannot be read safely: its safetensors header or data is damaged or cut short "
            f"({_line(error)}); copy or download it again"
        ) from error


def _read_pickle(content: bytes, where: str) -> Any:
    damaged = _damaged_member(content) if content.startswith(b"PK") else None
    if damaged:
        raise ModelError(f"{where} cannot be read safely: {damaged}; copy or download it again")
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        classes = _classes_in(content, error)
        raise ModelError(_unread(where, classes, error)) from error


def _unread(where: str, classes: list[str], error: Exception) -> str:
    if not classes:
        return (
            f"{where} cannot be read safely ({_line(error)}): it is damaged, cut short or of another kind; "
            "use a .safetensors file, or a state_dict written by torch.save"
        )
    return (
        f"{where} cannot be read safely: besides tensors it has pickled objects "
        f"({first_of(classes, SHOWN)}), and unpickling them can run any code. If you trust the file, save only its "
        f"weights, then use the new file:\n  {resave_command(where)}"
    )


def _damaged_member(content: bytes) -> str | None:
    """Return what is wrong with a zip archive, whose checksums torch.load does not check."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if not any(member.CRC for member in archive.infolist()):
                return None  # torch.serialization.set_crc32_options(False) wrote it
            name = archive.testzip()
    except Exception as error:  # BadZipFile, zlib.error, struct.error, NotImplementedError, ...
        return f"its archive is damaged or cut short ({_line(error)})"
    return f"the checksum of its part {name} does not match" if name else None


def _classes_in(content: bytes, error: Exception) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content)))
    except Exception:  # it knows only the newer format
        return re.findall(r"(?:GLOBAL|Unsupported (?:global|class)\b[^\n]*?) ?([A-Za-z_]\w*(?:\.\w+)+)", str(error))[:1]


def _line(error: Exception) -> str:
    said, kind = one_line(error, 160), type(error).__name__
    return kind if said == kind else f"{kind}: {said}"


def _is_safetensors(content: bytes) -> bool:
    return content[8:9] == b"{" and not content.startswith(b"PK") and content[5:8] == b"\0\0\0"


def _starts(*beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda content: content.startswith(beginnings)


def _has_member(name: str) -> Callable[[bytes], bool]:
    """Return a test for a zip archive with a member whose name ends in `name`."""

    def has(content: bytes) -> bool:
        if not content.startswith(b"PK"):
            return False
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return any(member.endswith(name) for member in archive.namelist())
        except Exception:  # a damaged archive is not recognised
            return False

    return has


def _is_html(content: bytes) -> bool:
    return content[:512].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _is_text(content: bytes) -> bool:
    try:
        return content[:512].decode().isprintable() or content[:512].decode().replace("\n", "").isprintable()
    except UnicodeDecodeError:
        return False


def _is_flax(content: bytes) -> bool:
    # A msgpack map whose first key is a short text; 0x80, the empty map, is how a pickle starts.
    first, second = content[0], content[3] if content[0] == 0xDE else content[1] if len(content) > 1 else 0
    return (0x81 <= first <= 0x8F or first == 0xDE) and (0xA1 <= second <= 0xBF or second == 0xD9)


def _says(text: str) -> Callable[[bytes, str], str]:
    return lambda content, where: text


def _says_text(content: bytes, where: str) -> str:
    shown = " ".join(content[:TEXT_SHOWN].decode(errors="replace").split())
    return f"is a text file, not weights: {shown!r}; copy or download the weights again"


def _says_script(content: bytes, where: str) -> str:
    return (
        "is a TorchScript program, not a state_dict. If you trust the file, save only its weights, then use the new "
        f"file:\n  {resave_command(where, RESAVE_SCRIPT)}"
    )


UNPACK = "is a compressed or packed archive; unpack it and use the file in it"
CONVERT = "convert it to a PyTorch state_dict with its library, then save that as .safetensors"
FOREIGN: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, str], str]], ...] = (
    (
        _starts(b"version https://git-lfs"),
        _says("is a Git LFS pointer, not the file itself; run `git lfs pull` in the clone"),
    ),
    (_is_html, _says("is an HTML page, from a failed download or a login page; download the file itself again")),
    (_has_member("constants.pkl"), _says_script),
    (_has_member("serialized_exported_program.json"), _says("is a torch.export program, not a state_dict; save a state_dict")),
    (_has_member(".npy"), _says(f"is a NumPy archive; {CONVERT}")),
    (_has_member("model.weights.h5"), _says(f"is a Keras model; {CONVERT}")),
    (_starts(b"\x89HDF\r\n"), _says(f"is an HDF5 file, as Keras writes it; {CONVERT}")),
    (_starts(b"\x93NUMPY"), _says(f"is a NumPy array; {CONVERT}")),
    (_starts(b"GGUF"), _says(f"is a GGUF file; {CONVERT}")),
    (lambda content: content[4:8] == b"TFL3", _says(f"is a TensorFlow Lite model; {CONVERT}")),
    (lambda content: content.endswith(b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"), _says(f"is a TensorFlow checkpoint; {CONVERT}")),
    (_starts(b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf"), _says(UNPACK)),
    (lambda content: content[257:262] == b"ustar", _says(UNPACK)),
    (_is_flax, _says(f"is a Flax (msgpack) file; {CONVERT}")),
    (_is_text, _says_text),
)
