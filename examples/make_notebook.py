"""Convert a script whose cells begin with `# %%` to a notebook: run the cells in this process and keep their outputs.

    python make_notebook.py quickstart.py quickstart.ipynb

Jupyter is not needed. As there, the value of a cell's last line is its output, as text and, if the value supports it, as HTML.
What a script prints in the last line of a cell, `print(answer)`, is in the notebook that value, `answer`.
"""

import ast
import contextlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
LAST_PRINT = re.compile(r"^print\(([^\n]*)\)\Z", re.M)
FORMAT = {"nbformat": 4, "nbformat_minor": 5}
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def make_notebook(script: str, on_cell: Callable[[int], None] = lambda number: None) -> Json:
    """Return the notebook of a script, executed in the working folder; an exception in a cell stops it."""
    names: Json = {"__name__": "__main__"}
    cells: list[Json] = []
    for number, (is_text, source) in enumerate(cells_of(script)):
        on_cell(number)
        source = source if is_text else LAST_PRINT.sub(r"\1", source)
        cell: Json = {"id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        if is_text:
            cells.append({"cell_type": "markdown", **cell})
            continue
        count = sum(known["cell_type"] == "code" for known in cells) + 1
        cells.append({"cell_type": "code", "execution_count": count, **cell, "outputs": outputs_of(source, names, count)})
    return {"cells": cells, "metadata": KERNEL, **FORMAT}


def cells_of(script: str) -> list[tuple[bool, str]]:
    """Return for each cell whether it is text, and its source; text before the first cell is omitted."""
    parts = re.split(r"^# %%( \[markdown\])?\n", script, flags=re.MULTILINE)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [(True, re.sub(r"^# ?", "", text.strip(), flags=re.M)) if mark else (False, text.strip()) for mark, text in pairs]


def outputs_of(source: str, names: Json, count: int) -> list[Json]:
    """Run one cell and return its outputs: what it printed, and the value of its last line."""
    tree, printed, value = ast.parse(source), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    streams = [{"output_type": "stream", "name": "stdout", "text": lines_of(printed.getvalue())}] if printed.getvalue() else []
    result = {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": shown(value)}
    return [*streams, *([result] if value is not None else [])]


def shown(value: object) -> Json:
    """Return the representations of a value that a notebook shows."""
    html = {"text/html": lines_of(value._repr_html_())} if hasattr(value, "_repr_html_") else {}
    return html | {"text/plain": lines_of(repr(value))}


def lines_of(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    notebook = make_notebook(Path(sys.argv[1]).read_text(), lambda number: print(f"cell {number}", file=sys.stderr, flush=True))
    Path(sys.argv[2]).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
