"""Papers as they come in, and what a teacher gets of them."""

import csv
import doctest
import io
import json
import random
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from coursework import grade as grade_module
from coursework import papers as papers_module
from coursework.grade import (
    check_covered,
    feedback,
    grade,
    of_another_task,
    published_code,
    texts,
    write_results,
    written_text,
)
from coursework.judge import Exam, Limits, Verdict
from coursework.papers import Paper, read_notebook, read_papers
from coursework.proof import solution, without_solution
from coursework.similarity import similarities
from coursework.task import NAMES, CourseworkError, load_task, read_secret

TASK = load_task("a6")
SECRET = bytes(range(16))


def notebook(*sources, version=4):
    cells = [{"cell_type": "code", "source": s.splitlines(True), "metadata": {}} for s in sources]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": version}).encode()


def zipped(**files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def put(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_the_examples_are_true():
    assert doctest.testmod(papers_module).failed == 0


@pytest.mark.parametrize(
    ("name", "student"),
    [
        ("Ada Lovelace_4711_assignsubmission_file_/a6.ipynb", "Ada Lovelace"),
        ("Ada Lovelace_4711_assignsubmission_file_a6.ipynb", "Ada Lovelace"),
        ("class/Ada_Maria Lovelace_4711_assignsubmission_file/a6.ipynb", "Ada_Maria Lovelace"),
        ("lovelaceada_123_456_a6.ipynb", "lovelaceada"),
        ("lovelaceada_LATE_123_456_a6-2.ipynb", "lovelaceada"),
        ("submission_98765/a6.ipynb", "submission_98765"),
        ("ada.ipynb", "ada"),
        ("ada/a6.ipynb", "ada"),
        ("ada/papers/../a6.ipynb", "ada"),
    ],
)
def test_the_names_of_teaching_systems_are_read(tmp_path, name, student):
    (tmp_path / "ada" / "papers").mkdir(parents=True)
    put(tmp_path, name, notebook("x = 1"))
    (paper,), others = read_papers(tmp_path)
    assert (paper.student, paper.code, others) == (student, ["x = 1"], [])


def found(folder):
    """What comes of each student: the first line of code, or the problem."""
    papers, others = read_papers(folder)
    return {p.student: p.problem or p.code[0] for p in papers}, others


def test_zips_are_read_and_so_is_a_zip_of_a_whole_class(tmp_path):
    nb = notebook("x = 1")
    put(tmp_path, "ada.zip", zipped(**{"work/a6.ipynb": nb, "__MACOSX/._a6.ipynb": b"?"}))
    moodle = "Grace Hopper_1_assignsubmission_file_"
    whole = {
        f"{moodle}/a6.ipynb": nb,
        f"Emmy Noether_2{moodle[14:]}/a6.zip": zipped(**{"a6.ipynb": notebook("x = 2")}),
        "bob.zip": zipped(**{"a6/a6.ipynb": notebook("x = 3")}),
    }
    put(tmp_path, "class.zip", zipped(**whole))
    right = {"Grace Hopper": "x = 1", "Emmy Noether": "x = 2"}
    assert found(tmp_path) == (right | {"ada": "x = 1", "class/bob": "x = 3"}, [])
    assert found(tmp_path / "class.zip") == (right | {"bob": "x = 3"}, [])


def test_a_folder_in_a_folder_has_its_students_name(tmp_path):
    for name in ("ada/mine/a6.ipynb", "bob.zip", "monday/eve/a6.ipynb", "monday/dan.ipynb"):
        nb = notebook(name)
        put(tmp_path, name, zipped(**{"Desktop/a6.ipynb": nb}) if name == "bob.zip" else nb)
    put(tmp_path, "ada/.ipynb_checkpoints/a6-checkpoint.ipynb", notebook("old"))
    assert set(found(tmp_path)[0]) == {"ada", "bob", "monday/eve", "monday/dan"}


def test_two_of_one_name_are_told_apart_by_the_systems_number(tmp_path):
    for number in (11, 12):
        put(tmp_path, f"Ada L_{number}_assignsubmission_file_/a6.ipynb", notebook(f"x = {number}"))
    assert found(tmp_path)[0] == {"Ada L, 11": "x = 11", "Ada L, 12": "x = 12"}


def test_who_hands_in_no_notebook_is_told_and_other_files_are_named(tmp_path):
    put(tmp_path, "ada/a6.IPYNB", notebook("x = 1"))
    put(tmp_path, "ada/notes.pdf", b"")
    put(tmp_path, "bob/a6.pdf", b"")
    put(tmp_path, "eve.ipynb.txt", notebook("x = 2"))
    put(tmp_path, "Dan D_7_assignsubmission_file_/a6.py", b"")
    put(tmp_path, "fay.zip", zipped(**{"a6.pdf": b""}))
    put(tmp_path, "c.7z", b"")
    papers, others = found(tmp_path)
    assert others == ["c.7z"]
    assert papers == {
        "ada": "x = 1",
        "eve": "x = 2",
        "bob": "no notebook, but a6.pdf",
        "Dan D": "no notebook, but a6.py",
        "fay": "no notebook is in the zip",
    }


def test_a_damaged_zip_costs_its_own_paper_and_no_other(tmp_path):
    put(tmp_path, "bob.ipynb", notebook("x = 1"))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a6.ipynb", notebook(*map(str, range(99))))
        archive.writestr("b6.ipynb", notebook("x = 3"))
    whole, rng = data.getvalue(), random.Random(0)
    problems = set()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        put(tmp_path, "ada.zip", bytes(damaged))
        papers, _ = read_papers(tmp_path)
        assert Paper("bob", (("code", "x = 1"),)) in papers
        assert len(papers) >= 2
        problems |= {paper.problem for paper in papers}
    assert {"it cannot be unpacked (error)", "it cannot be unpacked (BadZipFile)"} < problems


def test_zips_without_end_and_what_is_too_large_are_told(tmp_path, monkeypatch):
    data = notebook("x = 1")
    for _ in range(6):
        data = zipped(**{"a.zip": data})
    put(tmp_path, "ada.zip", data)
    monkeypatch.setattr(papers_module, "MOST_BYTES", 500)
    put(tmp_path, "bob.zip", zipped(**{"a6.ipynb": notebook("y" * 600)}))
    put(tmp_path, "eve.ipynb", notebook("y" * 600))
    papers, _ = found(tmp_path)
    assert papers["bob"] == papers["eve"] == "too large to be a notebook"
    assert papers["ada"] == "zips within zips, 4 times"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no such names")
def test_what_no_text_file_can_hold_is_replaced(tmp_path):
    put(tmp_path, "ada\udcfc.ipynb", b'{"cells": [{"cell_type": "code", "source": "x = \\ud83d"}]}')
    assert found(tmp_path)[0] == {"ada?": "x = ?"}


@pytest.mark.parametrize(
    "data", [b"", b"no notebook", b"[]", b"{}", b'{"cells": 3}', b"\xff\xfe\0", b"[" * 10**5]
)
def test_what_is_no_notebook_is_told_and_earns_nothing(data):
    paper = read_notebook("ada", data)
    assert paper.problem
    assert paper.code == []


def test_a_broken_zip_is_a_paper_that_cannot_be_read(tmp_path):
    put(tmp_path, "ada.zip", b"PK\3\4 broken")
    assert found(tmp_path)[0] == {"ada": "the zip cannot be read (BadZipFile)"}


def test_old_notebooks_and_sources_in_one_string_are_read():
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1\n", "y = 2"]}]}]}
    assert read_notebook("ada", json.dumps(old).encode()).code == ["x = 1\ny = 2"]
    text = {"cells": [{"cell_type": "code", "source": "x = 1"}]}
    assert read_notebook("ada", json.dumps(text).encode()).code == ["x = 1"]


def test_who_hands_in_twice_is_there_twice(tmp_path):
    put(tmp_path, "ada_1_200_a6.ipynb", notebook("x = 1"))
    put(tmp_path, "ada_1_300_a6-1.ipynb", notebook("x = 2"))
    assert found(tmp_path)[0] == {"ada": "x = 1", "ada (2)": "x = 2"}


def test_a_second_copy_by_a_browser_takes_no_other_s_name(tmp_path):
    put(tmp_path, "ada.ipynb", notebook("x = 1"))
    put(tmp_path, "ada.zip", zipped(**{"a6.ipynb": notebook("x = 2")}))
    put(tmp_path, "ada (2).ipynb", notebook("x = 3"))
    named = found(tmp_path)[0]
    assert set(named) == {"ada", "ada (2)", "ada (3)"}
    assert sorted(named.values()) == ["x = 1", "x = 2", "x = 3"]


def test_a_folder_or_zip_around_the_class_takes_no_names_away(tmp_path):
    ada = "Ada Lovelace_4711_assignsubmission_file_/a6.ipynb"
    around = "MED_2025_100_CT-A6-4711"
    put(tmp_path, f"one/{around}.zip", zipped(**{ada: notebook("x = 1")}))
    put(tmp_path, f"two/{around}/{ada}", notebook("x = 1"))
    for folder in ("one", "two"):
        assert found(tmp_path / folder) == ({"Ada Lovelace": "x = 1"}, [])
    put(tmp_path, "three/a6_2025_10_ada.ipynb", notebook("x = 1"))
    put(tmp_path, "three/a6_2025_10_bob.ipynb", notebook("x = 2"))
    assert found(tmp_path / "three")[0] == {"a6_2025_10_ada": "x = 1", "a6_2025_10_bob": "x = 2"}


@pytest.fixture(scope="module")
def class_of_four():
    reference = solution(TASK)
    cells = [("code", s) for s in reference]
    text = [("markdown", "## Question 6: whom?\n<!-- x -->"), ("markdown", "It harms the healthy.")]
    renamed = [s.replace("above", "upper").replace("below", "lower") for s in reference]
    papers = [
        Paper("ada", tuple(cells + text)),
        Paper("=bob", tuple(("code", s) for s in renamed)),
        Paper("../eve", tuple(("code", without_solution(s)) for s in reference)),
        read_notebook("mallory", b"?"),
    ]
    exam = Exam.draw(TASK, SECRET)
    return papers, grade(exam, papers, limits=Limits(10, 5, 60)), exam


def test_a_class_is_graded(class_of_four, tmp_path):
    papers, verdicts, _ = class_of_four
    assert [v.points for v in verdicts] == [TASK.points, TASK.points, 0, 0]
    write_results(tmp_path / "out", TASK, papers, verdicts)
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["student"] for row in rows] == ["ada", "'=bob", "../eve", "mallory"]
    assert [int(row["by tests"]) for row in rows] == [v.points for v in verdicts]
    assert rows[0]["q4"] == "6"
    assert rows[3]["problem"]
    assert len(list((tmp_path / "out" / "feedback").iterdir())) == 4
    assert not (tmp_path / "eve.md").exists()
    assert "harms the healthy" in (tmp_path / "out" / "written" / "ada.md").read_text("utf-8")
    alike = (tmp_path / "out" / "similarity.csv").read_text("utf-8")
    assert "ada" in alike
    assert "bob" in alike
    assert "(the solution)" in alike
    assert "eve" not in alike


def test_marks_by_hand_stay_when_a_late_paper_comes(class_of_four, tmp_path):
    papers, verdicts, _ = class_of_four
    write_results(tmp_path, TASK, papers[:3], verdicts[:3])
    path = tmp_path / "grades.csv"
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, mark in zip(rows, ("3", "2.5", ""), strict=True):
        row |= {TASK.written: mark, "my notes": "neat"}
    with path.open("w", encoding="utf-8-sig", newline="") as stream:  # as a spreadsheet does
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    write_results(tmp_path, TASK, papers[3:], verdicts[3:])  # the late one alone
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = {row["student"]: row for row in csv.DictReader(stream)}
    marks = {"ada": "3", "'=bob": "2.5", "../eve": "", "mallory": ""}
    assert {student: row[TASK.written] for student, row in rows.items()} == marks
    assert rows["ada"]["by tests"] == str(TASK.points)
    assert rows["ada"]["my notes"] == "neat"
    text = path.read_text(encoding="utf-8-sig").replace(",", ";").replace(";2.5;", ";2,5;")
    path.write_text(text, encoding="utf-8-sig")  # as Excel does in much of Europe
    write_results(tmp_path, TASK, papers, verdicts)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        assert {row["student"]: row[TASK.written] for row in csv.DictReader(stream)} == {
            **marks,
            "'=bob": "2,5",
        }
    path.write_bytes("student\nad\xe4\n".encode("cp1252"))
    with pytest.raises(CourseworkError, match="UTF-8"):
        write_results(tmp_path, TASK, papers, verdicts)
    path.write_text("name,mark\nada,3\n", encoding="utf-8")
    with pytest.raises(CourseworkError, match="has no column 'student'"):
        write_results(tmp_path, TASK, papers, verdicts)
    assert path.read_text(encoding="utf-8") == "name,mark\nada,3\n"


@pytest.mark.parametrize("name", NAMES)
def test_whoever_hands_in_what_is_published_is_listed(name, tmp_path):
    task = load_task(name)
    published = {f"copy {n}": code for n, code in enumerate(published_code(task).values())}
    papers = [Paper(who, tuple(("code", c) for c in code)) for who, code in published.items()]
    write_results(tmp_path, task, papers, [Verdict()] * len(papers))
    with (tmp_path / "similarity.csv").open(encoding="utf-8") as stream:
        pairs = [{row["paper"], row["other"]} for row in csv.DictReader(stream)]
    for who, source in zip(published, published_code(task), strict=True):
        assert {who, source} in pairs
    assert not any(pair <= published_code(task).keys() for pair in pairs)


def test_feedback_has_a_hint_for_each_part_and_no_value(class_of_four):
    papers, verdicts, exam = class_of_four
    text = feedback(TASK, papers[2], verdicts[2])
    for question in TASK.questions:
        for part in question.parts:
            assert part.hint in text
    said = " ".join(mark.why for verdict in verdicts for mark in verdict.marks) + text
    for asked, right in exam.calls.values():
        assert all(json.dumps(case) not in said for case in asked)
        # Shorter ones, such as 0.5, may stand in a hint.
        assert not [repr(r) for r in right if len(repr(r)) > 8 and repr(r) in said]
    assert max(len(repr(r)) for _, right in exam.calls.values() for r in right) > 8
    assert "Hint" not in feedback(TASK, papers[0], verdicts[0])


def test_a_text_is_found_even_if_its_title_is_gone():
    paper = Paper("ada", (("markdown", "I think"), ("code", "x = 1")))
    assert "I think" in written_text(paper, TASK)
    (asked,) = [text for text in texts(TASK) if "Question 6" in text]
    nothing = Paper("a", (("markdown", asked), ("markdown", "<!-- END QUESTION -->")))
    assert written_text(nothing, TASK) == "(nothing was written)"


@pytest.mark.parametrize(
    "after",
    [
        [("markdown", "{asked}\n\nIt harms the healthy.")],
        [("markdown", "{asked}"), ("markdown", "## Question 6: my answer\nIt harms the healthy.")],
        [("markdown", "{asked}"), ("code", "# It harms the healthy.")],
        [
            ("markdown", "{asked}"),
            ("markdown", "It harms"),
            ("markdown", "# Question 6\nthe healthy."),
        ],
    ],
)
def test_a_text_is_found_wherever_it_stands_after_its_title(after):
    (asked,) = [text for text in texts(TASK) if "Question 6" in text]
    cells = [("code", "x = 1"), *((kind, text.format(asked=asked)) for kind, text in after)]
    words = written_text(Paper("ada", tuple(cells)), TASK)
    assert "harms" in words
    assert "the healthy" in words
    assert "x = 1" not in words
    assert "In at most 200 words" not in words


def test_one_paper_that_ends_the_judge_costs_the_others_nothing(monkeypatch, class_of_four):
    papers, _, exam = class_of_four
    judge = grade_module.judge

    def ended(code, *arguments, **options):
        if code and "boom" in code[0]:
            raise RuntimeError("whatever")
        return judge(code, *arguments, **options)

    monkeypatch.setattr(grade_module, "judge", ended)
    boom = Paper("boom", (("code", "boom"),))
    first, second = grade(exam, [boom, papers[0]], limits=Limits(10, 5, 60))
    assert (first.points, second.points) == (0, TASK.points)
    assert first.problem == "it ended the judge (RuntimeError): mark it by hand"


def test_a_paper_of_another_assignment_is_told():
    other = of_another_task(Paper("ada", (("code", "# a2 q1: keep this line"),)), TASK)
    assert (other.code, other.problem) == ([], "it is a2, not a6")
    mine = Paper("ada", (("code", "# a6 q1\n# a2 q1"),))
    assert of_another_task(mine, TASK) is mine


@pytest.mark.parametrize("name", ["temporary", "python"])
def test_what_every_paper_needs_is_not_covered(name, tmp_path):
    path = Path(tempfile.gettempdir()) if name == "temporary" else Path(sys.prefix).parent
    with pytest.raises(CourseworkError, match="OUT"):
        check_covered({"OUT": path})
    check_covered({"OUT": tmp_path})


def test_other_code_is_not_alike_and_renamed_code_is():
    one = (
        "def f(a, b):\n    for x in a:\n        b += x * 2 - b[x] // 3\n    return b, a[::2]\n"
        "def g(a):\n    while a:\n        a = [i for i in a if i]\n        yield {1: a}, a[-1]\n"
    )
    other = "import math\nclass A:\n    def __init__(self):\n        self.x = {1: [2, 3]}\n" * 4
    renamed = one.replace("a", "q").replace("b", "r")
    papers = {"1": [one], "2": [other], "3": [renamed]}
    pairs = {frozenset(pair[1:]): pair[0] for pair in similarities(papers, [])}
    assert pairs[frozenset("13")] == 1
    assert pairs.get(frozenset("12"), 0) < 0.3
    assert similarities({"1": [one], "3": [renamed]}, [one]) == []


@pytest.mark.parametrize("text", ["", "xyz", "ab" * 8, "ab" * 15, "ab" * 17])
def test_a_secret_is_128_bits(tmp_path, text):
    (tmp_path / "seed").write_text(text)
    with pytest.raises(CourseworkError, match="make secret"):
        read_secret(tmp_path / "seed")
    with pytest.raises(CourseworkError, match="make secret"):
        read_secret(tmp_path / "missing")
    (tmp_path / "seed").write_text("ab" * 16 + "\n")
    assert read_secret(tmp_path / "seed") == b"\xab" * 16


def test_an_unknown_assignment_is_told():
    with pytest.raises(CourseworkError, match="a6"):
        load_task("a66")


def test_a_paper_that_ends_the_judge_costs_no_other_s_marks(class_of_four, tmp_path, monkeypatch):
    papers, _, exam = class_of_four
    reference = [source for kind, source in papers[0].cells if kind == "code"]

    def full(code, *_, **__):
        if code == reference:
            raise OSError(28, "No space left on device")
        return Verdict([])

    monkeypatch.setattr("coursework.grade.judge", full)
    verdicts = grade(exam, papers)
    assert verdicts[0].problem == "it ended the judge (OSError): mark it by hand"
    write_results(tmp_path, TASK, papers, verdicts)
    with (tmp_path / "grades.csv").open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(papers)
    assert "mark it by hand" in rows[0]["problem"]


def test_names_as_long_as_a_file_s_may_be_are_written(class_of_four, tmp_path):
    papers, verdicts, _ = class_of_four
    named = [Paper("\u5b66" * 100, papers[0].cells), Paper("\u5b66" * 99, papers[0].cells)]
    write_results(tmp_path, TASK, named, verdicts[:2])
    assert len(list((tmp_path / "feedback").iterdir())) == 2
