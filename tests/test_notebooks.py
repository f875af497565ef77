"""The chapters as they are stored: executed, comparable, described, small."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tunet_lib.evaluation import read_scores, table_1, write_table

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RESULTS = ROOT / "book" / "results"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(path):
    return [cell for cell in load(path)["cells"] if cell["cell_type"] == "code"]


def text_of(cell):
    """All that the cell shows as text."""
    parts = []
    for output in cell["outputs"]:
        parts += output.get("text", [])
        for kind, data in output.get("data", {}).items():
            parts += data if kind.startswith("text/") else []
    return "".join(parts)


def test_there_are_chapters():
    assert NOTEBOOKS


@each_notebook
def test_most_cells_have_outputs_to_compare(path):
    cells = code_cells(path)
    assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) / 2


@each_notebook
def test_no_cell_is_left_out_without_an_assert(path):
    for cell in code_cells(path):
        source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        if re.search("nbval[-_](ignore|skip)", f"{source} {tags}", re.IGNORECASE):
            assert "assert " in source


@each_notebook
def test_every_picture_has_a_text_of_its_own(path):
    texts = [
        cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        for cell in code_cells(path)
        if any("image/png" in output.get("data", {}) for output in cell["outputs"])
    ]
    assert len(texts) >= 3
    assert min(map(len, texts)) > 40
    assert len(set(texts)) == len(texts)


@each_notebook
def test_outputs_are_clean(path):
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    shown = "\n".join(text_of(cell) for cell in code_cells(path))
    strange = r"(?<![\w.])/(home|root|work|Users|tmp|content)/|WARNING|\b0x[0-9a-f]{6}"
    assert not re.search(strange, shown)
    # When a cell ran would differ in each version of the file.
    assert not any("execution" in cell["metadata"] for cell in code_cells(path))


@each_notebook
def test_every_link_leads_to_a_file(path):
    text = "".join(
        "".join(cell["source"]) for cell in load(path)["cells"] if cell["cell_type"] == "markdown"
    )
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (path.parent / target).exists(), target


def test_notebooks_are_small():
    sizes = [path.stat().st_size for path in NOTEBOOKS]
    assert max(sizes) <= 1.5e6
    assert sum(sizes) <= 12e6


@each_notebook
@pytest.mark.parametrize("changed", [False, True])
def test_nbval_notices_a_changed_number(path, changed, tmp_path):
    notebook = load(path)
    first = next(
        number
        for number, cell in enumerate(notebook["cells"])
        if cell["cell_type"] == "code" and re.search(r"\d", text_of(cell))
    )
    # The chapter up to its first number: the rest is compared by `make test`.
    notebook["cells"] = notebook["cells"][: first + 1]
    if changed:
        output = notebook["cells"][first]["outputs"][0]
        output["text"] = re.sub(
            r"\d", lambda digit: str((int(digit[0]) + 1) % 10), "".join(output["text"]), count=1
        )
    (tmp_path / path.name).write_text(json.dumps(notebook), encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    options = re.search(r"pytest (--nbval .*) notebooks", makefile)[1].split()
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == int(changed), run.stdout


def test_table_1_is_made_of_the_scores(tmp_path):
    write_table(tmp_path / "table_1.csv", table_1(read_scores(RESULTS / "scores.csv")))
    assert (tmp_path / "table_1.csv").read_text() == (RESULTS / "table_1.csv").read_text()
