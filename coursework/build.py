"""Make what a teacher hands out and keeps: ``make coursework SEED_FILE=file``.

The master notebooks are in the format of otter-grader, which makes of each a notebook for students
and one with solutions. What goes to Gradescope is this judge, with the calls of one secret.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from coursework.judge import ROOT, Exam, hidden_paths, judge
from coursework.proof import Proof, solution, without_solution
from coursework.task import NAMES, PUBLIC, CourseworkError, Task, load_task, read_secret
from tunet_lib.exchange import encode
from tunet_lib.selfcheck import CHECKS

JUDGE = ("__init__", "gradescope", "judge", "papers", "task", "worker")
SETUP = "#!/bin/sh\nset -e\napt-get install -y python3-pip\npip3 install numpy scipy matplotlib\n"
RUN = """#!/bin/sh
# The paper runs as another user, where it cannot be kept from files otherwise.
chmod -R go-rwx /autograder/source
cd /autograder/source && exec python3 -m coursework.gradescope
"""
CHAPTER_LINK = re.compile(r"\(\.\./notebooks/(\w+)\.ipynb\)")
LONG = 25  # characters of a line, from which on it is not there by chance


def public_checks(task: Task) -> dict[str, Any]:
    """Make what the self-check of an assignment needs: public values, and right answers."""
    exam, questions = Exam.draw(task, PUBLIC), {}
    for question in task.questions:
        public, hidden = [], []
        for number, part in enumerate(question.parts):
            if not part.public:
                hidden.append(part.says)
                continue
            asked, right = exam.calls[f"{question.name}/{number}"]
            pairs = zip(asked, right, strict=True)
            cases = [{"arguments": a, "answer": encode(r)} for a, r in pairs]
            public.append({"says": part.says, "hint": part.hint, "cases": cases})
        fields = {"public": public, "hidden": hidden, "driver": question.driver}
        questions[question.name] = fields | {"tolerance": question.tolerance}
    return questions


def write_public_checks() -> None:
    """Write the values of the self-check into the library."""
    CHECKS.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        text = json.dumps(public_checks(load_task(name)), separators=(",", ":"))
        (CHECKS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def assign(task: Task, otter: str, folder: Path) -> None:
    """Let otter make the student's notebook and that with solutions; take out what it adds."""
    found = shutil.which(otter)
    if found is None:
        raise CourseworkError(f"{otter}: is not there; `make coursework` installs it")
    with tempfile.TemporaryDirectory() as temporary:
        program = str(Path(found).absolute())  # it is called in another folder
        command = [program, "assign", "--no-run-tests", "--no-pdfs", "master.ipynb", "made"]
        shutil.copy(task.folder / "master.ipynb", temporary)
        done = subprocess.run(
            command, cwd=temporary, capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode:
            raise CourseworkError(f"{task.name}: otter assign fails:\n{done.stderr[-2000:]}")
        for kind, name in (("student", "student"), ("autograder", "solution")):
            path = Path(temporary) / "made" / kind / "master.ipynb"
            notebook = json.loads(path.read_text(encoding="utf-8"))
            notebook["metadata"].pop("otter", None)
            for cell in notebook["cells"]:
                text = handed_out("".join(cell["source"]))
                cell["source"] = text.splitlines(keepends=True)
            target = folder / name / f"{task.name}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), "utf-8")


def handed_out(text: str) -> str:
    """Take otter's marks out of a cell, and let its links lead to the book's pages."""
    text = re.sub(r"^ *# (BEGIN|END) SOLUTION\n", "", text, flags=re.MULTILINE)
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    found = re.search(r"url: https://github\.com/([\w.-]+)/([\w.-]+)", config)
    assert found is not None
    # Where the workflow `book` puts them.
    pages = f"https://{found[1]}.github.io/{found[2]}/notebooks"
    return CHAPTER_LINK.sub(rf"({pages}/\1.html)", text)


def write_student_zip(task: Task, folder: Path) -> Path:
    """Pack what students get: the notebook alone, which runs in Colab and in Jupyter."""
    path = folder / f"{task.name}-student.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "student" / f"{task.name}.ipynb", f"{task.name}.ipynb")
    return path


def write_gradescope(exam: Exam, folder: Path) -> Path:
    """Pack an autograder for Gradescope: the judge, the calls and right answers; no secret."""
    path = folder / f"{exam.task.name}-gradescope.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("setup.sh", SETUP)
        archive.writestr("run_autograder", RUN)
        archive.writestr("exam.json", json.dumps(exam.as_json()))
        for name in JUDGE:
            archive.write(ROOT / "coursework" / f"{name}.py", f"coursework/{name}.py")
        archive.writestr("tunet_lib/__init__.py", "")
        archive.write(ROOT / "tunet_lib" / "exchange.py", "tunet_lib/exchange.py")
    return path


def leaks(task: Task, secret: bytes, path: Path) -> list[str]:
    """List what a student's zip holds and should not: solutions, hidden values, the secret."""
    with zipfile.ZipFile(path) as archive:
        text = "\n".join(archive.read(name).decode("utf-8") for name in archive.namelist())
    text = json.dumps(text) + text
    found = [line for line in _solution_lines(task) if line in text]
    exam = Exam.draw(task, secret)
    values = [json.dumps(case) for asked, _ in exam.calls.values() for case in asked]
    found += [value for value in values if len(value) > LONG and value in text]
    return found + [form for form in (secret.hex(), repr(secret)) if form in text]


def _solution_lines(task: Task) -> list[str]:
    lines = []
    for source in solution(task):
        kept = set(without_solution(source).splitlines())
        lines += [line.strip() for line in source.splitlines() if line not in kept]
    return [line for line in lines if len(line) >= LONG]


def build(task: Task, secret: bytes, otter: str, folder: Path) -> list[str]:
    """Prove an assignment under the teacher's secret and make its files; say what is wrong."""
    print(f"{task.name}: being proved, which takes about a minute …", flush=True)
    proof = Proof(task, [secret])
    proof.run()
    assign(task, otter, folder)
    student = write_student_zip(task, folder)
    exam = Exam.draw(task, secret)
    write_gradescope(exam, folder)
    problems = list(proof.failures)
    problems += [f"{task.name}: the student's zip holds {x}" for x in leaks(task, secret, student)]
    for kind, points in (("student", 0), ("solution", task.points)):
        notebook = json.loads((folder / kind / f"{task.name}.ipynb").read_text("utf-8"))
        code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
        earned = judge(code, exam, hidden=hidden_paths()).points
        if earned != points:
            problems.append(f"{task.name}: the {kind}'s notebook earns {earned}, not {points}")
    return problems


def main() -> None:
    """Build the assignments that are named, or all; end with 1 if one cannot be trusted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seed-file", type=Path)
    parser.add_argument("--otter", default="otter")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "coursework")
    parser.add_argument("--public", action="store_true", help="write the self-check's values only")
    chosen = parser.parse_args()
    if chosen.public:
        return write_public_checks()
    problems = []
    try:
        if chosen.seed_file is None:
            raise CourseworkError("name your secret: --seed-file; make one by: make secret")
        secret = read_secret(chosen.seed_file)
        for name in chosen.names or NAMES:
            problems += build(load_task(name), secret, chosen.otter, chosen.out)
            print(f"{name}: made")
    except CourseworkError as error:
        sys.exit(f"Error: {error}")
    if problems:
        sys.exit("\n".join(["Do not hand these out:", *problems]))
    print(f"All proved under your secret: {chosen.out}")


if __name__ == "__main__":
    main()
