"""Grade a class: ``make grade A=a6 SUBMISSIONS=folder SEED_FILE=file``."""

from __future__ import annotations

import argparse
import csv
import inspect
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coursework.judge import Exam, Limits, Verdict, can_isolate, hidden_paths, judge
from coursework.papers import Paper, read_papers
from coursework.proof import right_papers, solution, without_solution
from coursework.similarity import similarities
from coursework.task import CourseworkError, Task, load_task, read_secret
from tunet_lib.allowance import processors

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
        verdict = judge(paper.code, exam, limits=limits, hidden=hidden)
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
    by_hand = marks_by_hand(folder / "grades.csv", task)
    with (folder / "grades.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        names = [question.name for question in task.questions]
        writer.writerow(["student", *names, task.written, "by tests", "of", "problem"])
        for paper, verdict in zip(papers, verdicts, strict=True):
            points = [verdict.of(name) for name in names]
            written = by_hand.get(str(_harmless(paper.student)), "")
            row = [paper.student, *points, written, verdict.points, task.points, paper.problem]
            writer.writerow(map(_harmless, row))
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


def marks_by_hand(path: Path, task: Task) -> dict[str, str]:
    """Read what a teacher wrote into the column of the text, by student: it stays."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            return {row["student"]: row[task.written] or "" for row in csv.DictReader(file)}
        except KeyError as error:
            raise CourseworkError(f"{path}: has no column {error}; move it away") from None


def published_code(task: Task) -> dict[str, list[str]]:
    """Give all that this repository holds of right answers, by names that no file can have."""
    papers = {f"(published: {name})": [code] for name, code in right_papers(task).items()}
    answers = [inspect.getsource(question.answer) for question in task.questions]
    return papers | {"(the solution)": solution(task), "(the judge's answers)": answers}


def feedback(task: Task, paper: Paper, verdict: Verdict) -> str:
    """Say what earned points and what did not, with a hint, and never the test."""
    lines = [f"# {task.title}: {paper.student}", ""]
    lines.append(f"{verdict.points} of {task.points} points by tests; your text is marked by hand.")
    if paper.problem:
        lines += ["", f"Nothing could be marked: {paper.problem}."]
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
    """Find what a student wrote to the question marked by hand: all text after its title."""
    number = task.written.removeprefix("q")
    texts = [source for kind, source in paper.cells if kind == "markdown"]
    places = [
        n for n, text in enumerate(texts) if re.search(rf"^#+ Question {number}\b", text, re.M)
    ]
    if not places:
        return "The question's title is gone. All text of the paper:\n\n" + "\n\n".join(texts)
    after = [text.replace("<!-- END QUESTION -->", "") for text in texts[places[-1] + 1 :]]
    return "\n\n".join(text.strip() for text in after if text.strip()) or "(nothing was written)"


def _file_name(student: str, used: set[str]) -> str:
    base = re.sub(r"[^\w.() -]", "_", student).lstrip(".")[:100] or "student"
    name, number = f"{base}.md", 2
    while name in used:
        name, number = f"{base} ({number}).md", number + 1
    used.add(name)
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
    try:
        task, secret = load_task(chosen.assignment), read_secret(chosen.seed_file)
        papers = read_papers(chosen.submissions)
        if not papers:
            raise CourseworkError(f"{chosen.submissions}: no notebook and no zip is in it")
    except (CourseworkError, OSError) as error:
        sys.exit(f"Error: {error}")
    if not can_isolate():
        print("This system isolates no process: coursework/README.md says what that means.")
    hidden = hidden_paths(chosen.seed_file, chosen.submissions, chosen.out)
    try:
        marks_by_hand(chosen.out / "grades.csv", task)  # a file that cannot stay is told at once
        verdicts = grade(Exam.draw(task, secret), papers, hidden=hidden)
        write_results(chosen.out, task, papers, verdicts)
    except CourseworkError as error:
        sys.exit(f"Error: {error}")
    points = sorted(verdict.points for verdict in verdicts)
    print(
        f"{len(papers)} papers, {points[0]} to {points[-1]} of {task.points} points: {chosen.out}"
    )


if __name__ == "__main__":
    main()
