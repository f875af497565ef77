"""The judge: gives a paper to a process of its own, asks for answers, compares, and counts points.

Tests, right answers and seeds stay in this process. What comes back is JSON, read with care.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from coursework.task import Part, Question, Task, cases_of, seeds_of
from tunet_lib.exchange import decode, encode, same

ROOT = Path(__file__).parents[1]
MOST_BYTES = 2**26  # of one reply
LONGEST_CELL = 1000  # lines; a number beyond could be a message, such as what a call was given
NOBODY = 65534  # the user that owns nothing
# Papers are graded in threads, and two that parse at once make CPython 3.11 raise a SystemError
# now and then (github.com/python/cpython/issues/106905).
PARSING = threading.Lock()
ISOLATE = (
    *("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"),
    *("--mount", "--mount-proc"),
)
# What the paper must not read is covered, and all but its own folder is made read-only, Python
# as well, whose next start is the judge's. Then the right to undo this is given up.
COVER = """
IFS='
'
for path in $TUNET_HIDE; do
    if [ -d "$path" ]; then mount -t tmpfs none "$path"; else mount --bind /dev/null "$path"; fi
done
unset TUNET_HIDE
mount --bind "$PWD" "$PWD" && cd "$PWD"
while IFS=' ' read -r _ _ _ _ path options _; do
    [ "$path" = "$PWD" ] || mount -o "remount,bind,$options,ro" "$path"
done < /proc/self/mountinfo 2> /dev/null
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


@dataclass(frozen=True)
class Limits:
    """How long a cell, a single call and a whole paper may take, in seconds."""

    cell_s: float = 20
    call_s: float = 20
    paper_s: float = 180


@dataclass(frozen=True)
class Mark:
    """What became of one part."""

    question: str
    part: Part
    earned: int
    why: str = ""


@dataclass
class Verdict:
    """The marks of a paper, what its cells had to say, and why it could not be judged, if so."""

    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def points(self) -> int:
        """All that was earned."""
        return sum(mark.earned for mark in self.marks)

    def of(self, question: str) -> int:
        """Give the points of one question."""
        return sum(mark.earned for mark in self.marks if mark.question == question)


@dataclass(frozen=True)
class Exam:
    """An assignment under one secret: every call and its right answer, made once.

    Attributes
    ----------
    task
        What is asked.
    calls
        Question and number of the part, ``"q4/0"`` → the encoded arguments of each call, and
        the right answers.
    """

    task: Task
    calls: dict[str, tuple[list[Any], list[Any]]]

    @classmethod
    def draw(cls, task: Task, secret: bytes) -> Exam:
        """Draw the calls from a secret, and answer them by the oracle."""
        calls, seeds = {}, seeds_of(task, secret)
        for question in task.questions:
            for number, part in enumerate(question.parts):
                name = f"{question.name}/{number}"
                cases = cases_of(part, seeds[name])
                # Encoded before they are answered, in case an oracle uses an iterator up.
                asked = [[encode(argument) for argument in case] for case in cases]
                right = [question.answer(*(decode(a) for a in case)) for case in asked]
                calls[name] = asked, [decode(encode(answer)) for answer in right]
        return cls(task, calls)

    def as_json(self) -> dict[str, Any]:
        """Give all that judging needs, without the oracle and the secret."""
        questions = []
        for question in self.task.questions:
            parts = [{"points": p.points, "says": p.says, "hint": p.hint} for p in question.parts]
            fields = {"name": question.name, "function": question.function, "parts": parts}
            questions.append(fields | {"tolerance": question.tolerance, "driver": question.driver})
        calls = {name: [asked, encode(right)] for name, (asked, right) in self.calls.items()}
        task = self.task
        fields = {"name": task.name, "title": task.title, "written": task.written}
        fields |= {"written_points": task.written_points, "questions": questions}
        return {"task": fields, "calls": calls}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Exam:
        """Make an exam of what `as_json` gave; it can judge, and not draw."""
        questions = []
        for fields in data["task"]["questions"]:
            parts = tuple(Part(**part, draw=_cannot_draw) for part in fields["parts"])
            questions.append(Question(**fields | {"parts": parts, "answer": _cannot_draw}))
        task = Task(**data["task"] | {"questions": tuple(questions)})
        return cls(task, {k: (asked, decode(right)) for k, (asked, right) in data["calls"].items()})


def hidden_paths(*more: Path) -> list[Path]:
    """List what no paper may read: the repository but its Python, and `more` that exists."""
    python = Path(sys.prefix).resolve()
    folders = [p for p in ROOT.iterdir() if p.is_dir() and not python.is_relative_to(p.resolve())]
    return [*folders, *(path.resolve() for path in more if path.exists())]


def _cannot_draw(*_: Any) -> Any:
    raise NotImplementedError("this exam was read from a file: the oracle is elsewhere")


@cache
def can_isolate() -> bool:
    """Try whether this system lets a process have a network and a file system of its own."""
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    trial = [*ISOLATE, "sh", "-c", COVER, "cover", "true"]
    environment = {"PATH": os.environ["PATH"], "TUNET_HIDE": ""}
    return subprocess.run(trial, env=environment, capture_output=True, check=False).returncode == 0


@cache
def can_demote() -> bool:
    """Try whether Python runs as a user that owns nothing; only root may start it so."""
    trial = [sys.executable, "-I", "-S", "-c", "import json"]
    try:
        done = subprocess.run(trial, user=NOBODY, group=NOBODY, capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


class Student:
    """A process that runs a paper's cells; when it hangs or dies it is replaced."""

    def __init__(self, limits: Limits, hidden: Sequence[Path] = ()) -> None:
        self.limits = limits
        self.call_s: dict[str, float] = {}  # of questions that hung
        self.hidden = hidden
        self.until = time.monotonic() + limits.paper_s
        self.done: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="paper-"))
        for source in (Path(__file__).with_name("worker.py"), ROOT / "tunet_lib" / "exchange.py"):
            shutil.copy(source, self.folder)
        # Where it cannot be isolated, as in Gradescope's container: another user than the judge.
        self.user = NOBODY if not can_isolate() and can_demote() else None
        if self.user:
            shutil.chown(self.folder, self.user, self.user)
        self._start()

    def __enter__(self) -> Student:
        """Give the process; it ends with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and delete its folder."""
        self._stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, source: str) -> str:
        """Run a cell; say what was wrong with it, or nothing."""
        reply = self._ask({"run": source}, self.limits.cell_s)
        if reply is None:
            self._replay()
            return f"it ran for more than {self.limits.cell_s:g} s, or ended the program"
        self.done.append(source)
        return _error(reply)

    def has(self, question: Question) -> bool:
        """Tell whether a question's function is one now."""
        return self.call(question, []) is not None

    def call(self, question: Question, cases: list[Any]) -> list[Any] | None:
        """Call a question's function; give what came back of each call, None if there is none."""
        limit_s = self.call_s.get(question.name, self.limits.call_s)
        ask = {"call": question.function, "driver": question.driver, "cases": cases}
        ask["limit_s"] = limit_s
        reply = self._ask(ask, limit_s * (len(cases) + 1))
        if reply is None:
            self._replay()
            return []
        if reply.get("missing"):
            return None
        lines = reply.get("results")
        lines = lines if isinstance(lines, list) else []
        if len(lines) < len(cases):
            # What hangs once hangs again: less patience, so that a class is graded in minutes.
            self.call_s[question.name] = max(1, limit_s / 4)
        return [_parsed(line) for line in lines]

    def _start(self) -> None:
        packages = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        command = [sys.executable, "-I", "-S", "worker.py", str(self.folder), *packages]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "MPLBACKEND": "Agg"}
        one_thread = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
        environment |= dict.fromkeys(one_thread, "1")
        if can_isolate():
            command = [*ISOLATE, "sh", "-c", COVER, "cover", *command]
            environment["TUNET_HIDE"] = "\n".join(map(str, self.hidden))
        else:
            environment["TUNET_REFUSE"] = "\n".join(os.path.realpath(p) for p in self.hidden)
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            user=self.user,
            group=self.user,
        )

    def _stop(self) -> None:
        # The whole session: what the paper has started ends with it.
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was left to be written has no reader
                pipe.close()  # type: ignore[union-attr]

    def _replay(self) -> None:
        """Start again and run what ran before, without the cell that hung or died."""
        self._stop()
        self._start()
        before, self.done = self.done, []
        for source in before:
            self.run(source)

    def _ask(self, question: dict[str, Any], limit_s: float) -> dict[str, Any] | None:
        """Give the reply; None if there was none in time, or none that can be read."""
        until = min(self.until, time.monotonic() + limit_s + 1)
        out = self.process.stdout
        data = b""
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
            while not data.endswith(b"\n"):
                left_s = until - time.monotonic()
                if left_s <= 0 or not select.select([out], [], [], left_s)[0]:
                    return None
                some = os.read(out.fileno(), 2**16)  # type: ignore[union-attr]
                data += some
                if not some or len(data) > MOST_BYTES:
                    return None
            return _parsed(data)
        except OSError:
            return None


def judge(
    sources: Sequence[str], exam: Exam, *, limits: Limits | None = None, hidden: Sequence[Path] = ()
) -> Verdict:
    """Mark a paper.

    Parameters
    ----------
    sources
        The code of its cells, in order.
    exam
        The assignment under the teacher's secret.
    limits
        On time.
    hidden
        Folders and files that the paper cannot read, where the system allows to cover them.

    Returns
    -------
    Verdict
        A mark for each part of each question, in order.
    """
    verdict = Verdict()
    places = locate(sources, exam.task)
    marks: dict[str, list[Mark]] = {}
    with Student(limits or Limits(), hidden) as student:
        for number, source in enumerate(sources):
            wrong = student.run(source)
            if wrong:
                verdict.notes.append(f"Cell {number + 1} of code: {wrong}.")
            for question in exam.task.questions:
                place, had = places[question.name], _earned(marks.get(question.name, []))
                # What is no function any more leaves the marks of what was one.
                if place.asks(number, had, question.points) and student.has(question):
                    made = list(mark_question(student, exam, question))
                    if number in place.own or _earned(made) > had or question.name not in marks:
                        marks[question.name] = made
    for question in exam.task.questions:
        why = f"{question.function} is not defined, or is no function"
        none = [Mark(question.name, p, 0, why) for p in question.parts]
        verdict.marks += marks.get(question.name, none)
    return verdict


def mark_question(student: Student, exam: Exam, question: Question) -> Iterator[Mark]:
    """Call a function as it is now, for one part of its question after the other."""
    for number, part in enumerate(question.parts):
        asked, right = exam.calls[f"{question.name}/{number}"]
        replies = student.call(question, asked)
        why = _compare(replies, right, question)
        yield Mark(question.name, part, 0 if why else part.points, why)


@dataclass(frozen=True)
class Places:
    """The cells after which a question is judged, by their numbers.

    Attributes
    ----------
    own
        Cells of the question that give its function; what the last of them gives counts.
    end
        The last cell before the next question: helpers may stand below the function.
    after
        Cells of later questions that define it: some leave the empty function in its place.
    """

    own: Sequence[int] = ()
    end: int = -1
    after: Sequence[int] = ()

    def asks(self, number: int, had: int, points: int) -> bool:
        """Tell whether to judge after a cell, where `had` of `points` are earned already."""
        more = number == self.end and had < points
        # Not for who has some points: two answers are not one.
        return number in self.own or more or (number in self.after and had == 0)


def locate(sources: Sequence[str], task: Task) -> dict[str, Places]:
    """Find the cells after which each question is judged.

    A question begins at the first cell that has its comment, such as ``# a6 q4``, and gives its
    function; where the comment was deleted, at the first cell that gives the function. It ends
    before the next question, so that a name used later does no harm. In between count the last
    definition and what the name is assigned afterwards, which may be a function as well, or an
    answer that was tried out.
    """
    starts: dict[str, int] = {}
    bound: dict[str, dict[int, bool]] = {q.name: {} for q in task.questions}
    for number, names in enumerate(map(_bound, sources)):
        for question in task.questions:
            if question.function in names:
                bound[question.name][number] = names[question.function]
    for question in task.questions:
        marked = [n for n, s in enumerate(sources) if _is_marked(s, task.name, question.name)]
        binding = bound[question.name]
        # A helper's cell may have the comment, too.
        found = [n for n in marked if n in binding] or marked or list(binding)
        if found:
            starts[question.name] = found[0]
    places = {question.name: Places() for question in task.questions}
    for name, first in starts.items():
        end = min([s for s in starts.values() if s > first], default=len(sources))
        inside = {n: by_def for n, by_def in bound[name].items() if first <= n < end}
        last = max([n for n, by_def in inside.items() if by_def], default=first)
        tried = [n for n, by_def in inside.items() if n > last and not by_def]
        after = [n for n, by_def in bound[name].items() if n >= end and by_def]
        places[name] = Places((last, *tried), end - 1, tuple(after))
    return places


def _earned(marks: Sequence[Mark]) -> int:
    return sum(mark.earned for mark in marks)


def _is_marked(source: str, task: str, question: str) -> bool:
    return bool(re.search(rf"^#\s*{task} {question}\b", source, re.MULTILINE | re.IGNORECASE))


def _bound(source: str) -> dict[str, bool]:
    """Name what a cell binds at its top level: True by a definition, False by another value."""
    try:
        with PARSING:
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found = re.findall(r"^(def |class )?(\w+)\s*[=(]", source, re.MULTILINE)
        return {name: bool(by_def) for by_def, name in found}
    names: dict[str, bool] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = True
        elif isinstance(node, ast.Assign) and not isinstance(node.value, ast.Constant):
            stored = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and _is_stored(n)]
            names |= dict.fromkeys(stored, isinstance(node.value, ast.Lambda))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= dict.fromkeys((alias.asname or alias.name for alias in node.names), True)
    return names


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _compare(replies: list[Any] | None, right: list[Any], question: Question) -> str:
    """Say why the replies are not the right ones, or nothing if they are."""
    if replies is None:
        return f"{question.function} is not defined, or is no function"
    for reply, answer in zip(replies, right, strict=False):
        if not isinstance(reply, dict):
            return "the answer cannot be read"
        if "error" in reply:
            return _error(reply) or "the answer cannot be read"
        if reply.get("changed"):
            return "the function changes what it is given"
        if reply.get("unfit"):
            return "the answer holds a value that is no number, text or array"
        if "value" not in reply:
            return "the answer cannot be read"
        try:
            value = decode(reply["value"])
            is_right = same(value, answer, tolerance=question.tolerance)
        except Exception:  # whatever a reply that no function gave makes of its reader
            return "the answer cannot be read"
        if not is_right:
            return "None is returned" if value is None else "the answer is another one"
    if len(replies) < len(right):
        return "a call took too long, or ended the program"
    return ""


def _error(reply: dict[str, Any]) -> str:
    if "error" not in reply:
        return ""
    name, line = str(reply["error"])[:40], reply.get("line")
    is_line = isinstance(line, int) and line < LONGEST_CELL
    return f"{name} in line {line} of its cell" if is_line else name


def _parsed(text: str | bytes) -> Any:
    try:
        parsed = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
