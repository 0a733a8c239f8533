"""A Sphinx directive, `{spec} rayprob.runs.spec.Run`: a table of all keys of a spec and of the specs inside it.

Types, defaults and limits come from pydantic; the meaning of a key is the string below its line in the source.
"""

import ast
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module

import annotated_types
from docutils import nodes
from docutils.statemachine import StringList
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from rayprob.config.parts import PartSpec
from rayprob.config.spec import Spec

LIMITS = (
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Ge, "ge", "≥"),
    (annotated_types.Lt, "lt", "<"),
    (annotated_types.Le, "le", "≤"),
)


class SpecTable(SphinxDirective):
    """The keys of one spec, with dotted names, down to the last part."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        spec = getattr(import_module(module), name)
        self.env.note_dependency(inspect.getfile(spec))
        text = StringList([line for part in sections(spec) for line in part], source=self.arguments[0])
        holder = nodes.section()
        holder.document = self.state.document
        self.state.nested_parse(text, 0, holder)
        return holder.children


def sections(spec: type[Spec], under: str = "") -> Iterator[list[str]]:
    """Yield the Markdown of a spec: its own sentence, a table of its keys, and the same for every spec among them."""
    yield [f"**`{under[:-1]}`**. {inspect.getdoc(spec)}", ""] if under else []
    yield ["| key | type | default | meaning |", "|---|---|---|---|"]
    yield [*(row(spec, under, name) for name in spec.model_fields), *options(spec, under), ""]
    for name, field in spec.model_fields.items():
        for inner in inner_specs(field.annotation):
            yield from sections(inner, f"{under}{name}.")


def options(spec: type[Spec], under: str) -> Iterator[str]:
    """Yield the keys that only some parts of a kind take, such as those of one head, with the names of these parts."""
    if not (issubclass(spec, PartSpec) and "table" in vars(spec)):
        return
    parts = {name: spec.of(name) for name in spec.table()}
    for key in dict.fromkeys(key for part in parts.values() for key in part.options() if key not in spec.model_fields):
        takers = [name for name, part in parts.items() if key in part.model_fields]
        yield row(parts[takers[0]], under, key, f" For {', '.join(takers)}." if len(takers) < len(parts) else "")


def row(spec: type[Spec], under: str, name: str, also: str = "") -> str:
    """Return one line of the table."""
    field = spec.model_fields[name]
    cells = (f"`{under}{name}`", type_name(field), default_of(field), " ".join(meanings(spec)[name].split()) + also)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def meanings(spec: type[Spec]) -> Mapping[str, str]:
    """Return what each key of a spec means: the string below its line, or its description."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(spec)))
    (definition,) = tree.body
    assert isinstance(definition, ast.ClassDef)
    found = {name: field.description or "" for name, field in spec.model_fields.items()}
    for line, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and is_string(below):
            found[line.target.id] = below.value.value  # type: ignore[attr-defined]
    for base in spec.__mro__[1:]:
        if issubclass(base, Spec) and base is not Spec:
            found |= {name: text for name, text in meanings(base).items() if not found.get(name)}
    return found


def is_string(line: ast.stmt) -> bool:
    """Return whether a line is a bare string."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def inner_specs(annotation: object) -> Iterator[type[Spec]]:
    """Yield the specs inside a type."""
    if inspect.isclass(annotation) and issubclass(annotation, Spec):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from inner_specs(argument)


def type_name(field: FieldInfo) -> str:
    """Return a type in readable form, with its limits."""
    marks = [(mark, key, sign) for mark in field.metadata for kind, key, sign in LIMITS if isinstance(mark, kind)]
    limits = [f"{sign} {getattr(mark, key):g}" for mark, key, sign in marks]
    return f"{written(field.annotation)}{', ' * bool(limits)}{', '.join(limits)}"


def written(annotation: object) -> str:
    """Return an annotation in YAML's terms."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return written(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(written(part) for part in arguments)
    if origin in (list, tuple):
        is_of_any_length = origin is list or Ellipsis in arguments
        return f"list of {written(arguments[0])}" if is_of_any_length else f"[{', '.join(map(written, arguments))}]"
    if origin is dict:
        return f"mapping to {written(arguments[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, Spec):
        return "part"
    names = {str: "text", bool: "boolean", int: "integer", float: "number", type(None): "null", typing.Any: "any"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))  # type: ignore[call-overload]


def default_of(field: FieldInfo) -> str:
    """Return a default as YAML; `required` without one."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Spec):
        return "see below"
    written_value = {None: "null", True: "true", False: "false"}.get(value, value) if isinstance(value, bool | None) else value
    if isinstance(written_value, tuple | list):
        shown = ", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in written_value)
        return f"`[{shown}]`" if len(shown) <= 60 else f"{len(written_value)} values"
    return f"`{written_value}`" if written_value != "" else "empty"


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known to Sphinx."""
    app.add_directive("spec", SpecTable)
    return {"parallel_read_safe": True}
