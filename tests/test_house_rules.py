"""The rules of CONTRIBUTING.md that a program can check: sizes, links to chapters, examples."""

import ast
import doctest
import importlib
import io
import itertools
import json
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "tunet_lib"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(LIBRARY.rglob("*.py"))
}
CHAPTERS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
MODULE_LINES, FUNCTION_LINES, PARAMETERS, POSITIONAL = 250, 40, 6, 3

# What a reader of the method reads, from a CT on disk to Table 1, and how long it may be.
METHOD = (
    *("config", "scans", "placement", "median", "preprocess", "folds", "patches", "windows"),
    *("losses", "metrics", "networks", "model", "training", "localization", "predict"),
    *("ensemble", "postprocess", "evaluation", "table"),
)
METHOD_LINES = 2000
# What serves files, processes and the screen: a reader of the method never meets it.
EDGE = {
    *(
        "boxes",
        "bounds",
        "cli",
        "environment",
        "files",
        "flipbook",
        "model_folder",
        "options",
        "parallel",
    ),
    *(
        "dicom",
        "dicom_seg",
        "dicom_pixels",
        "dicom_slice",
        "dicom_stack",
        "extras",
        "formats",
        "itk",
        "nifti_header",
    ),
    *("batch", "export", "layouts", "plausible", "steps", "unpack", "upright", "volumes"),
    *("exchange", "itk_body", "selfcheck"),
    *("drawings", "drawings.chain", "drawings.nets", "drawings.svg"),
    *("allowance", "origin", "owner", "process", "weights"),
    *("plots", "plots.charts", "plots.planes", "plots.slices", "plots.style", "quiet", "screen"),
}


def code_lines(source: str) -> set[int]:
    """Number the lines that hold code: no docstring, no comment, not blank."""
    lines: set[int] = set()
    skipped = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
        tokenize.ENDMARKER,
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
            node
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def functions(source: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


def is_command(node: ast.FunctionDef) -> bool:
    # What a user types after `tunet` is no signature: options have names and defaults there.
    return any(ast.unparse(decorator) == "app.command()" for decorator in node.decorator_list)


def test_lines_are_counted_as_the_rule_says():
    source = '"""Doc."""\n\nimport os  # why\n\n\ndef f(x):\n    """Doc.\n\n    More.\n    """\n'
    source += "    # a comment\n    return (\n        x\n    )\n"
    assert code_lines(source) == {3, 6, 12, 13, 14}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short_and_so_are_its_functions(name):
    source = MODULES[name].read_text(encoding="utf-8")
    lines = code_lines(source)
    assert len(lines) <= MODULE_LINES, f"{name}: split it by idea"
    for node in functions(source):
        inside = [line for line in lines if node.lineno <= line <= node.end_lineno]
        assert len(inside) <= FUNCTION_LINES, f"{name}.{node.name}: {len(inside)} lines"


@pytest.mark.parametrize("name", MODULES)
def test_a_public_function_has_few_parameters(name):
    for node in functions(MODULES[name].read_text(encoding="utf-8")):
        private = node.name.startswith("_") and node.name != "__init__"
        if private or is_command(node):
            continue
        positional = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
        positional = [arg for arg in positional if arg not in ("self", "cls")]
        assert len(positional) <= POSITIONAL, f"{name}.{node.name}: keyword-only after the third"
        count = len(positional) + len(node.args.kwonlyargs)
        assert count <= PARAMETERS, f"{name}.{node.name}: {count} parameters"


def test_the_method_reads_in_an_evening():
    counts = {name: len(code_lines(path.read_text("utf-8"))) for name, path in MODULES.items()}
    assert sum(counts[f"tunet_lib.{name}"] for name in METHOD) <= METHOD_LINES


def chapters_named(module: str) -> set[str]:
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8"))) or ""
    return set(re.findall(r"notebooks/(\w+)\.ipynb", docstring))


def sources(chapter: str) -> str:
    cells = json.loads(CHAPTERS[chapter].read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_names_the_chapter_that_teaches_it_and_the_chapter_names_it(name):
    short = name.removeprefix("tunet_lib").lstrip(".")
    named = chapters_named(name)
    assert named <= set(CHAPTERS)
    assert named or short in EDGE, f"{name}: its docstring names no chapter"
    package = short.partition(".")[0] or "tunet_lib"
    for chapter in named:
        text = sources(chapter)
        imported = re.findall(r"^from tunet_lib import (\([^)]*\)|.*)", text, re.MULTILINE)
        is_named = re.search(rf"\btunet_lib[./]{package}\b|\btunet {package}\b", text)
        is_imported = re.search(rf"\b{package}\b", " ".join(imported))
        assert is_named or is_imported or package == "tunet_lib", f"{chapter} does not name {name}"


def test_the_paper_map_leads_to_every_module_of_the_method():
    page = (ROOT / "book" / "paper_map.md").read_text(encoding="utf-8")
    assert set(METHOD) <= set(re.findall(r"[`<]tunet_lib\.(\w+)", page))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_is_named_by_the_modules_whose_code_it_shows(chapter):
    text = sources(chapter)
    assert any(chapter in chapters_named(name) for name in MODULES)
    names: dict[str, object] = {}
    for line in re.findall(r"^from tunet_lib[^(\n]*(?:\([^)]*\)|$)", text, re.MULTILINE):
        exec(line, names)
    for shown in re.findall(r"show_source\(([\w.]+)", text):
        thing = eval(shown, names)
        assert chapter in chapters_named(thing.__module__), f"{thing.__module__}: {shown}"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    if ">>> " not in MODULES[name].read_text(encoding="utf-8"):
        pytest.skip("it has none")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_some_examples_are_there():
    for name in ("windows", "placement", "postprocess", "metrics"):
        assert ">>> " in MODULES[f"tunet_lib.{name}"].read_text(encoding="utf-8")


def test_the_drawing_is_the_order_that_the_linter_enforces():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = re.search(r"```text\n(.*?)```", contributing, re.DOTALL)[1]
    drawing, _, beside = drawn.partition("beside them:")
    steps = [re.findall(r"[a-z]\w*", step) for step in drawing.split("─>")]
    assert {*itertools.chain(*steps), *beside.split()} == set(METHOD)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.search(r"exhaustive = true\nlayers = \[(.*?)\n\]", pyproject, re.DOTALL)[1]
    order = [layer.split(" | ") for layer in reversed(re.findall(r'"([^"]+)"', layers))]
    height = {name: k for k, layer in enumerate(order) for name in layer}
    for lower, upper in itertools.pairwise(steps):
        assert max(height[name] for name in lower) < min(height[name] for name in upper)
