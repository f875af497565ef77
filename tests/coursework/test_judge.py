"""The judge: what students hand in costs no more than what depends on it."""

import json
import resource
from dataclasses import replace

import numpy as np
import pytest

from coursework import worker
from coursework.judge import (
    Exam,
    Limits,
    Places,
    Student,
    can_isolate,
    hidden_paths,
    judge,
    locate,
)
from coursework.task import Part, Question, Task

SECRET = bytes(range(16))
QUICK = Limits(cell_s=2, call_s=1, paper_s=30)


def numbers(rng):
    return [(int(n),) for n in rng.integers(3, 99, 4)]


def arrays(rng):
    return [(rng.normal(size=(3, 4)),)]


TASK = Task(
    "t1",
    "Test",
    (
        Question("q1", "double", lambda n: 2 * n, (Part(1, "numbers", "n + n", numbers, True),)),
        Question("q2", "total", np.sum, (Part(2, "arrays", "add all", arrays),)),
        Question("q3", "half", lambda n: n / 2, (Part(3, "numbers", "divide", numbers),)),
    ),
    "q4",
    1,
)
EXAM = Exam.draw(TASK, SECRET)
Q1 = "# t1 q1: keep this line\ndef double(n):\n    return n + n"
Q2 = "# t1 q2: keep this line\ndef total(a):\n    return a.sum()"
Q3 = "# t1 q3: keep this line\ndef half(n):\n    return n / 2"


def points(*cells, hidden=()):
    verdict = judge(cells, EXAM, limits=QUICK, hidden=hidden)
    return [verdict.of(f"q{n}") for n in (1, 2, 3)]


def test_what_is_right_earns_all():
    assert points("import numpy as np", Q1, Q2, Q3) == [1, 2, 3]


def test_the_self_check_is_there_with_all_its_names_and_tells_nothing():
    cell = "from tunet_lib.selfcheck import calls, check\nfor one in calls('a6', 'q4'):\n    one"
    assert points(f"{cell}\nimport numpy as np", Q1, Q2, Q3) == [1, 2, 3]
    assert points(f"from tunet_lib import selfcheck\nselfcheck.calls('a6', 'q4')\n{Q1}")[0] == 1


@pytest.mark.parametrize(
    ("cell", "earned"),
    [
        ("while True:\n    pass", [1, 2, 3]),
        ("import os\nos._exit(0)", [1, 2, 3]),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", [1, 2, 3]),
        ("exit()", [1, 2, 3]),
        ("raise SystemExit", [1, 2, 3]),
        ("1 / 0", [1, 2, 3]),
        ("def broken(:", [1, 2, 3]),
        ("!pip install something\n%matplotlib inline", [1, 2, 3]),
        ("import ctypes\nctypes.string_at(0)", [1, 2, 3]),
        ("x = bytearray(2**35)", [1, 2, 3]),
        ("import sys\nprint('{\"results\": []}' * 9999)\nsys.stdout.flush()", [1, 2, 3]),
        ("import sys\nsys.setrecursionlimit(10**9)\nf = lambda: f()\nf()", [1, 2, 3]),
    ],
)
def test_a_cell_that_hangs_or_dies_costs_nothing_else(cell, earned):
    assert points(Q1, cell, Q2, Q3) == earned


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "import os; os._exit(0)",
        "import os, signal; os.kill(os.getpid(), 9)",
        "import time; time.sleep(99)",
        "return total(a)",
        "return bytearray(2**35)",
        "return object()",
        "return (n for n in a)",
        "return lambda: 1",
        "return 'x' * 10**8",
        "return None",
        "return a",
        "return float('nan')",
        "import numpy as np; return np.array([object()])",
        "a = []; a.append(a); return a",
        "print('\\n' * 10**6); return 0",
    ],
)
def test_a_call_that_hangs_dies_or_returns_nonsense_costs_its_question(body):
    wrong = f"# t1 q2\ndef total(a):\n    {body}"
    assert points(Q1, wrong, Q3) == [1, 0, 3]


def test_a_question_whose_cell_hangs_after_the_definition_is_lost_and_no_other():
    assert points(Q1, Q2 + "\nwhile True: pass", Q3) == [1, 0, 3]


def test_a_cell_whose_last_line_fails_is_judged_all_the_same():
    assert points(Q1 + "\nassert double(2) == 5", Q2, Q3) == [1, 2, 3]


def test_a_name_used_again_later_costs_nothing():
    assert points(Q1, Q2, Q3, "double = 3\ndef total():\n    pass\nhalf = None") == [1, 2, 3]


def test_a_helper_changed_later_costs_nothing():
    uses = "# t1 q1\ndef double(n):\n    return n * FACTOR"
    assert points("FACTOR = 2", uses, "FACTOR = 7", Q2, Q3) == [1, 2, 3]


def test_a_helper_below_the_function_is_there_when_it_is_judged():
    uses = "# t1 q1: keep this line\ndef double(n):\n    return n * factor()"
    helper = "def factor():\n    return 2"
    assert points(uses, "check(1)", helper, Q2, Q3) == [1, 2, 3]
    assert points(uses, Q2, helper, Q3) == [0, 2, 3]  # there it would be another question's


def test_a_helper_s_cell_with_the_question_s_comment_does_not_begin_it():
    uses = "# t1 q3: keep this line\ndef half(n):\n    return part(n)"
    helper = "# t1 q3: helper\ndef part(n):\n    return n / 2"
    assert points(Q1, helper, Q2, uses) == [1, 2, 3]
    assert points(helper, Q1, Q2, uses) == [1, 2, 3]


def test_an_answer_below_later_questions_counts_where_its_own_place_is_empty():
    stub = "# t1 q1: keep this line\ndef double(n):\n    ..."
    answer = "def double(n):\n    return 2 * n"
    assert points(stub, Q2, Q3, answer) == [1, 2, 3]
    assert points(stub, Q2, answer, Q3, "def double():\n    pass") == [1, 2, 3]


def test_two_answers_do_not_add_up():
    halves = (
        Part(1, "odd", "", lambda rng: [(3,), (5,)]),
        Part(1, "even", "", lambda rng: [(2,), (8,)]),
    )
    first = Question("q1", "double", lambda n: 2 * n, halves)
    exam = Exam.draw(Task("t1", "", (first, TASK.questions[1]), "", 0), SECRET)
    one = "# t1 q1\ndef double(n):\n    return 2 * n if n % 2 else 0"
    assert judge([one, Q2, Q1], exam, limits=QUICK).of("q1") == 1
    assert judge([one, Q1, Q2], exam, limits=QUICK).of("q1") == 2


def test_what_a_call_breaks_is_broken_for_that_call_only():
    breaks = "# t1 q1\ndef double(n):\n    global total\n    import numpy\n    del numpy.sum\n"
    assert points(breaks + "    return 2 * n", Q2, Q3)[1:] == [2, 3]


def test_without_the_comments_the_first_definition_counts():
    bare = [cell.split("\n", 1)[1] for cell in (Q1, Q2, Q3)]
    assert points(*bare, "def half(n):\n    return 0") == [1, 2, 0]
    assert points(*bare, "x = 1") == [1, 2, 3]


def test_the_last_definition_before_the_next_question_counts():
    again = "def double(n):\n    return 2 * n"
    assert points("# t1 q1: keep this line\ndef double(n):\n    ...", again, Q2, Q3) == [1, 2, 3]
    places = {f"q{n}": Places((n,), n) for n in (1, 2, 3)}
    assert locate([Q1, again, Q2, Q3], TASK) == places


def test_a_name_used_for_an_answer_that_was_tried_out_costs_nothing():
    assert points(Q1, "double = double(3)", Q2, "total = total([1])", Q3) == [1, 2, 3]


def test_a_function_that_is_assigned_counts():
    stub = "# t1 q1: keep this line\ndef double(n):\n    ..."
    assert points(stub, "def mine(n):\n    return 2 * n\ndouble = mine", Q2, Q3) == [1, 2, 3]


@pytest.mark.parametrize(
    "line", ["double?", "?double", "files = !ls", "out, = %sx ls", "%matplotlib inline", "!ls"]
)
def test_a_line_of_ipython_costs_nothing(line):
    assert points(f"{Q1}\n{line}", Q2, Q3) == [1, 2, 3]


def test_a_cell_may_await():
    waits = "import asyncio\nawait asyncio.sleep(0)\nN = 2"
    assert points(waits, "# t1 q1\ndef double(n):\n    return N * n", Q2, Q3) == [1, 2, 3]


@pytest.mark.parametrize("source", [f"x = {'-' * 99_999}1", f"x = {'+'.join('1' * 99_999)}"])
def test_what_cannot_be_parsed_costs_its_own_cell(source):
    assert points(source, Q1, Q2, Q3) == [1, 2, 3]


@pytest.mark.parametrize("one_pipe", [True, False])
@pytest.mark.parametrize(
    "reply", ['{"results": [3]}', '{"error": ""}', '{"changed": 0}', '{"unfit": 0}', "{}"]
)
def test_a_reply_that_the_function_writes_itself_earns_nothing(reply, one_pipe):
    stop = "\n            break" * one_pipe  # at the last that was opened, which is the call's
    writes = "import contextlib, os\n    for n in range(30, 2, -1):\n        "
    writes += f"with contextlib.suppress(OSError):\n            os.write(n, b'{reply}\\n'){stop}"
    assert points(f"# t1 q1\ndef double(n):\n    {writes}", Q2, Q3)[0] == 0


def test_an_answer_that_is_defined_elsewhere_than_its_comment():
    assert points("# t1 q1: keep this line\n", Q2, Q3, "x = 1") == [0, 2, 3]


def test_a_missing_question_costs_itself():
    assert points(Q1, Q3) == [1, 0, 3]
    assert points() == [0, 0, 0]


def test_a_function_may_not_change_what_it_is_given():
    assert points(Q1, "# t1 q2\ndef total(a):\n    s = a.sum(); a[:] = 0; return s", Q3) == [
        1,
        0,
        3,
    ]


def test_a_paper_has_no_more_time_than_its_limit():
    loops = ["while True: pass"] * 50
    verdict = judge([*loops, Q1], EXAM, limits=Limits(cell_s=0.1, call_s=0.1, paper_s=3))
    assert verdict.points == 0
    assert len(verdict.notes) >= 50


def test_an_error_is_told_by_its_name_and_line_and_not_by_its_words():
    cell = "# t1 q1\ndef double(n):\n    raise ValueError(f'secret {n}')"
    why = judge([cell], EXAM, limits=QUICK).marks[0].why
    assert why == "ValueError in line 3 of its cell"
    cell = "# t1 q1\ndef double(n):\n    raise type(f'secret{n}', (Exception,), {})"
    assert judge([cell], EXAM, limits=QUICK).marks[0].why == "an exception in line 3 of its cell"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("import fractions; return fractions.Fraction(n)", "holds a value that is no number, text"),
        ("return [{1: object()}]", "holds a value that is no number, text or array"),
        ("return type(f'secret{n}', (), {})()", "holds a value that is no number, text or array"),
        ("return None", "None is returned"),
        ("return -n", "the answer is another one"),
    ],
)
def test_what_is_wrong_with_an_answer_is_told(body, why):
    told = judge([f"# t1 q1\ndef double(n):\n    {body}"], EXAM, limits=QUICK).marks[0].why
    assert why in told
    assert "secret" not in told


def test_who_puts_a_strange_thing_into_an_argument_is_told_of_the_argument():
    task = Task(
        "t1", "", (Question("q1", "one", len, (Part(1, "", "", lambda rng: [([1],)]),)),), "", 0
    )
    cell = "# t1 q1\ndef one(a):\n    a[0] = object()\n    return 1"
    mark = judge([cell], Exam.draw(task, SECRET), limits=QUICK).marks[0]
    assert mark.why == "the function changes what it is given"


def test_the_secret_is_in_no_cell_s_reach():
    look = """# t1 q1
def double(n):
    import glob, os, sys
    text = repr(dict(os.environ)) + repr(sys.argv) + repr(sys.path)
    for name in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline"):
        try:
            text += open(name, errors="replace").read()
        except OSError:
            pass
    return SECRET in text or "coursework" in text
"""
    task = Task(
        "t1", "", (Question("q1", "double", lambda n: False, TASK.questions[0].parts),), "", 0
    )
    exam = Exam.draw(task, SECRET)
    cell = f"SECRET = {SECRET.hex()!r}\n{look}"
    if can_isolate():
        assert judge([cell], exam, limits=QUICK).points == 1


@pytest.mark.skipif(not can_isolate(), reason="this system isolates no process")
def test_an_isolated_paper_reads_no_hidden_file_and_reaches_no_network(tmp_path):
    (tmp_path / "secret with blanks.txt").write_text("11")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other.txt").write_text("12")
    hidden = hidden_paths(tmp_path / "secret with blanks.txt", tmp_path / "folder")
    cell = f"""
def double(n):
    import os, pathlib, socket, subprocess
    here = pathlib.Path({str(tmp_path)!r})
    assert not (here / "folder" / "other.txt").exists()
    assert (here / "secret with blanks.txt").read_text() == ""
    assert subprocess.run(["umount", str(here / "folder")], capture_output=True).returncode
    assert not (here / "folder" / "other.txt").exists()
    assert len([p for p in os.listdir("/proc") if p.isdigit()]) < 6
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    except OSError as error:
        assert error.errno == 101, error
    return 2 * n
"""
    assert points(cell, hidden=hidden)[0] == 1
    assert points(cell)[0] == 0


def test_without_isolation_the_judge_still_judges(monkeypatch):
    monkeypatch.setattr("coursework.judge.can_isolate", lambda: False)
    assert points(Q1, "while True: pass", Q2, Q3) == [1, 2, 3]


def test_without_isolation_python_refuses_files_programs_and_the_network(monkeypatch, tmp_path):
    monkeypatch.setattr("coursework.judge.can_isolate", lambda: False)
    (tmp_path / "other.py").write_text("x = 1")
    (tmp_path / "link").symlink_to(tmp_path)
    cell = f"""
def double(n):
    import importlib, os, pathlib, socket, subprocess, sys
    here = pathlib.Path({str(tmp_path)!r})
    os.chdir("/")
    for attempt in (
        lambda: (here / "other.py").read_text(),
        lambda: (here / "link" / "other.py").read_bytes(),
        lambda: open(os.path.relpath(here / "other.py", "/")),
        lambda: os.listdir(here),
        lambda: os.link(here / "other.py", here.parent / "mine"),
        lambda: os.rename(str(here), str(here.parent / "mine")),
        lambda: sys.path.insert(0, str(here)) or importlib.import_module("other"),
        lambda: subprocess.run(["cat", str(here / "other.py")]),
        lambda: os.system("true"),
        lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    ):
        try:
            attempt()
        except (PermissionError, ModuleNotFoundError):
            continue
        return "it can"
    return 2 * n
"""
    assert points(cell, hidden=[tmp_path])[0] == 1
    assert points(cell)[0] == 0


def test_a_system_that_limits_no_memory_judges_all_the_same(monkeypatch):
    """macOS answers a limit below what is mapped with a ValueError."""

    def setrlimit(what, limits):
        if what == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        set_limits.append(what)

    set_limits = []
    monkeypatch.setattr("coursework.worker.resource.setrlimit", setrlimit)
    worker._limit()
    assert set_limits == [resource.RLIMIT_FSIZE, resource.RLIMIT_CORE]


def test_an_exam_in_a_file_judges_as_the_one_it_came_from():
    again = Exam.from_json(json.loads(json.dumps(EXAM.as_json())))
    verdict = judge([Q1, "def total(a):\n    return 1"], again, limits=QUICK)
    assert [verdict.of(f"q{n}") for n in (1, 2, 3)] == [1, 0, 0]
    assert SECRET.hex() not in json.dumps(EXAM.as_json())
    with pytest.raises(NotImplementedError, match="read from a file"):
        again.task.questions[0].answer(1)


def test_another_secret_asks_something_else():
    other = Exam.draw(TASK, bytes(16))
    assert all(other.calls[name] != EXAM.calls[name] for name in EXAM.calls)
    assert Exam.draw(TASK, SECRET) == EXAM
    assert EXAM.calls["q1/0"][0] != EXAM.calls["q3/0"][0]


def test_a_question_that_hung_once_is_waited_for_less_the_next_time():
    with Student(Limits(cell_s=2, call_s=2, paper_s=30)) as student:
        student.run("def double(n):\n    return 2 * n\ndef half(n):\n    while True: pass")
        student.call(TASK.questions[0], EXAM.calls["q1/0"][0])
        assert student.call_s == {}
        assert student.call(TASK.questions[2], EXAM.calls["q3/0"][0]) == []
        assert student.call_s == {"q3": 1}


@pytest.mark.parametrize("wrong", ["while True: pass", "import os; os._exit(1)"])
def test_a_question_that_hangs_leaves_another_its_time(wrong):
    slow = "# t1 q3\nimport time\ndef half(n):\n    time.sleep(1.3); return n / 2"
    limits = Limits(cell_s=4, call_s=4, paper_s=60)
    verdict = judge([f"# t1 q1\ndef double(n):\n    {wrong}", slow], EXAM, limits=limits)
    assert [verdict.of(name) for name in ("q1", "q3")] == [0, 3]


@pytest.mark.parametrize(
    "before",
    [
        '    """On which of the sides does it lie?\n\n    Twice.\n    """',
        "    n = (n\n        % 1000)",
        "    # Is it even?\n    n = n or n",
    ],
)
def test_a_question_or_a_percent_beside_a_line_of_ipython_is_no_such_line(before):
    assert points(f"%%time\n# t1 q1\ndef double(n):\n{before}\n    return 2 * n")[0] == 1


@pytest.mark.parametrize("place", ["cell", "call"])
def test_a_paper_that_copies_its_process_is_answered_by_one(place):
    fork = {"cell": ("import os; os.fork()", "pass"), "call": ("", "import os; os.fork()")}
    cell, body = fork[place]
    for _ in range(3):
        right = f"# t1 q1\ndef double(n):\n    {body}\n    return 2 * n"
        assert points(cell, right, Q2, Q3) == [1, 2, 3]


def test_a_number_of_a_line_carries_no_message():
    cell = "# t1 q1\ndef double(n):\n    code = '\\n' * (1000 * n) + 'raise KeyError'"
    cell += "\n    exec(compile(code, '<cell>', 'exec'))"
    assert judge([cell], EXAM, limits=QUICK).marks[0].why == "KeyError"


def test_a_set_is_no_sorted_list():
    task = Task("t2", "Order", (Question("q1", "order", sorted, TASK.questions[0].parts),), "q2", 1)
    part = Part(1, "lists", "sort", lambda rng: [([3, 1, 2],)])
    task = replace(task, questions=(replace(task.questions[0], parts=(part,)),))
    exam = Exam.draw(task, SECRET)
    for answer, earned in (("sorted(a)", 1), ("set(a)", 0)):
        cell = f"# t2 q1\ndef order(a):\n    return {answer}"
        assert judge([cell], exam, limits=QUICK).points == earned


@pytest.mark.skipif(not can_isolate(), reason="this system isolates no process")
def test_an_isolated_paper_writes_to_its_own_folder_only(tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")
    cell = f"""
def double(n):
    import os, pathlib, sys, tempfile
    (pathlib.Path(tempfile.mkdtemp()) / "own.txt").write_text("fine")
    folders = [{str(tmp_path)!r}, sys.prefix, *sys.path[-2:], "/tmp", "/dev/shm", "/root"]
    for folder in filter(os.path.isdir, folders):
        try:
            pathlib.Path(folder, "of_a_paper.pth").write_text("import os")
        except OSError:
            continue
        raise AssertionError(folder)
    try:
        os.remove({str(kept)!r})
    except OSError:
        return 2 * n
"""
    assert points(cell)[0] == 1
    assert kept.read_text() == "mine"
