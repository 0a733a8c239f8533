"""YAML -> frozen pydantic models: strict keys and values, dotted overrides, write back, fingerprint."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from rayprob import plugins
from rayprob.config import strict_yaml
from rayprob.config.faults import as_yaml, faults_of
from rayprob.config.field_values import fitted
from rayprob.config.kinds import FileKind, require_kind
from rayprob.errors import RayprobError, SpecError
from rayprob.registry import unknown
from rayprob.text import counted

T = TypeVar("T")
SET = "--set"
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


class Spec(BaseModel):
    """A frozen specification: unknown keys raise errors that name the nearest known key, and numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    # Keys newer than 0.1, written only where they differ from their default: files without them keep their fingerprint.
    later_keys: ClassVar[frozenset[str]] = frozenset()
    file_kind: ClassVar[FileKind | None] = None

    @field_validator("*", mode="before")
    @classmethod
    def _as_its_type_reads_it(cls, value: Any, info: ValidationInfo) -> Any:
        return fitted(value, cls.model_fields[str(info.field_name)].annotation)

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return self._without_unused_keys(handler(self))

    def _without_unused_keys(self, value: dict[str, Any]) -> dict[str, Any]:
        fields = type(self).model_fields
        unused = [key for key in self.later_keys if getattr(self, key) == fields[key].get_default(call_default_factory=True)]
        return {key: part for key, part in value.items() if key not in unused}

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file and apply overrides such as `optimizer.lr=0.1`. Raises SpecError naming file, key and override."""

        return with_overrides(lambda given: cls.parse(read_kind(path, given, cls.file_kind), where=str(path)), overrides)

    @classmethod
    def read_text(cls, text: str | bytes, where: str) -> Self:
        """Read YAML text; `where` names its origin in errors. Raises SpecError."""
        return cls.parse(strict_yaml.load(text, where), where)

    @classmethod
    def parse(cls, value: Any, where: str = "spec", under: str = "", options: Mapping[str, str] = NO_OPTIONS) -> Self:
        """Validate plain data. Raises SpecError that lists every fault with its dotted key, below the key `under`.

        `options` maps keys to the command-line options that set them, which errors then name instead of the keys.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            faults = faults_of(cls, error, under, options)
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise SpecError(f"{where} has {counted(len(faults), 'fault')}:\n{lines}")

    def to_yaml(self) -> str:
        """Return the whole spec, including defaults, as YAML that `read` parses to an equal spec."""
        return strict_yaml.dump(self.model_dump(mode="json"))

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any value."""
        return fingerprint(self.model_dump(mode="json"))


class PluginSpec(Spec):
    """A description that names plugins, whose parts its other keys may use. They are loaded when it is read."""

    later_keys: ClassVar[frozenset[str]] = frozenset({"plugins"})

    plugins: tuple[str, ...] = Field(default=(), description="modules whose parts join ours by name")

    @model_validator(mode="before")
    @classmethod
    def _plugins_first(cls, value: Any) -> Any:
        names = plugin_names(value)
        try:
            plugins.load(names)
        except SpecError as error:
            raise fault_at("plugins", str(error), names) from error
        return value


def fault_at(key: str, message: str, found: Any) -> ValidationError:
    """Return the fault of one key, for a validator of the whole to raise; `message` says what was found already."""
    kind = PydanticCustomError("said_whole", "{message}", {"message": message})
    return ValidationError.from_exception_data("spec", [InitErrorDetails(type=kind, loc=(key,), input=found)])


def fingerprint(value: Any) -> str:
    """Return 16 hex digits of plain data, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the mapping in a YAML file, merged over the file that its key `extends` names, with overrides applied.

    Plugins that it names are then looked for next to these files as well. Raises SpecError if a file is missing, invalid or not
    a mapping, if files extend each other in a circle, and if this process has loaded another plugin of the same name.
    """
    value: dict[str, Any] = {}
    chain = read_chain(path)
    for mapping in chain.values():
        value = merged(mapping, value)
    value.pop("extends", None)
    value = override(value, overrides)
    if names := plugin_names(value):
        plugins.look_beside(chain, names)
    return value


def plugin_names(value: Any) -> list[str]:
    """Return the plugins that plain data names; none where its key `plugins` is no list of texts, which `parse` refuses."""
    names = value.get("plugins") if isinstance(value, dict) else None
    return [*names] if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) else []


def read_chain(path: str | Path) -> dict[Path, dict[str, Any]]:
    """Return the mapping in a YAML file, and those in the files that it extends, the nearest first. Raises SpecError."""
    last = Path(path)
    chain = {last: _read_mapping(path)}
    while (name := chain[last].get("extends")) is not None:
        if not isinstance(name, str) or not name or "\0" in name:
            raise SpecError(f"{last}: extends must be the path of a YAML file, relative to this one (found {as_yaml(name)})")
        base = last.parent / name
        if os.path.realpath(base) in [os.path.realpath(file) for file in chain]:
            raise SpecError(f"{last} extends {name}, which extends it in turn; remove one `extends`")
        chain[base] = _read_mapping(base)
        last = base
    return chain


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above` merged over it, recursively."""
    both = {key: merged(below[key], value) for key, value in above.items() if _are_mappings(below.get(key), value)}
    return {**below, **above, **both}


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _read_mapping(path: str | Path) -> dict[str, Any]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}; give the path of a YAML file") from error
    value = strict_yaml.load(content, str(path))
    if value is None:
        raise SpecError(f"{path} is empty; write `key: value` lines")
    if not isinstance(value, dict):
        raise SpecError(f"{path} contains {type(value).__name__}, not a mapping; write `key: value` lines")
    return value


def read_kind(path: str | Path, overrides: Sequence[str], kind: FileKind | None) -> dict[str, Any]:
    """Return the mapping of `read_yaml`. Raises SpecError as it does, and for a file of another kind."""
    value = read_yaml(path, overrides)
    require_kind(value, kind, path)
    return value


def check_file(path: str | Path, overrides: Sequence[str], kind: FileKind) -> dict[str, Any]:
    """Return the mapping of `read_kind`, having refused unknown keys too: all that can be checked without loading parts."""

    def checked(overrides: Sequence[str]) -> dict[str, Any]:
        value = read_kind(path, overrides, kind)
        if faults := [f"  {unknown(key, kind.keys, 'key')}" for key in value if key not in kind.keys]:
            raise SpecError("\n".join([f"{path} has {counted(len(faults), 'fault')}:", *faults]))
        return value

    return with_overrides(checked, overrides)


def with_overrides(read: Callable[[Sequence[str]], T], overrides: Sequence[str]) -> T:
    """Return what `read` returns for overrides. An error that some of them cause names these: without them it is another."""
    try:
        return read(overrides)
    except RayprobError as error:
        if (message := str(error)).startswith(SET):
            raise
        rest = ((one, [other for other in overrides if other is not one]) for one in overrides)
        causes = [f"{SET} {one:.200}" for one, others in rest if _message(read, others) != message]
        raise type(error)(f"with {', '.join(causes)}, {message}" if causes else message) from error


def _message(read: Callable[[Sequence[str]], object], overrides: Sequence[str]) -> str:
    try:
        read(overrides)
    except RayprobError as error:
        return str(error)
    return ""


def override(value: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `value` with `a.b=c` assignments applied in order, so the last assignment of a key wins.

    The right-hand side is YAML, parsed as in a file: a number, true, null, [a, list], {a: mapping}, or else text.
    """
    for assignment in overrides:
        key, equals, text = assignment.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise SpecError(f"{SET} needs KEY=VALUE, such as optimizer.lr=0.1; found {assignment!r:.200}")
        where = f"{SET} {assignment:.200}"
        value = assigned(value, key.strip(), strict_yaml.load(text, f"{where}: the value", comments=False), where)
    return value


def assigned(value: dict[str, Any], key: str, to: Any, where: str) -> dict[str, Any]:
    """Return a copy of `value` whose dotted `key` is `to`; `where` names the origin of the assignment in errors."""
    parent, dot, rest = key.partition(".")
    if not dot:
        return {**value, key: to}
    below = value.get(parent)
    if below is None:
        below = {}
    if isinstance(below, list | tuple):
        raise SpecError(f"{where}: {parent!r} is a list; set all of it, such as {parent}=[...]")
    if not isinstance(below, dict):
        raise SpecError(f"{where}: {parent!r} is {as_yaml(below)}, which has no keys below it")
    return {**value, parent: assigned(below, rest, to, where)}


def differing_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return `key: old -> new` for every dotted key whose values differ, in sorted order."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        left, right = old.get(key), new.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differing_keys(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key}: {left!r} -> {right!r}")
    return lines
