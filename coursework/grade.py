"""Grade a class: ``make grade A=a6 SUBMISSIONS=folder SEED_FILE=file``."""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coursework.judge import Exam, Limits, Mark, Verdict, can_isolate, hidden_paths, judge
from coursework.papers import Paper, read_papers
from coursework.proof import right_papers, solution, without_solution
from coursework.similarity import similarities
from coursework.task import CourseworkError, Task, load_task, read_secret
from tunet_lib.allowance import processors
from tunet_lib.files import folded

SUSPICIOUS = 0.5  # a share of code in common from which a pair is listed


def grade(
    exam: Exam,
    papers: Sequence[Paper],
    *,
    hidden: Sequence[Path] = (),
    limits: Limits | None = None,
) -> list[Verdict]:
    """Judge every paper, as many at a time as there are processors; say which one is done."""

    def mark(paper: Paper) -> Verdict:
        try:
            verdict = judge(paper.code, exam, limits=limits, hidden=hidden)
        except Exception as error:  # of one paper; the others' marks must not be lost with it
            # Without a process: none may start, as where a paper has filled the disk.
            parts = [(q.name, part) for q in exam.task.questions for part in q.parts]
            marks = [Mark(name, part, 0, "it was not judged") for name, part in parts]
            problem = f"it ended the judge ({type(error).__name__}): mark it by hand"
            verdict = Verdict(marks, problem=problem)
        print(f"{paper.student}: {verdict.points} of {exam.task.points}", flush=True)
        return verdict

    with ThreadPoolExecutor(processors()) as pool:
        return list(pool.map(mark, papers))


def write_results(
    folder: Path, task: Task, papers: Sequence[Paper], verdicts: Sequence[Verdict]
) -> None:
    """Write grades.csv, feedback, the texts to mark by hand, and which papers are alike."""
    for name in ("feedback", "written"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_grades(folder / "grades.csv", task, papers, verdicts)
    used: set[str] = set()
    for paper, verdict in zip(papers, verdicts, strict=True):
        name = _file_name(paper.student, used)
        (folder / "feedback" / name).write_text(feedback(task, paper, verdict), "utf-8")
        text = written_text(paper, task)
        (folder / "written" / name).write_text(f"# {paper.student}\n\n{text}\n", "utf-8")
    published = published_code(task)
    code = {paper.student: paper.code for paper in papers} | published
    alike = similarities(code, [without_solution(source) for source in solution(task)])
    with (folder / "similarity.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["share", "paper", "other"])
        for share, one, other in alike:
            if share >= SUSPICIOUS and not {one, other} <= published.keys():
                writer.writerow([f"{share:.2f}", _harmless(one), _harmless(other)])


def write_grades(
    path: Path, task: Task, papers: Sequence[Paper], verdicts: Sequence[Verdict]
) -> None:
    """Write a line for each paper. What a teacher added stays: marks, columns, others' lines."""
    names = [question.name for question in task.questions]
    columns = ["student", *names, task.written, "by tests", "of", "problem"]
    before, now = lines_before(path, task), {}
    for paper, verdict in zip(papers, verdicts, strict=True):
        problem = paper.problem or verdict.problem
        points = [*map(verdict.of, names), "", verdict.points, task.points, problem]
        line = dict(zip(columns, map(_harmless, [paper.student, *points]), strict=True))
        kept = before.get(str(line["student"]), {})
        now[str(line["student"])] = {**kept, **line, task.written: kept.get(task.written, "")}
    more = [name for line in before.values() for name in line if name not in columns]
    with path.open("w", newline="", encoding="utf-8-sig") as out:  # else Excel guesses, wrongly
        writer = csv.DictWriter(out, [*columns, *dict.fromkeys(more)], lineterminator="\n")
        writer.writeheader()
        writer.writerows((before | now).values())


def lines_before(path: Path, task: Task) -> dict[str, dict[str, str]]:
    """Read grades.csv as it is, after whatever spreadsheet: its lines by student."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Excel separates by what its country does.
            by = ";" if file.readline().count(";") > len(task.questions) else ","
            file.seek(0)
            lines = list(csv.DictReader(file, restkey="", delimiter=by))
        for line in lines:
            line.pop("", None)  # columns without a name
        return {line["student"]: {**line, task.written: line[task.written] or ""} for line in lines}
    except KeyError as error:
        raise CourseworkError(f"{path}: has no column {error}; move it away") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CourseworkError(f"{path}: save it as CSV in UTF-8, or move it away") from error


def published_code(task: Task) -> dict[str, list[str]]:
    """Give all that this repository holds of right answers, by names that no file can have."""
    papers = {f"(published: {name})": [code] for name, code in right_papers(task).items()}
    answers = [inspect.getsource(question.answer) for question in task.questions]
    return papers | {"(the solution)": solution(task), "(the judge's answers)": answers}


def feedback(task: Task, paper: Paper, verdict: Verdict) -> str:
    """Say what earned points and what did not, with a hint, and never the test."""
    lines = [f"# {task.title}: {paper.student}", ""]
    lines.append(f"{verdict.points} of {task.points} points by tests; your text is marked by hand.")
    if problem := paper.problem or verdict.problem:
        lines += ["", f"Nothing could be marked: {problem}."]
    for question in task.questions:
        lines += ["", f"## {question.name}, `{question.function}`"]
        lines.append(f"{verdict.of(question.name)} of {question.points} points.\n")
        for mark in verdict.marks:
            if mark.question == question.name:
                what = f"- {mark.earned} of {mark.part.points}: {mark.part.says}"
                lines.append(f"{what}: {mark.why}. Hint: {mark.part.hint}" if mark.why else what)
    if verdict.notes:
        lines += ["", "## Cells that did not run through", *(f"- {n}" for n in verdict.notes)]
    return "\n".join(lines) + "\n"


def written_text(paper: Paper, task: Task) -> str:
    """Find what a student wrote to the question marked by hand.

    It is all from its title on, which comes last: text, also in the title's own cell, and code.
    """
    number = task.written.removeprefix("q")
    published = {" ".join(line.split()) for cell in texts(task) for line in cell.splitlines()}
    title = re.compile(rf"^#+ Question {number}\b", re.MULTILINE)
    places = [
        n for n, (kind, text) in enumerate(paper.cells) if kind != "code" and title.search(text)
    ]
    kept = []
    for kind, source in paper.cells[places[0] :] if places else paper.cells:
        if kind == "code":
            kept.append(f"```python\n{source.strip()}\n```" if places and source.strip() else "")
        else:
            new = [line for line in source.splitlines() if " ".join(line.split()) not in published]
            kept.append("\n".join(new).replace("<!-- END QUESTION -->", "").strip())
    found = "\n\n".join(filter(None, kept)) or "(nothing was written)"
    return found if places else f"The question's title is gone. All text of the paper:\n\n{found}"


def texts(task: Task) -> list[str]:
    """Read the text of the notebook that students get."""
    cells, is_solution = [], False
    notebook = json.loads((task.folder / "master.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "raw":
            is_solution = "BEGIN SOLUTION" in source
        elif cell["cell_type"] == "markdown" and not is_solution:
            cells.append(source)
    return cells


def of_another_task(paper: Paper, task: Task) -> Paper:
    """Say so of a paper that answers another assignment, and none of this one's questions."""
    asked = re.findall(r"^#\s*(a\d+) q\d", "\n".join(paper.code), re.MULTILINE | re.IGNORECASE)
    names = {name.lower() for name in asked}
    if not names or task.name in names:
        return paper
    return Paper(paper.student, problem=f"it is {', '.join(sorted(names))}, not {task.name}")


def check_covered(paths: dict[str, Path]) -> None:
    """Refuse to cover what the judge itself needs.

    Raises
    ------
    CourseworkError
        Python, or the folder of what is temporary, lies in one of the paths.
    """
    for name, path in paths.items():
        for needed in (sys.prefix, sys.base_prefix, tempfile.gettempdir()):
            if Path(needed).resolve().is_relative_to(path.resolve()):
                raise CourseworkError(
                    f"{name} {path}: no paper may read it, and {needed}, which every paper "
                    "needs, lies in it; choose a folder of its own"
                )


def _file_name(student: str, used: set[str]) -> str:
    base = re.sub(r"[^\w.() -]", "_", student).lstrip(".")
    base = base.encode()[:200].decode(errors="ignore") or "student"  # a file system counts bytes
    name, number = f"{base}.md", 2
    while folded(name) in used:
        name, number = f"{base} ({number}).md", number + 1
    used.add(folded(name))
    return name


def _harmless(value: object) -> object:
    """Keep a spreadsheet from taking a student's file name for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def main() -> None:
    """Read papers, judge them, and write what a teacher needs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("assignment")
    parser.add_argument("submissions", type=Path)
    parser.add_argument("--seed-file", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # whatever a name holds
    try:
        task, secret = load_task(chosen.assignment), read_secret(chosen.seed_file)
        papers, nobodys = read_papers(chosen.submissions)
        if not papers:
            raise CourseworkError(f"{chosen.submissions}: no notebook and no zip is in it")
        check_covered({"SUBMISSIONS": chosen.submissions, "OUT": chosen.out})
        lines_before(chosen.out / "grades.csv", task)  # a file that cannot stay is told at once
    except (CourseworkError, OSError) as error:
        sys.exit(f"Error: {error}")
    if nobodys:
        print(f"Neither notebooks nor in a student's folder: {', '.join(nobodys)}")
    if not can_isolate():
        print("This system isolates no process: coursework/README.md says what that means.")
    hidden = hidden_paths(chosen.seed_file, chosen.submissions, chosen.out)
    exam = Exam.draw(task, secret)
    trial = judge(solution(task), exam, hidden=hidden)
    if trial.points != task.points:
        why = "; ".join(dict.fromkeys(trial.notes + [mark.why for mark in trial.marks if mark.why]))
        sys.exit(f"Error: the solution itself earns {trial.points} of {task.points} here: {why}")
    papers = [of_another_task(paper, task) for paper in papers]
    try:
        verdicts = grade(exam, papers, hidden=hidden)
        write_results(chosen.out, task, papers, verdicts)
    except (CourseworkError, OSError) as error:
        sys.exit(f"Error: {error}")
    points = sorted(verdict.points for verdict in verdicts)
    print(
        f"{len(papers)} papers, {points[0]} to {points[-1]} of {task.points} points: {chosen.out}"
    )


if __name__ == "__main__":
    main()
