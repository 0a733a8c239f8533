"""YAML -> frozen pydantic models: strict keys, dotted overrides, write back, fingerprint."""

import hashlib
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rayprob.choose import unknown
from rayprob.errors import SpecError


class Spec(BaseModel):
    """A frozen description: unknown keys are errors that name the nearest known key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file and apply overrides such as `optimizer.lr=0.1`. Raises SpecError naming file and key."""
        return cls.parse(override(read_yaml(path), overrides), where=str(path))

    @classmethod
    def read_text(cls, text: str, where: str) -> Self:
        """Read YAML text; `where` names its origin in errors."""
        return cls.parse(yaml.safe_load(text), where)

    @classmethod
    def parse(cls, value: dict[str, Any], where: str = "spec") -> Self:
        """Validate plain data. Raises SpecError that lists every fault with its dotted key."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            faults = "\n".join(f"  {_fault(cls, dict(detail))}" for detail in error.errors())
            raise SpecError(f"{where} has {error.error_count()} fault(s):\n{faults}") from None

    def to_yaml(self) -> str:
        """Return the whole spec, defaults included, as YAML that `read` reads back to an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any value."""
        return fingerprint(self.model_dump(mode="json"))


def fingerprint(value: Any) -> str:
    """Return 16 hex digits of plain data, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, laid over the file beside it that its key `extends` names, where it has one.

    Raises SpecError where a file is missing, broken or no mapping, and where files extend each other in a circle.
    """
    value: dict[str, Any] = {}
    for mapping in read_chain(path).values():
        value = merged(mapping, value)
    value.pop("extends", None)
    return value


def read_chain(path: str | Path) -> dict[Path, dict[str, Any]]:
    """Return the mapping in a YAML file, and those in the files that it extends, the nearest first. Raises SpecError."""
    last = Path(path)
    chain = {last: _read_mapping(path)}
    while (name := chain[last].get("extends")) is not None:
        base = last.parent / str(name)
        if base.resolve() in [file.resolve() for file in chain]:
            raise SpecError(f"{last} extends {name}, which extends it in turn; leave out one `extends`")
        chain[base] = _read_mapping(base)
        last = base
    return chain


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above` laid over it, mapping by mapping."""
    both = {key: merged(below[key], value) for key, value in above.items() if _are_mappings(below.get(key), value)}
    return {**below, **above, **both}


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _read_mapping(path: str | Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}; give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise SpecError(f"{path} holds {type(value).__name__}, not a mapping; write `key: value` lines")
    return value


def override(value: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `value` with `a.b=c` assignments applied; the right-hand side is YAML."""
    for assignment in overrides:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise SpecError(f"--set takes KEY=VALUE, such as optimizer.lr=0.1; found {assignment!r}")
        value = assigned(value, key.strip(), _yaml_scalar(text, assignment), where=f"--set {assignment}")
    return value


def assigned(value: dict[str, Any], key: str, to: Any, where: str) -> dict[str, Any]:
    """Return a copy of `value` whose dotted `key` is `to`; `where` says in an error who asked for it."""
    copy: dict[str, Any] = json.loads(json.dumps(value, default=str))
    *parents, last = key.split(".")
    node = copy
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise SpecError(f"{where}: {parent!r} is {child!r}, which has no keys below it")
        node = child
    node[last] = to
    return copy


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


def _yaml_scalar(text: str, assignment: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"--set {assignment}: the value is not YAML: {' '.join(str(error).split())}") from error
    return as_number(value)


def as_number(value: Any) -> Any:
    """Return the number that a string such as 1e-4 stands for: YAML 1.1 wants a dot in it; anything else as it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _fault(model: type[BaseModel], detail: dict[str, Any]) -> str:
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path) or "(whole file)"
    if detail["type"] == "extra_forbidden":
        parent = _model_at(model, path[:-1])
        allowed = list(parent.model_fields) if parent else []
        return unknown(path[-1], allowed, "key" if len(path) == 1 else f"key under {'.'.join(path[:-1])}:")
    if detail["type"] == "missing":
        return f"{key}: required, but missing"
    message = detail["msg"].removeprefix("Value error, ")
    found = "" if isinstance(detail["input"], dict) else f" (found {detail['input']!r})"
    return f"{key}: {message[0].lower()}{message[1:]}{found}"


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    parts = iter(path)
    for part in parts:
        field = model.model_fields.get(part)
        inner = _models_in(field.annotation) if field else []
        if not field or not inner:
            return None
        model = inner[0]
        if typing.get_origin(field.annotation) in (dict, tuple, list):
            next(parts, None)  # the key or place inside the collection
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, dict, tuple, list, typing.Annotated):
        return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
    return []
