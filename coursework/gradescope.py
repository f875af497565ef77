"""What runs at Gradescope: judges the submission by the calls in exam.json, writes results.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from coursework.judge import Exam, Limits, Verdict, hidden_paths, judge
from coursework.papers import read_papers


def results(exam: Exam, verdict: Verdict, problem: str = "") -> dict[str, Any]:
    """Put a verdict into Gradescope's form: a test for each part."""
    tests = [
        {
            "name": f"{mark.question}: {mark.part.says}",
            "score": mark.earned,
            "max_score": mark.part.points,
            "output": f"{mark.why}. Hint: {mark.part.hint}" if mark.why else "right",
        }
        for mark in verdict.marks
    ]
    output = problem or "\n".join(verdict.notes) or "All cells ran."
    return {"tests": tests, "output": output, "stdout_visibility": "hidden"}


def main(root: Path = Path("/autograder")) -> None:
    """Judge the one notebook that was handed in."""
    exam = Exam.from_json(json.loads((root / "source" / "exam.json").read_text(encoding="utf-8")))
    papers, others = read_papers(root / "submission")
    paper = papers[0] if len(papers) == 1 else None
    problem = f"Hand in one notebook; {len(papers)} were found."
    if paper:
        problem = paper.problem
    elif others:
        problem += f" What is there is {', '.join(others)}."
    code = paper.code if paper else []
    hidden = hidden_paths(root / "source" / "exam.json", root / "submission")
    verdict = judge(code, exam, limits=Limits(10, 10, 300), hidden=hidden)
    out = root / "results" / "results.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results(exam, verdict, problem)), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
