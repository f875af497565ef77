"""Small changes to a program, each made by a rule: a test that misses most of them tests little."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
NAMES = {"min": "max", "minimum": "maximum", "any": "all", "zeros": "ones", "floor": "ceil"}
NAMES |= {new: old for old, new in NAMES.items()}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Make every program that differs from `source` by one rule.

    Yields
    ------
    tuple
        What is changed, ``"line → line"``, and the changed program.
    """
    tree = ast.parse(source)
    plain = ast.unparse(tree).split("\n")
    seen = {"\n".join(plain)}
    for number, node in enumerate(ast.walk(tree)):
        for change in _changes(node):
            other = copy.deepcopy(tree)
            change(list(ast.walk(other))[number])
            text = ast.unparse(ast.fix_missing_locations(other))
            if text in seen:
                continue
            seen.add(text)
            pairs = zip(plain, text.split("\n"), strict=False)
            before, after = next((a, b) for a, b in pairs if a != b)
            yield f"{before.strip()} → {after.strip()}", text


def _changes(node: ast.AST) -> Iterator[Callable[[ast.AST], None]]:
    """Give the changes that a node allows; each is applied to a copy of it."""
    if isinstance(node, ast.Compare | ast.BinOp | ast.AugAssign | ast.BoolOp):
        operator = node.ops[0] if isinstance(node, ast.Compare) else node.op
        if type(operator) in SWAPS:
            yield lambda n: _set_operator(n, SWAPS[type(operator)]())
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield lambda n: setattr(n, "value", _other(n.value))
    if isinstance(node, ast.If | ast.IfExp):
        for value in (True, False):
            yield lambda n, value=value: setattr(n, "test", ast.Constant(value))
    if isinstance(node, ast.UnaryOp):
        yield lambda n: _become(n, n.operand)
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield lambda n: setattr(n, "attr", NAMES[n.attr])
    if isinstance(node, ast.Name) and node.id in NAMES:
        yield lambda n: setattr(n, "id", NAMES[n.id])
    for field in ("body", "orelse"):
        statements = getattr(node, field, None)
        if isinstance(statements, list):
            for place, statement in enumerate(statements):
                if isinstance(statement, ast.Assign | ast.AugAssign | ast.Continue):
                    yield lambda n, f=field, p=place: getattr(n, f).__setitem__(p, ast.Pass())


def _other(value: bool | int | float) -> bool | int | float:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value * 1.5 + 0.25


def _set_operator(node: ast.AST, operator: ast.AST) -> None:
    if isinstance(node, ast.Compare):
        node.ops[0] = operator  # type: ignore[call-overload]
    else:
        node.op = operator  # type: ignore[attr-defined]


def _become(node: ast.AST, other: ast.AST) -> None:
    node.__class__ = other.__class__
    node.__dict__.clear()
    node.__dict__.update(other.__dict__)
