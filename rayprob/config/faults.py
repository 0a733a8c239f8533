"""pydantic's errors in the user's terms: the key as in the file, what is expected there, and what was found."""

import json
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from rayprob.config.field_values import fields_of, items_of, leaves
from rayprob.registry import unknown

MESSAGES = {
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected a mapping (key: value)",
    "string_type": "expected text",
    "finite_number": "expected a finite number",
    "missing": "required, but missing",
}
NOT_SHOWN = ("missing", "too_short", "said_whole")


def faults_of(
    model: type, error: ValidationError, under: str = "", options: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Return one line per invalid key, named by its option if it has one; `model` is below the key `under`.

    `model` is the model or dataclass that was validated.
    """
    details_of: dict[str, list[Any]] = {}
    for detail in error.errors():
        key, _ = _place(model, detail["loc"], under)
        key = options.get(key.partition("[")[0], key)
        details_of.setdefault(key, []).append(detail)
    # pydantic counts only the valid items of a list, and may then report that it is too short.
    for key in [key for key, details in details_of.items() if any(detail["type"] == "too_short" for detail in details)]:
        if any(other.startswith(f"{key}[") for other in details_of):
            del details_of[key]
    return [_line(model, key, details, under) for key, details in details_of.items()]


def as_yaml(value: Any) -> str:
    """Return a value as in a YAML file, shortened if it is long."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"{value!r:.80}"


def _line(model: type, key: str, details: list[Any], under: str) -> str:
    first = details[0]
    if first["type"] == "extra_forbidden":
        *parents, name = first["loc"]
        above, kinds = _place(model, parents, under)
        allowed = [key for kind in kinds for key in fields_of(kind)]
        return unknown(str(name), allowed, f"key under {above}:" if above else "key")
    # For a field with alternatives, pydantic reports why each of them does not fit.
    messages = " or ".join(dict.fromkeys(_message(model, detail) for detail in details))
    hidden = isinstance(first["input"], dict) or first["type"] in NOT_SHOWN
    return f"{key or '(whole file)'}: {messages}" + ("" if hidden else f" (found {as_yaml(first['input'])})")


def _message(model: type, detail: Any) -> str:
    if detail["type"] in ("model_type", "dataclass_type"):
        _, kinds = _place(model, detail["loc"], "")
        allowed = [key for kind in kinds for key in fields_of(kind)]
        return f"expected a mapping with keys of {', '.join(allowed)}"
    message = str(MESSAGES.get(detail["type"], detail["msg"].removeprefix("Value error, ")))
    return message[0].lower() + message[1:]


def _place(model: type, loc: Any, under: str) -> tuple[str, list[Any]]:
    """Return the key of a pydantic location, and the types of its value."""
    key, kinds = under, [model]
    for part in loc:
        step, kinds = _step(kinds, part)
        key += step
    return key.lstrip("."), kinds


def _step(kinds: list[Any], part: Any) -> tuple[str, list[Any]]:
    kinds = [kind for kind in kinds if kind is not type(None)]
    if len(kinds) > 1:  # between two keys pydantic names the alternative that it tried, such as `tuple[float, float]`
        tried = str(part).partition("[")[0]
        return "", [kind for kind in kinds if getattr(typing.get_origin(kind) or kind, "__name__", "") == tried]
    kind: Any = kinds[0] if kinds else None
    if fields := fields_of(kind):
        return f".{part}", leaves(fields[part]) if part in fields else []
    if typing.get_origin(kind) is dict:
        return f".{part}", leaves(typing.get_args(kind)[1])
    items = items_of(kind)
    return (f"[{part}]", leaves(items[0])) if items else ("", [])
