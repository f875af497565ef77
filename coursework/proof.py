"""Proof that an assignment can be trusted: what is right earns all, what is wrong less.

``python -m coursework.proof a6`` proves one under five fixed secrets and a fresh one.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial

from coursework.judge import ROOT, Exam, Limits, Student, hidden_paths, judge, mark_question
from coursework.mutate import mutants
from coursework.task import NAMES, PUBLIC, SECRET_BYTES, Question, Task, load_task

FIXED = [hashlib.sha256(f"proof {n}".encode()).digest()[:SECRET_BYTES] for n in range(5)]
QUICK = Limits(cell_s=10, call_s=1.5, paper_s=3600)  # a mutant may hang
LEAST_KILLED = 0.95

CHEATS = {
    "imports the library's answer": """
import importlib, pkgutil
import tunet_lib
for module in pkgutil.walk_packages(tunet_lib.__path__, "tunet_lib."):
    try:
        {name} = getattr(importlib.import_module(module.name), "{name}")
    except Exception:
        pass
from tunet_lib.{guess} import {name}
""",
    "imports the oracle": """
import sys
sys.modules.pop("tunet_lib", None)
sys.path.insert(0, {root!r})
from coursework.{task}.oracle import {name}
""",
    "patches the grader": """
import gc, json, os, sys
def {name}(*arguments):
    for thing in gc.get_objects():
        if isinstance(thing, dict):
            for key in ("same", "_compare", "mark_question", "encode"):
                if callable(thing.get(key)):
                    thing[key] = lambda *_, **__: True
    for descriptor in range(3, 30):
        try:
            os.write(descriptor, b'{{"results": ["{{}}"], "points": 99, "earned": 99}}\\n')
        except OSError:
            pass
    return True
""",
    "patches NumPy": """
import numpy as np
np.allclose = np.array_equal = np.isclose = lambda *_, **__: True
np.testing.assert_allclose = np.testing.assert_equal = lambda *_, **__: None
class Equal(np.ndarray):
    __eq__ = lambda *_: True
def {name}(*arguments):
    return np.zeros(3).view(Equal)
""",
}


def solution(task: Task) -> list[str]:
    """Read the cells of code of the master notebook, with the solutions."""
    notebook = json.loads((task.folder / "master.ipynb").read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def without_solution(source: str) -> str:
    """Take out of a cell what the student is to write."""
    pattern = r"( *)# BEGIN SOLUTION\n.*?# END SOLUTION"
    return re.sub(pattern, r"\1...", source, flags=re.DOTALL)


def right_papers(task: Task) -> dict[str, str]:
    """Read the other right papers: their names and code."""
    text = (task.folder / "right.py").read_text(encoding="utf-8")
    _, *parts = re.split(r"^# %% (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def wrong_cells(task: Task, question: Question) -> dict[str, str]:
    """Make the wrong answers by hand to a question: what is wrong, and the cell."""
    cell, cells = cell_of(solution(task), task, question), {}
    for name, what, before, after in importlib.import_module(
        f"coursework.{task.name}.mutants"
    ).WRONG:
        if name == question.name:
            assert cell.count(before) >= 1, f"{task.name} {name}: {before} is not in the reference"
            cells[what] = cell.replace(before, after)
    return cells


def cell_of(sources: Sequence[str], task: Task, question: Question) -> str:
    """Find a question's cell by its comment."""
    return next(s for s in sources if s.startswith(f"# {task.name} {question.name}:"))


class Proof:
    """One assignment under several secrets; `failures` says what does not hold."""

    def __init__(self, task: Task, secrets: Sequence[bytes]) -> None:
        self.task = task
        self.exams = [Exam.draw(task, secret) for secret in secrets]
        self.public = Exam.draw(task, PUBLIC)
        self.failures: list[str] = []
        self.facts: list[str] = []

    def run(self) -> None:
        """Prove it all."""
        self.papers()
        self.cheats()
        self.mutants()

    def expect(self, holds: bool, what: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.failures.append(f"{self.task.name}: {what}")

    def papers(self) -> None:
        """Expect all points for right papers, and none for the empty one."""
        reference = solution(self.task)
        papers = {"the reference": reference} | {k: [v] for k, v in right_papers(self.task).items()}
        self.expect(len(papers) >= 4, "has fewer than three other right papers")
        for exam in self.exams:
            for name, sources in papers.items():
                for mark in judge(sources, exam).marks:
                    where = f"{name}: {mark.question}, {mark.part.says}"
                    self.expect(mark.earned == mark.part.points, f"{where}: {mark.why}")
            empty = judge([without_solution(source) for source in reference], exam)
            self.expect(empty.points == 0, f"the empty paper earns {empty.points}")

    def cheats(self) -> None:
        """Expect the points of one honest question, and none for cheats in the rest."""
        first, *rest = self.task.questions
        fill = {"root": str(ROOT), "task": self.task.name, "guess": "postprocess"}
        honest = [*solution(self.task)[:1], "import numpy as np\nfrom scipy import ndimage"]
        honest.append(cell_of(solution(self.task), self.task, first))
        for what, template in CHEATS.items():
            cells = [template.format(name=q.function, **fill) for q in rest]
            verdict = judge([*honest, *cells], self.exams[0], limits=QUICK, hidden=hidden_paths())
            earned = f"who {what} earns {verdict.points}, honest answers {first.points}"
            self.expect(verdict.points == first.points, earned)

    def mutants(self) -> None:
        """Expect every wrong answer, and nearly every automatic change, to lose points."""
        equal = importlib.import_module(f"coursework.{self.task.name}.mutants").EQUIVALENT
        count, killed, public = 0, [0] * len(self.exams), 0
        survivors: set[str] = set()
        with Student(QUICK) as student:
            for source in solution(self.task):
                student.run(source)
            for question in self.task.questions:
                cell = cell_of(solution(self.task), self.task, question)
                lose = partial(self._lose, student, question)
                for what, wrong in wrong_cells(self.task, question).items():
                    *losses, _ = lose(wrong)
                    self.expect(all(losses), f"{question.name}: loses nothing: {what}")
                for what, changed in mutants(cell):
                    name = f"{question.name}: {what}"
                    if name in equal:
                        continue
                    *losses, in_public = lose(changed)
                    count, public = count + 1, public + in_public
                    killed = [k + loss for k, loss in zip(killed, losses, strict=True)]
                    survivors |= {name} if not all(losses) else set()
                student.run(cell)
        share = min(killed) / count
        self.expect(share >= LEAST_KILLED, f"only {share:.1%} of {count} automatic mutants lose")
        self.facts.append(
            f"{count} automatic mutants and {len(equal)} equivalents; under the hardest secret "
            f"{share:.1%} lose points, by the public checks alone {public / count:.1%}"
        )
        self.facts += [f"survives: {name}" for name in sorted(survivors)]

    def _lose(self, student: Student, question: Question, cell: str) -> list[bool]:
        """Run a cell; say of each exam, and then of the public checks, whether it loses points."""
        student.run(f"{question.function} = None")
        student.run(cell)
        # One lost part is enough: the rest need not be asked.
        losses = [any(m.why for m in mark_question(student, e, question)) for e in self.exams]
        public = mark_question(student, self.public, question)
        return [*losses, any(mark.why for mark in public if mark.part.public)]


def main() -> None:
    """Prove the assignments that are named, or all; end with 1 if one cannot be trusted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as a6; all by default")
    parser.add_argument("--secrets", type=int, default=6, help="how many: five fixed, then fresh")
    chosen = parser.parse_args()
    fresh = os.urandom(SECRET_BYTES)
    secrets = [*FIXED, fresh][-chosen.secrets :]
    failures = []
    for name in chosen.names or NAMES:
        since = time.monotonic()
        proof = Proof(load_task(name), secrets)
        proof.run()
        failures += proof.failures
        print(f"{name}: {'not ' if proof.failures else ''}proved, {time.monotonic() - since:.0f} s")
        print("\n".join(f"  {fact}" for fact in proof.facts), flush=True)
    if failures:
        print("\n".join(failures), f"\nThe fresh secret was {fresh.hex()}.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
