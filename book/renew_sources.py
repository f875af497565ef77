"""Renew the functions that chapters show: ``python book/renew_sources.py NOTEBOOK…`` does it.

A chapter stores what `show_source` gave when it ran, and a change of the library leaves it
behind. The notebooks' tests say so after minutes, ``--check`` in seconds; to renew it the
chapter need not run.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from tunet_lib.course import show_source


def statements(cell: dict[str, Any]) -> list[ast.stmt]:
    """Parse a cell, its shell commands among the rest."""
    return ast.parse(TransformerManager().transform_cell("".join(cell["source"]))).body


def old_sources(notebook: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Give each call that shows what the library no longer is, its output and today's source."""
    names: dict[str, Any] = {"show_source": show_source}
    for cell in notebook["cells"]:
        for node in statements(cell) if cell["cell_type"] == "code" else []:
            call = ast.unparse(node)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tunet_lib"):
                exec(call, names)
            elif call.startswith("show_source("):
                outputs = [output.get("data", {}) for output in cell["outputs"]]
                stored = next((data for data in outputs if "text/markdown" in data), None)
                if stored is None:
                    raise SystemExit(f"{call} was never run; execute its notebook")
                source = eval(call, names).data
                if "".join(stored["text/markdown"]) != source:
                    yield call, stored, source


def main() -> None:
    """Renew what is named in place, or with ``--check`` name what is old and fail."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if any is old")
    arguments = parser.parse_args()
    any_old = False
    for path in arguments.notebook:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for call, stored, source in old_sources(notebook):
            any_old = True
            print(f"{path}: {call}")
            stored["text/markdown"] = source.splitlines(keepends=True)
        if not arguments.check:
            text = json.dumps(notebook, indent=1, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8", newline="\n")
    if any_old and arguments.check:
        raise SystemExit("These show an older library: python book/renew_sources.py NOTEBOOK…")


if __name__ == "__main__":
    main()
