"""The proof itself: it notices what it is there for. And the rules that each assignment keeps."""

import ast
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from coursework import build, gradescope
from coursework.judge import Exam, _compare
from coursework.mutate import mutants
from coursework.papers import read_papers
from coursework.proof import Proof, cell_of, right_papers, solution, without_solution, wrong_cells
from coursework.task import NAMES, PUBLIC, Part, load_task
from coursework.worker import _answer_all
from tunet_lib.exchange import decode, encode

SECRET = bytes(range(16))
SECRETS = [bytes([n] * 16) for n in range(1, 13)]
TASK = load_task("a6")


@pytest.mark.parametrize("name", NAMES)
def test_an_assignment_has_all_its_parts(name):
    task = load_task(name)
    assert 4 <= len(task.questions) + 1 <= 6
    assert all(2 <= len(question.parts) <= 6 for question in task.questions)
    assert any(part.public for question in task.questions for part in question.parts)
    assert all(any(not part.public for part in q.parts) for q in task.questions)
    assert len(right_papers(task)) >= 3
    for question in task.questions:
        assert len(wrong_cells(task, question)) >= 4, question.name
        assert f"def {question.function}(" in cell_of(solution(task), task, question)
    rubric = (task.folder / "rubric.md").read_text(encoding="utf-8")
    points = re.findall(r"^\| ([\d.]+) \|", rubric, re.MULTILINE)
    assert sum(map(float, points)) == task.written_points
    notebook = json.loads((task.folder / "master.ipynb").read_text(encoding="utf-8"))
    raw = "".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "raw")
    for question in task.questions:
        assert f"name: {question.name}\npoints: {question.points}\n" in raw
    assert f"name: {task.written}\nmanual: true\npoints: {task.written_points}" in raw
    text = "".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    assert f"{task.points} by tests, {task.written_points} by a text" in text
    assert not any(cell.get("outputs") for cell in notebook["cells"])


@pytest.mark.parametrize("name", NAMES)
def test_an_assignment_loads_no_network(name):
    code = (
        f"import sys, coursework.{name}.oracle; print({{'tensorflow', 'keras'}} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("name", NAMES)
def test_right_papers_do_not_share_their_code(name):
    papers = right_papers(load_task(name))
    for question in load_task(name).questions:
        bodies = []
        for text in [
            *papers.values(),
            cell_of(solution(load_task(name)), load_task(name), question),
        ]:
            defined = [
                n for n in ast.parse(text).body if getattr(n, "name", "") == question.function
            ]
            body = [n for n in defined[-1].body if not isinstance(n, ast.Expr)]
            bodies.append("\n".join(map(ast.unparse, body)))
        assert len(set(bodies)) == len(bodies), question.name


def with_parts(change):
    """Give A6 with its first question alone, and its parts changed."""
    first = TASK.questions[0]
    return replace(TASK, questions=(replace(first, parts=change(first.parts)),))


def test_a_test_that_cannot_fail_is_noticed():
    always = Part(3, "nothing", "", lambda rng: [])
    proof = Proof(with_parts(lambda _: (always,)), [SECRET])
    proof.mutants()
    assert any("loses nothing: weights from 0" in failure for failure in proof.failures)
    proof.papers()
    assert any("the empty paper earns 3" in failure for failure in proof.failures)


def test_a_wrong_right_answer_is_noticed():
    first = TASK.questions[0]
    wrong = replace(first, answer=lambda window: np.zeros(window))
    proof = Proof(replace(TASK, questions=(wrong,)), [SECRET])
    proof.papers()
    assert len(proof.failures) == 4 * len(first.parts)


def is_caught(function, question, asked, right):
    """Make one call as the student's process does, and judge it."""
    if question.driver:
        space = {}
        exec(question.driver, space)
        function = partial(space["drive"], function)
    with tempfile.TemporaryFile() as file:
        _answer_all(function, [asked], file.fileno(), (decode, encode))
        file.seek(0)
        return bool(_compare([json.loads(file.read())], [right], question))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of wrong answers
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_answer_is_caught_by_the_same_call_under_every_secret(name):
    """A call that is made for it, that is, and not one that happens to catch it."""
    task, space = load_task(name), {}
    exams = [Exam.draw(task, secret) for secret in SECRETS]
    for source in solution(task):
        if "google.colab" not in source:
            exec(source, space)
    lucky = []
    for question in task.questions:
        names = [f"{question.name}/{part}" for part in range(len(question.parts))]
        calls = [(n, i) for n in names for i in range(len(exams[0].calls[n][0]))]
        for what, cell in wrong_cells(task, question).items():
            wrong = dict(space)
            exec(cell, wrong)
            made = wrong[question.function]
            if not any(
                all(is_caught(made, question, *(c[i] for c in e.calls[n])) for e in exams)
                for n, i in calls
            ):
                lucky.append(f"{question.name}: {what}")
    assert lucky == []


KEPT = """
kept = {}
def adam(weights, gradients, rate, state):
    global kept
    if state is None:
        kept = {"n": 0, "m": 0 * weights, "v": 0 * weights}
    kept = RIGHT(weights, gradients, rate, kept)
    weights, kept = kept
    return weights, {}
"""


def test_a_training_that_keeps_its_state_elsewhere_is_caught():
    task = load_task("a5")
    question = task.questions[2]
    space = {"np": np}
    exec(cell_of(solution(task), task, question), space)
    space["RIGHT"] = space["adam"]
    exec(KEPT, space)
    for secret in SECRETS:
        asked, right = Exam.draw(task, secret).calls["q3/1"]
        pairs = list(zip(asked, right, strict=True))
        assert any(is_caught(space["adam"], question, *pair) for pair in pairs)
        assert not any(is_caught(space["RIGHT"], question, *pair) for pair in pairs)


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("name", ["a1", "a6"])
def test_cheats_earn_nothing(monkeypatch, name, isolated):
    if not isolated:
        monkeypatch.setattr("coursework.judge.can_isolate", lambda: False)
    proof = Proof(load_task(name), [SECRET])
    proof.cheats()
    assert proof.failures == []


def test_changes_are_made_by_each_rule_once():
    found = dict(mutants("def f(x):\n    if x < 1 and True:\n        x += 2\n    return -x"))
    assert "if x < 1 and True: → if x <= 1 and True:" in found
    assert "if x < 1 and True: → if x < 1 or True:" in found
    assert "x += 2 → x -= 2" in found
    assert "x += 2 → pass" in found
    assert "return -x → return x" in found
    assert len(set(found.values())) == len(found)
    for text in found.values():
        compile(text, "", "exec")


@pytest.mark.parametrize("name", NAMES)
def test_links_of_what_is_handed_out_lead_to_the_books_pages(name):
    text = (load_task(name).folder / "master.ipynb").read_text("utf-8")
    linked = re.findall(r"\]\(\.\./(notebooks/\w+)\.ipynb\)", text)
    assert linked
    changed = build.handed_out(text)
    assert "](.." not in changed
    for chapter in linked:
        assert (build.ROOT / f"{chapter}.ipynb").is_file()
        assert f"](https://tunet-book.github.io/tunet-book/{chapter}.html)" in changed


def test_what_students_get_holds_no_solution_and_a_leak_is_noticed(tmp_path):
    cells = [{"source": without_solution(source)} for source in solution(TASK)]
    path = tmp_path / "a6.zip"

    def pack(*more):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a6.ipynb", json.dumps([*cells, *more]))
        return build.leaks(TASK, SECRET, path)

    assert pack() == []
    assert pack({"source": solution(TASK)[2]}) != []
    assert pack({"source": SECRET.hex()}) != []
    asked = Exam.draw(TASK, SECRET).calls["q4/1"][0][0]
    assert pack(asked) != []
    assert pack(Exam.draw(TASK, PUBLIC).calls["q4/1"][0][0]) == []


def test_the_autograder_of_gradescope_judges_by_itself(tmp_path):
    exam = Exam.draw(TASK, SECRET)
    path = build.write_gradescope(exam, tmp_path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "autograder" / "source")
        everything = "".join(archive.read(name).decode() for name in archive.namelist())
    assert SECRET.hex() not in everything
    assert not any("oracle" in name for name in archive.namelist())
    paper = {"cells": [{"cell_type": "code", "source": source} for source in solution(TASK)[:5]]}
    (tmp_path / "autograder" / "submission").mkdir()
    (tmp_path / "autograder" / "submission" / "a6.ipynb").write_text(json.dumps(paper))
    # As there: from its own folder, without this repository.
    run = [sys.executable, "-m", "coursework.gradescope", str(tmp_path / "autograder")]
    subprocess.run(run, cwd=tmp_path / "autograder" / "source", env={"PATH": ""}, check=True)
    results = json.loads((tmp_path / "autograder" / "results" / "results.json").read_text())
    scores = {test["name"]: test["score"] for test in results["tests"]}
    assert scores["q1: windows of any size"] == 2
    assert scores["q5: a usual case"] == 0
    assert sum(test["max_score"] for test in results["tests"]) == TASK.points


def test_gradescope_wants_one_notebook(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "submission").mkdir()
    exam = Exam.draw(TASK, SECRET)
    (tmp_path / "source" / "exam.json").write_text(json.dumps(exam.as_json()))
    gradescope.main(tmp_path)
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert "Hand in one notebook; 0 were found." in results["output"]
    assert read_papers(tmp_path / "submission") == ([], [])
