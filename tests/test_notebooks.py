"""The chapters as they are stored: executed, comparable, described, small."""

import ast
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from nbval.plugin import get_sanitize_patterns

from tunet_lib.course import PAGE_COLUMNS
from tunet_lib.evaluation import read_scores
from tunet_lib.table import table_1, write_table

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHAPTERS = NOTEBOOKS[1:]  # after the quickstart
RESULTS = ROOT / "book" / "results"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)

CARD = (
    "You will learn",
    "You need",
    "Reading",
    "running",
    "In the paper",
    "Where the paper is silent",
)
TRAINING = {"05", "06", "07", "08", "09", "10"}
SECTIONS = ("The question", "Exercises", "Quiz", "Summary", "Further reading")
QUIZ = {
    "type": "array",
    "minItems": 3,
    "maxItems": 5,
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["question", "type", "answers"],
        "properties": {
            "question": {"type": "string", "minLength": 10},
            "type": {"const": "multiple_choice"},
            "answers": {
                "type": "array",
                "minItems": 3,
                "uniqueItems": True,
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["answer", "correct", "feedback"],
                    "properties": {
                        "answer": {"type": "string", "minLength": 1},
                        "correct": {"type": "boolean"},
                        "feedback": {"type": "string", "minLength": 20},
                    },
                },
                "contains": {"properties": {"correct": {"const": True}}},
                "maxContains": 1,
            },
        },
    },
}


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


def prose(path):
    cells = load(path)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def test_there_are_sixteen_chapters():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(17)]


@each_chapter
def test_a_chapter_begins_with_its_card(path):
    cells = load(path)["cells"]
    first = "".join(cells[0]["source"])
    assert first.startswith(f"# {int(path.stem[:2])}. ")
    places = [first.index(f"**{label}") for label in CARD]
    assert places == sorted(places)
    assert re.search(r"takes about \d+ minutes", re.sub(r"\s+", " ", first))
    # Only what trains at the paper's size needs a GPU; all else runs as it is on a processor.
    assert ("needs a GPU" in re.sub(r"\s+", " ", first)) == (path.stem[:2] in ("09", "10"))


@each_notebook
def test_a_card_says_how_long_the_chapter_runs_as_measured(path):
    with (RESULTS / "chapters.csv").open(newline="", encoding="utf-8") as stream:
        wall_s = {line["chapter"]: int(line["wall_s"]) for line in csv.DictReader(stream)}
    said = re.search(r"\*\*running\*\* about (\d+) seconds on two processor cores", prose(path))
    assert int(said[1]) == pytest.approx(wall_s[path.stem], rel=0.1, abs=5)


@each_chapter
def test_a_chapter_has_its_sections_in_order(path):
    headings = re.findall(r"^## (.+)$", prose(path), re.MULTILINE)
    places = [headings.index(section) for section in SECTIONS]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[1] >= 3, "the narrative lies between the question and the exercises"


@each_chapter
def test_the_librarys_own_source_is_shown(path):
    assert any("show_source(" in "".join(cell["source"]) for cell in code_cells(path))


@each_chapter
def test_exercises_have_solutions_that_unfold_and_are_checked(path):
    text = prose(path)
    kinds = re.findall(r"^\*\*\d+\. ([A-Z]\w+)\.?\*\*", text, re.MULTILINE)
    assert {"Predict", "Code", "Criticize"} <= set(kinds)
    hidden = [
        "".join(cell["source"])
        for cell in code_cells(path)
        if "hide-cell" in cell["metadata"].get("tags", [])
    ]
    assert hidden
    assert [source for source in hidden if "assert" not in source] == []
    assert len(hidden) + text.count("<summary>Solution") >= len(kinds)


@each_notebook
def test_in_jupyterlab_solutions_unfold_as_well(path):
    solutions = [
        c["metadata"] for c in code_cells(path) if "hide-cell" in c["metadata"].get("tags", [])
    ]
    assert solutions
    for metadata in solutions:
        assert metadata["jupyter"] == {"outputs_hidden": True, "source_hidden": True}


@each_chapter
def test_the_quiz_has_one_right_answer_and_feedback_on_each(path):
    assert f'quiz("{path.stem}")' in "".join(code_cells(path)[-1]["source"])
    questions = load(path.parent / "quizzes" / f"{path.stem}.json")
    jsonschema.validate(questions, QUIZ)
    for question in questions:
        feedback = [answer["feedback"] for answer in question["answers"]]
        assert len(set(feedback)) == len(feedback)
    places = [[a["correct"] for a in question["answers"]].index(True) for question in questions]
    assert len(set(places)) > 1, "the right answer stands at the same place each time"


def shown_sources(path):
    """The library's code that the chapter shows."""
    outputs = [output.get("data", {}) for cell in code_cells(path) for output in cell["outputs"]]
    shown = "\n".join("".join(data.get("text/markdown", "")) for data in outputs)
    return "\n".join(re.findall(r"^```python\n(.*?)^```", shown, re.DOTALL | re.MULTILINE))


def private_names(source):
    """Names and attributes with one leading underscore, which a reader has no page to look up."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return {name for name in names if re.match("_[^_]", name)}


def test_private_names_are_found():
    assert private_names("_, a = _f(b.c._d).__init__") == {"_f", "_d"}
    assert private_names("def _g(): pass") == {"_g"}


@each_notebook
def test_sources_use_no_private_names(path):
    assert not private_names(shown_sources(path))


@each_notebook
def test_cells_use_no_private_names(path):
    for cell in code_cells(path)[1:]:  # the first is for Colab
        assert not private_names("".join(cell["source"]))


@each_notebook
def test_a_chapter_shows_at_most_150_lines_of_code(path):
    """Not counting what is folded, and the exercises, whose solutions are."""
    cells = load(path)["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    end = next(k for k, text in enumerate(texts) if "## Exercises" in text)
    hidden = {"hide-input", "hide-cell", "remove-cell"}
    shown = [
        text
        for cell, text in zip(cells[:end], texts, strict=False)
        if cell["cell_type"] == "code" and not hidden & set(cell["metadata"].get("tags", []))
    ]
    assert 100 < sum(bool(line.strip()) for line in "\n".join(shown).splitlines()) <= 150


@each_notebook
def test_sources_fit_a_page(path):
    wide = [line for line in shown_sources(path).splitlines() if len(line) > PAGE_COLUMNS]
    # Of another library, and cannot be broken.
    assert not [line for line in wide if "create_table_neighbour_code" not in line]


@each_notebook
def test_what_is_printed_fits_a_page(path):
    printed = [
        "".join(output.get("text", [])) for cell in code_cells(path) for output in cell["outputs"]
    ]
    longest = max("\n".join(printed).splitlines(), key=len)
    assert len(longest) <= 100, longest  # what a desk shows without swiping


@pytest.mark.parametrize("page", ["results", "performance"])
def test_the_code_of_a_page_is_no_wider_than_that_of_a_chapter(page):
    text = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
    cells = re.findall(
        r"^```\{code-cell\}.*?^---.*?^---\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    )
    longest = max("".join(cells).splitlines(), key=len)
    assert 40 < len(longest) <= PAGE_COLUMNS, longest


@each_notebook
def test_the_first_cell_installs_the_library_in_colab_only(path):
    first = code_cells(path)[0]
    assert first["metadata"]["tags"] == ["hide-input", "remove-output"]
    source = "".join(first["source"])
    url = re.search("url: (.+)", (ROOT / "_config.yml").read_text(encoding="utf-8"))[1]
    assert f"git clone --quiet --depth 1 \\\n        {url} /content/" in source
    without_gpu = re.sub(r"^    !nvidia-smi .*\n.*\n", "", source, flags=re.MULTILINE)
    assert without_gpu == "".join(code_cells(NOTEBOOKS[0])[0]["source"])
    assert ("nvidia-smi" in source) == (path.stem[:2] in TRAINING)


@each_notebook
def test_terms_are_in_the_glossary(path):
    glossary = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", prose(path))
    assert terms or path == NOTEBOOKS[0]
    for term in terms:
        name = re.sub(r"\s+", " ", term)
        assert re.search(rf"^{re.escape(name)}$", glossary, re.MULTILINE), term


@each_notebook
def test_works_that_are_cited_are_in_the_bibliography(path):
    known = re.findall(
        r"^@\w+\{(\w+),", (ROOT / "book/references.bib").read_text("utf-8"), re.MULTILINE
    )
    for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", prose(path)):
        assert set(keys.split(",")) <= set(known)


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


def is_picture(output):
    data = output.get("data", {})
    return "image/png" in data or 'class="flipbook"' in "".join(data.get("text/html", ""))


@each_notebook
def test_every_picture_has_a_text_of_its_own(path):
    texts = [
        cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        for cell in code_cells(path)
        if any(map(is_picture, cell["outputs"]))
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


def tables_as_text(path):
    """Name the cells whose Markdown table the book would show with its bars."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        cell["id"]
        for cell in cells
        for output in cell.get("outputs", [])
        if "\n| --" in "".join(output.get("data", {}).get("text/markdown", ""))
        and cell["metadata"].get("mystnb", {}).get("markdown_format") != "myst"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tables_are_shown_as_tables(path):
    assert not tables_as_text(path)


def test_notebooks_are_small():
    sizes = [path.stat().st_size for path in NOTEBOOKS]
    assert max(sizes) <= 1.5e6
    assert sum(sizes) <= 12e6


NUMBER = re.compile(r"(?<!\S)([^\s/]*?)(\d)")  # what precedes its first digit holds no path


def change_a_number(text):
    """Change its first digit."""
    return NUMBER.sub(lambda found: f"{found[1]}{(int(found[2]) + 1) % 10}", text, count=1)


def numbers_printed(path):
    """Give for each cell with a number in it what it has printed, by the cell's place."""
    printed = {}
    for place, cell in enumerate(load(path)["cells"]):
        streams = [o for o in cell.get("outputs", []) if o["output_type"] == "stream"]
        text = "".join("".join(output["text"]) for output in streams)
        is_compared = "nbval-ignore-output" not in cell["metadata"].get("tags", [])
        if is_compared and NUMBER.search(text):
            printed[place] = text
    return printed


def test_nbval_notices_a_changed_number(tmp_path):
    """In all that a chapter prints, by the options of make test.

    A stand-in for the chapters prints what they store, and stores it with one digit changed. That
    nbval finds nothing else to say about the chapters themselves: make test.
    """
    cells = []
    for path in NOTEBOOKS:
        for place, text in numbers_printed(path).items():
            stored = {"output_type": "stream", "name": "stdout", "text": change_a_number(text)}
            cells.append(
                {
                    "id": f"{path.stem[:2]}-{place}",
                    "cell_type": "code",
                    "source": f"print({text!r}, end='')",
                    "outputs": [stored],
                    "metadata": {},
                    "execution_count": 1,
                }
            )
    kernel = load(NOTEBOOKS[0])["metadata"]
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "changed.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    options = re.search(r"(--nbval .*) notebooks", makefile)[1].split()
    run = subprocess.run(
        # -rN: with CI in the environment pytest's summary says each message once more, in full.
        [sys.executable, "-m", "pytest", *options, "-rN", "--rootdir", tmp_path, tmp_path],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 1, run.stdout
    assert {path.stem[:2] for path in NOTEBOOKS} == {cell["id"][:2] for cell in cells}
    assert re.search(rf"\b{len(cells)} failed in", run.stdout), run.stdout
    assert run.stdout.count("mismatch 'stdout'") == len(cells)


@each_notebook
def test_no_rule_of_nbval_hides_a_number(path):
    """None that is printed, and none in the words of a picture with sliders or of a player."""
    rules = get_sanitize_patterns((ROOT / "tests" / "nbval.cfg").read_text(encoding="utf-8"))

    def compared(text):
        for pattern, replacement in rules:
            text = re.sub(pattern, replacement, text)
        return text

    html = [
        "".join(o.get("data", {}).get("text/html", ""))
        for c in code_cells(path)
        for o in c["outputs"]
    ]
    words = [compared(text) for text in html if re.search('class="(flipbook|player)"', text)]
    for text in [*numbers_printed(path).values(), *words]:
        same, digits = compared(text), [*re.finditer(r"\d", text)]
        for digit in digits[:: 1 + len(digits) // 500]:
            changed = f"{text[: digit.start()]}{9 - int(digit[0])}{text[digit.end() :]}"
            assert compared(changed) != same, text[digit.start() - 40 : digit.end() + 40]


def test_table_1_is_made_of_the_scores(tmp_path):
    write_table(tmp_path / "table_1.csv", table_1(read_scores(RESULTS / "scores.csv")))
    assert (tmp_path / "table_1.csv").read_text() == (RESULTS / "table_1.csv").read_text()
