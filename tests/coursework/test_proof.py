"""The proof itself: it notices what it is there for. And the rules that each assignment keeps."""

import ast
import importlib
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
from coursework.judge import Exam, _compare, judge
from coursework.mutate import mutants
from coursework.papers import read_papers
from coursework.proof import Proof, cell_of, right_papers, solution, without_solution, wrong_cells
from coursework.task import NAMES, PUBLIC, Part, load_task
from coursework.worker import _answer_all
from tunet_lib.exchange import decode, encode

SECRET = bytes(range(16))
SECRETS = [bytes([n] * 16) for n in range(1, 13)]
TASK = load_task("a6")


def markdown(task):
    notebook = json.loads((task.folder / "master.ipynb").read_text(encoding="utf-8"))
    cells = [c["source"] for c in notebook["cells"] if c["cell_type"] == "markdown"]
    return "\n".join(map("".join, cells))


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
    assert f"{task.points} by tests, {task.written_points} by a text" in markdown(task)
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


IN_FLOAT32 = """
def mean_and_spread(maps):
    n, total, squares = 0, 0, 0
    for prob in maps:
        n, total, squares = n + 1, total + prob, squares + prob**2
    return total / n, np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
"""


def test_sums_in_float32_are_not_tested_as_the_text_says():
    assert "float64 keeps the digits; neither is tested" in markdown(TASK).replace("\n", " ")
    question, space = TASK.questions[2], {"np": np}
    exec(IN_FLOAT32, space)
    for secret in [PUBLIC, *SECRETS]:
        exam = Exam.draw(TASK, secret)
        for part in range(3):
            for asked, right in zip(*exam.calls[f"q3/{part}"], strict=True):
                count = len(list(decode(asked)[0]))
                assert count == 1 or right[1].min() >= 0.005 * count
                assert not is_caught(space["mean_and_spread"], question, asked, right)


def test_who_finds_no_leak_at_all_earns_the_point_of_a_clean_deal():
    task = load_task("a2")
    answer = "def leaks(folds, patients):\n    return {'patients': [], 'scans': [], 'missing': []}"
    for secret in SECRETS[:3]:
        cells = ["# a2 q4\n" + answer]
        assert judge(cells, Exam.draw(task, secret)).points == 1


def test_a_deal_that_leaks_everywhere_does_so_under_every_secret():
    task = load_task("a2")
    assert "A scan in two folds puts its patient in both." in markdown(task).replace("\n", " ")
    for secret in SECRETS:
        exam = Exam.draw(task, secret)
        for part in (2, 3):
            folds, patients = map(decode, exam.calls[f"q4/{part}"][0][-1])
            found = exam.calls[f"q4/{part}"][1][-1]
            places = [{n for n in range(4) if name in folds[n]} for name in found["scans"]]
            assert [len(n) for n in places] == [3]
            assert len(found["missing"]) == 1
            home = {
                p: {n for n in range(4) if any(patients[s] == p for s in folds[n])}
                for p in found["patients"]
            }
            twice, thrice = sorted(home.values(), key=len)
            assert twice in ({0, 2}, {1, 3}), "no two neighbors"
            assert len(thrice) == 3


def test_false_alarms_are_weighed_against_other_tumors_in_a_loss_of_all_together():
    task = load_task("a3")
    said = "so that false alarms in a patch without a tumor are weighed against the tumors of"
    assert said in markdown(task).replace("\n", " ")
    loss = task.questions[1].answer
    truth, quiet, loud = np.zeros((3, 2, 1, 2, 3, 1))
    truth[0, 0, 0], loud[1, 0, 0] = 1, 1
    more = truth.copy()
    more[0] = 1

    def costs(truth, together):
        cost = loss(truth + loud, truth, together, 1.0) - loss(truth + quiet, truth, together, 1.0)
        return round(cost, 9)

    assert costs(truth, False) == costs(more, False) > 0, "they count there as well"
    assert costs(truth, True) > costs(more, True) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_name_what_is_there_when_a_paper_is_judged(name):
    said = " ".join(markdown(load_task(name)).split())
    packages = re.search(r"([\w, ]+?) and Python's own library are there", said)[1].split(", ")
    assert set(build.SETUP.split("pip3 install ")[1].lower().split()) == {
        package.strip().lower() for package in packages
    }
    for package in packages:
        importlib.import_module(package.strip().lower())
    assert "Write for Python 3.10." in said
    assert "a helper before the next question begins" in said
    assert "where a package is missing, the rest of its cell does not run" in said


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
