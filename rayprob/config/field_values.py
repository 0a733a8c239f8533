"""Converts the value of a key by the type of its field: 1e4 is ten thousand for a count, and text for a name."""

import re
import types
import typing
from dataclasses import is_dataclass
from typing import Any

from pydantic import BaseModel

from rayprob.config.strict_yaml import WrittenFloat, WrittenInt, as_core, plain

LARGEST = 2**63 - 1


def fitted(value: Any, annotation: Any) -> Any:
    """Return a value from a file converted to the field's type; a value that does not fit is left to the type's validation.

    Booleans are not numbers, numbers are not booleans, and text is a number or boolean only by YAML's core schema.
    Raises ValueError if the type's own validation would silently convert such a value.
    """
    kinds = leaves(annotation)
    if Any in kinds or isinstance(value, dict):
        return plain(value) if not any(_is_model(kind) for kind in kinds) else value
    if isinstance(value, list | tuple):
        inner = [argument for kind in kinds for argument in items_of(kind)]
        return [fitted(item, typing.Union[*inner]) for item in value] if inner else plain(list(value))
    if isinstance(value, str):
        return _of_text(value, kinds)
    if isinstance(value, bool):
        return _of_boolean(value, kinds)
    return _of_number(value, kinds) if isinstance(value, int | float) else value


def leaves(annotation: Any) -> list[Any]:
    """Return the alternatives of a type: each a class, a generic such as tuple[int, int], Any, or a Literal."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return leaves(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [leaf for argument in typing.get_args(annotation) for leaf in leaves(argument)]
    return [annotation]


def items_of(kind: Any) -> list[Any]:
    """Return the types of the items of a list or tuple type, and an empty list for any other type."""
    if typing.get_origin(kind) not in (list, tuple):
        return []
    return [argument for argument in typing.get_args(kind) if argument is not Ellipsis]


def fields_of(kind: Any) -> dict[str, Any]:
    """Return the types of the fields of a model or dataclass, and an empty dict for any other type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.every_field() if hasattr(kind, "every_field") else kind.model_fields
        return {name: field.annotation for name, field in fields.items()}
    return typing.get_type_hints(kind) if isinstance(kind, type) and is_dataclass(kind) else {}


def expected(kinds: list[Any]) -> str:
    """Return the alternatives of a type as text: `an integer, auto or a list`."""
    words = [
        text for kind, text in ((int, "an integer"), (float, "a number"), (bool, "true"), (bool, "false")) if kind in kinds
    ]
    words += [str(value) for kind in kinds for value in _literals(kind)]
    words += ["text"] * (str in kinds) + ["a list"] * any(items_of(kind) for kind in kinds)
    words += ["null"] * (type(None) in kinds)
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _of_text(text: str, kinds: list[Any]) -> Any:
    if str in kinds or text in [value for kind in kinds for value in _literals(kind)]:
        return text
    value = as_core(text)
    if bool in kinds and isinstance(value, bool):
        return value
    if _takes_numbers(kinds) and isinstance(value, int | float) and not isinstance(value, bool):
        return _of_number(value, kinds)
    if _takes_numbers(kinds) or bool in kinds:
        raise ValueError(f"expected {expected(kinds)}{_remedy(text)}")
    return text


def _of_boolean(value: bool, kinds: list[Any]) -> Any:
    if bool not in kinds and (_takes_numbers(kinds) or str in kinds or any(map(_literals, kinds))):
        remedy = "; put text in quotes" if str in kinds else ""
        raise ValueError(f"expected {expected(kinds)}, not a boolean{remedy}")
    return value


def _of_number(value: int | float, kinds: list[Any]) -> Any:
    text = value.text if isinstance(value, WrittenInt | WrittenFloat) else None
    if _takes_numbers(kinds):
        number = plain(value)
        if float not in kinds and isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, int) and abs(number) > LARGEST:
            raise ValueError(f"expected {expected(kinds)} of at most 64 bits")
        return number
    if text is not None and (str in kinds or text in [known for kind in kinds for known in _literals(kind)]):
        return text
    if bool in kinds:
        raise ValueError(f"expected {expected(kinds)}, not a number")
    return plain(value)


def _remedy(text: str) -> str:
    """Return what to write instead of a number that only YAML 1.1 accepts, or ""."""
    if re.fullmatch("[-+]?0[0-9]+", text):
        octal = f", or {int(text, 8)} (0o{text.lstrip('+-0')}) for octal" if re.fullmatch("[-+]?[0-7]+", text) else ""
        return f"; a leading zero is ambiguous in YAML: write {int(text)}{octal}"
    if re.fullmatch(r"[-+]?[0-9][0-9_]*_[0-9_.]*", text):
        return f"; write it without underscores: {text.replace('_', '')}"
    return "; it must be finite" if re.fullmatch("[-+]?(inf|infinity|nan)", text.lower()) else ""


def _takes_numbers(kinds: list[Any]) -> bool:
    return int in kinds or float in kinds


def _literals(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


def _is_model(kind: Any) -> bool:
    if fields_of(kind):
        return True
    return typing.get_origin(kind) is dict and any(_is_model(leaf) for leaf in leaves(typing.get_args(kind)[1]))
