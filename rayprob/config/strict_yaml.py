"""YAML as users expect it: the scalars of YAML 1.2's core schema, unique keys, and each fault in one line with its location.

true and false are the only booleans, and null and ~ the only nulls: yes, no, on, off, 2024-01-01 and 1:30 are text.
Numbers are decimal, 0o17 (octal) or 0x1F. A decimal with a leading zero (064) is text, too: YAML 1.1 parses it as octal 52 and
YAML 1.2 as 64, so a numeric key rejects it. A number remembers how it is written, for keys that expect text.
"""

import re
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from rayprob.errors import SpecError, one_line

DEEPEST = 100  # levels of lists and mappings
MOST_VALUES = 100_000  # each alias counts as all the values it expands to
MOST_DIGITS = 1000
CORE = "tag:yaml.org,2002:"
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|0|[1-9][0-9]*)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
WORDS = {word: value for name, value in (("true", True), ("false", False)) for word in (name, name.title(), name.upper())}
NOTHING = ("", "~", "null", "Null", "NULL")
TYPES: dict[str, tuple[type, ...]] = {"null": (type(None),), "bool": (bool,), "int": (int,), "float": (int, float)}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class WrittenInt(int):
    """An integer that remembers how it is written: 0x1F, +3."""

    text: str


class WrittenFloat(float):
    """A number that remembers how it is written: 1e4, 1.10."""

    text: str


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """Parses text to nodes; the functions below build values from them."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose as in yaml, unless the nesting is too deep for Python's stack."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"more than {DEEPEST} levels of nesting", problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def resolve(self, kind: type[Node], value: Any, implicit: tuple[bool, bool]) -> str:
        """Return the tag of a node without an explicit tag."""
        if kind is not ScalarNode:
            return f"{CORE}{'seq' if kind is SequenceNode else 'map'}"
        return f"{CORE}{'plain' if implicit[0] else 'str'}"


def load(content: bytes | str, where: str, *, comments: bool = True, number_keys: bool = False) -> Any:
    """Return the value of a YAML document; `where` names its origin in errors. Without `comments`, one is an error: on a
    command line it truncates a value. With `number_keys`, a key may be an integer, which becomes text: files of other
    programs have such keys. Raises SpecError, one line, with the place.
    """
    text = content.removeprefix("\ufeff") if isinstance(content, str) else decoded(content, where)
    try:
        root = _Loader(text).get_single_node()
        if not comments:
            _refuse_comment(root, text)
        if root is None:
            return None
        _measure(root, {}, frozenset())
        if number_keys:
            _read_numbers_as_text(root)
        return _value(root)
    except yaml.MarkedYAMLError as error:
        said = ": ".join(part for part in (error.context, error.problem) if part)
        fault = _at(error.problem_mark or error.context_mark) + one_line(said, 200)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        fault = f"line {line} contains the character {text[error.position]!a}, which YAML does not allow"
    except (ValueError, OverflowError) as error:
        fault = f"invalid escape in a quoted text ({one_line(error, 200)})"
    raise SpecError(f"{where} is not valid YAML: {fault}")


def decoded(content: bytes, where: str) -> str:
    """Return the text of a YAML file, in UTF-8 or in UTF-16 with a byte order mark. Raises SpecError that names the line."""
    encoding = "utf-16" if content.startswith(UTF_16) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{where} is not valid YAML: line {line} contains bytes that are not {encoding.upper().removesuffix('-SIG')}; "
            "save it as UTF-8"
        ) from None


def as_core(text: str) -> Any:
    """Return the value of unquoted text by YAML 1.2's core schema: null, a boolean, a number, or the text itself."""
    if text in NOTHING:
        return None
    if text in WORDS:
        return WORDS[text]
    if len(text) > MOST_DIGITS:
        return text
    if INTEGER.fullmatch(text):
        return _remembering(WrittenInt(int(text, 0)), text)
    if FLOAT.fullmatch(text):
        return _remembering(WrittenFloat(text), text)
    if NOT_FINITE.fullmatch(text):
        return _remembering(WrittenFloat(text.replace(".", "")), text)
    return text


def plain(value: Any) -> Any:
    """Return a value as plain Python numbers, without how they are written."""
    if isinstance(value, WrittenInt):
        return int(value)
    if isinstance(value, WrittenFloat):
        return float(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def dump(value: Any) -> str:
    """Return plain data as YAML with its keys in order, which both `load` and YAML 1.1 parsers read back to equal data."""
    return yaml.dump(plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would parse as something else."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> ScalarNode:
    # yaml folds single-quoted text at these line breaks, and parses them as a space.
    style = '"' if set(text) & set("\x85\u2028\u2029") else None
    return dumper.represent_scalar(f"{CORE}str", text, style)


_Dumper.add_representer(str, _represent_text)
for _pattern in (INTEGER, FLOAT):
    _Dumper.add_implicit_resolver(f"{CORE}core", re.compile(f"^(?:{_pattern.pattern})$"), list("-+.0123456789"))


def _remembering(number: WrittenInt | WrittenFloat, text: str) -> WrittenInt | WrittenFloat:
    number.text = text
    return number


def _refuse_comment(root: Node | None, text: str) -> None:
    if text[root.end_mark.index if root else 0 :].lstrip().startswith("#"):
        raise yaml.MarkedYAMLError(problem="a # after a space starts a comment; put a value that contains it in quotes")


def _measure(node: Node, known: dict[int, tuple[int, int]], above: frozenset[int]) -> tuple[int, int]:
    """Return the number of values and the depth of a node with its aliases expanded. Raises MarkedYAMLError."""
    if id(node) in above:
        raise _fault(node, "an anchor's value contains its own alias")
    if id(node) not in known:
        size = depth = 0
        for child in _children(node):
            child_size, child_depth = _measure(child, known, above | {id(node)})
            size, depth = size + child_size, max(depth, child_depth)
        if size >= MOST_VALUES or depth >= DEEPEST:
            raise _fault(node, f"expanding the aliases gives more than {MOST_VALUES:,} values or {DEEPEST} levels of nesting")
        known[id(node)] = size + 1, depth + 1
    return known[id(node)]


def _read_numbers_as_text(node: Node) -> None:
    """Tag the integers among the keys of all mappings as text."""
    for key, _ in node.value if isinstance(node, MappingNode) else ():
        if isinstance(key, ScalarNode) and INTEGER.fullmatch(key.value):
            key.tag = f"{CORE}str"
    for child in _children(node):
        _read_numbers_as_text(child)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _value(node: Node) -> Any:
    if isinstance(node, ScalarNode):
        return _scalar(node)
    kind = "seq" if isinstance(node, SequenceNode) else "map"
    if node.tag != f"{CORE}{kind}":
        raise _unknown_tag(node)
    return _mapping(node) if isinstance(node, MappingNode) else [_value(child) for child in node.value]


def _scalar(node: ScalarNode) -> Any:
    kind, text = node.tag.removeprefix(CORE), node.value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _fault(node, f"the text {text!a:.80} contains half of a surrogate pair, which is not a character")
    if kind == "str":
        return text
    if kind == "plain":
        return as_core(text)
    if kind not in TYPES:
        raise _unknown_tag(node)
    value = as_core(text)
    if isinstance(value, bool) != (kind == "bool") or not isinstance(value, TYPES[kind]):
        raise _fault(node, f"{text!r:.80} is not of the type !!{kind}")
    return value


def _mapping(node: MappingNode) -> dict[str, Any]:
    lines: dict[str, int] = {}
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = _key(key_node), key_node.start_mark.line + 1
        if key in lines:
            where = f"on lines {lines[key]} and {line}" if line != lines[key] else f"on line {line}"
            raise _fault(key_node, f"the key {key!r:.80} is given twice, {where}; keep one")
        lines[key] = line
        if key == "<<" and key_node.style is None:
            merged = _merged(value_node)
        else:
            own[key] = _value(value_node)
    return {**merged, **own}


def _key(node: Node) -> str:
    key = _value(node) if isinstance(node, ScalarNode) else None
    if isinstance(key, str):
        return key
    if not isinstance(node, ScalarNode):
        raise _fault(node, "a key must be text, not a list or mapping")
    raise _fault(node, f"the key {node.value!r:.80} is not text; put it in quotes (and write decimals with a point)")


def _merged(node: Node) -> dict[str, Any]:
    """Return the value of a merge key `<<`: a mapping, or several, of which the first that contains a key sets its value."""
    values = _value(node)
    mappings = values if isinstance(values, list) else [values]
    if not all(isinstance(mapping, dict) for mapping in mappings):
        raise _fault(node, "the merge key << needs a mapping or a list of mappings")
    return {key: value for mapping in reversed(mappings) for key, value in mapping.items()}


def _fault(node: Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _unknown_tag(node: Node) -> yaml.MarkedYAMLError:
    tag = node.tag.replace(CORE, "!!")
    return _fault(node, f"the tag {tag!r:.80} is not supported; remove it")


def _at(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
