"""The self-check of the assignments."""

import json
from fractions import Fraction

import numpy as np
import pytest

from coursework.build import public_checks
from coursework.proof import solution, without_solution
from coursework.task import NAMES, load_task
from tunet_lib.exchange import Lazy, decode, encode, same
from tunet_lib.files import DataError
from tunet_lib.selfcheck import CHECKS, calls, check


def assert_alike(stored, made):
    """Compare what JSON holds but for the last bits, in which processors and Pythons differ."""
    if isinstance(made, dict) and "array" in made:
        np.testing.assert_allclose(decode(stored), decode(made), rtol=1e-6, atol=1e-9)
    elif isinstance(made, dict):
        assert stored.keys() == made.keys()
        for key, value in made.items():
            assert_alike(stored[key], value)
    elif isinstance(made, list):
        for one, other in zip(stored, made, strict=True):
            assert_alike(one, other)
    elif isinstance(made, float):
        assert stored == pytest.approx(made, rel=1e-9)  # since 3.12 `sum` carries its rest along
    else:
        assert stored == made


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_values_are_those_that_the_assignment_makes(name):
    made = json.loads(json.dumps(public_checks(load_task(name))))
    assert_alike(json.loads((CHECKS / f"{name}.json").read_text(encoding="utf-8")), made)
    assert (CHECKS / f"{name}.json").stat().st_size < 200_000


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_is_right_and_nothing_is_not(name, capsys):
    space = {}
    for source in solution(load_task(name)):
        if "google.colab" not in source:
            exec(source, space)
    printed = capsys.readouterr().out
    for question in load_task(name).questions:
        for part in question.parts:
            right = f"{question.name}, {part.says}: right."
            assert (right in printed) == part.public
            assert part.public or part.says in printed
        check(name, question.name, lambda *_: None)
        out = capsys.readouterr().out
        assert "returns None, as before anything is written. Hint: " in out
        assert "right." not in out


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs_through_before_anything_is_written(name, capsys):
    space = {}
    for source in solution(load_task(name)):
        if "google.colab" not in source:
            exec(without_solution(source), space)
    printed = capsys.readouterr().out
    assert "right." not in printed
    assert printed.count("returns None") >= len(load_task(name).questions)


def test_it_takes_what_the_judge_takes(capsys):
    """NumPy's strings: the judge gets the same."""
    answers = iter([answer for _, answer in calls("a2", "q4")])

    def as_numpy(*_):
        return {np.str_(key): [np.str_(x) for x in names] for key, names in next(answers).items()}

    check("a2", "q4", as_numpy)
    out = capsys.readouterr().out
    assert "right." in out
    assert "another answer" not in out


def test_a_set_is_no_sorted_list(capsys):
    answers = iter([answer for _, answer in calls("a2", "q4")])
    check("a2", "q4", lambda *_: {key: set(names) for key, names in next(answers).items()})
    out = capsys.readouterr().out
    assert "a value of type set cannot be handed over" in out
    assert "right." not in out


def test_it_refuses_what_the_judge_refuses(capsys):
    answers = iter([answer for _, answer in calls("a2", "q2")])

    def careless(label, *_):
        label[...] = 0
        return next(answers)

    check("a2", "q2", careless)
    assert "call 1 changes what it is given, which counts as wrong." in capsys.readouterr().out
    lists = iter([answer for _, answer in calls("a5", "q1")])

    def strange(losses, *_):
        losses.append(object())
        return next(lists)

    check("a5", "q1", strange)
    assert "call 1 changes what it is given" in capsys.readouterr().out
    check("a2", "q2", lambda label, *_: label.fill(0))
    out = capsys.readouterr().out
    assert "call 1 changes what it is given" in out, "whatever else is wrong"
    assert "returns None" not in out


def test_what_cannot_be_handed_over_is_told_by_its_type(capsys):
    check("a1", "q2", lambda *_: {1: Fraction(1, 3)})
    told = "call 1 returns what the judge does not take: a value of type Fraction cannot be handed"
    assert told in capsys.readouterr().out
    endless = []
    endless.append(endless)
    check("a1", "q2", lambda *_: endless)
    assert "returns what the judge does not take: maximum recursion" in capsys.readouterr().out


def test_none_is_right_where_it_is_the_answer(capsys, monkeypatch):
    part = {"says": "odd", "hint": "no", "cases": [{"arguments": [3], "answer": None}]}
    asked = {"public": [part], "hidden": [], "driver": "", "tolerance": 1e-6}
    monkeypatch.setattr("tunet_lib.selfcheck._question", lambda *_: asked)
    check("a4", "q1", lambda n: None)
    assert capsys.readouterr().out == "q1, odd: right.\n"


def test_keys_of_several_values_come_back_and_nonsense_is_told():
    assert decode(json.loads(json.dumps(encode({(1, "a"): 3})))) == {(1, "a"): 3}
    for nonsense in ({"array": [1]}, {"lazy": 3}, {"dict": [1]}, {"dict": [[[[]], 2]]}):
        with pytest.raises(ValueError, match="not a value that was encoded"):
            decode(nonsense)


def test_what_goes_wrong_is_said(capsys):
    check("a6", "q1", lambda window: 1 / 0)
    out = capsys.readouterr().out
    assert "call 1 raises ZeroDivisionError: division by zero.\n" in out
    assert "Hint" not in out, "a hint at the answer does not help with a slip"
    check("a6", "q1", lambda window: np.zeros((9, 9, 9)))
    assert "another answer than it should: ndarray of shape (" in capsys.readouterr().out
    check("a1", "q1", lambda *_: "up")
    assert "'up' for '" in capsys.readouterr().out
    check("a1", "q1", lambda *_: 10**70)
    assert "100000" in capsys.readouterr().out
    with pytest.raises(DataError, match="choose from"):
        check("a99", "q1", len)
    with pytest.raises(DataError, match="q1"):
        check("a6", "q99", len)


@pytest.mark.parametrize("name", NAMES)
def test_the_calls_can_be_made_one_by_one(name):
    space = {}
    for source in solution(load_task(name)):
        if "google.colab" not in source:
            exec(source, space)
    for question in load_task(name).questions:
        made = calls(name, question.name)
        assert made
        for arguments, answer in made:
            if not question.driver:
                right = space[question.function](*arguments)
                assert same(right, answer, tolerance=question.tolerance)
    with pytest.raises(DataError, match="choose from"):
        calls("a99", "q1")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        float("inf"),
        "text",
        [1, [2, "x"]],
        {"a": [1], 2: None},
        {"array": 1},
        {},
    ],
)
def test_values_come_back(value):
    assert decode(json.loads(json.dumps(encode(value)))) == value


@pytest.mark.parametrize("dtype", ["bool", "uint8", "<i8", ">f4", "f2"])
def test_arrays_come_back_to_the_bit_and_can_be_written(dtype):
    array = np.arange(24).reshape(2, 3, 4)[:, ::2].astype(dtype)
    again = decode(json.loads(json.dumps(encode(array))))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)
    again[0] = 0


def test_a_lazy_sequence_comes_back_as_an_iterator():
    items = decode(encode(Lazy([1, np.zeros(2)])))
    assert next(items) == 1
    assert not hasattr(items, "__len__")


def test_a_long_double_is_a_float():
    assert encode([np.longdouble(0.25), np.float16(0.5)]) == [0.25, 0.5]
    assert all(type(number) is float for number in encode([np.longdouble(1), np.float32(1)]))


@pytest.mark.parametrize(
    "value",
    [
        *(object(), np.array(["x"]), np.array([None]), iter([]), len),
        *(1j, np.complex64(1), np.clongdouble(1), np.datetime64("2026-01-01")),
    ],
)
def test_nothing_else_is_handed_over(value):
    with pytest.raises(TypeError, match="cannot be handed over"):
        encode(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"array": ["|O", [1], "AAAAAAAAAAA="]}',
        '{"array": ["<f8", [1000000000000], ""]}',
        '{"array": ["<f8", [-1], "AA=="]}',
        '{"array": ["<f8", [1], "?"]}',
        '{"what": 1}',
        '{"array": 1, "lazy": 2}',
    ],
)
def test_what_was_not_encoded_is_refused(text):
    with pytest.raises((ValueError, TypeError)):
        decode(json.loads(text))


@pytest.mark.parametrize(
    ("given", "right", "is_same"),
    [
        (1, True, True),
        ([1, 2], np.array([1.0, 2.0]), True),
        ((1, [2, 3]), [1, [2, 3]], True),
        (np.array([0.1 + 0.2]), [0.3], True),
        (float("nan"), float("nan"), True),
        (float("nan"), 0.0, False),
        (0.3001, 0.3, False),
        (2.0000001, 2, False),
        ([[1, 2]], [1, 2], False),
        (None, 0, False),
        (0, None, False),
        ("1", 1, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ([["x"], 1], [["x"], 1], True),
        ([["x"]], [["x"], 1], False),
        ([1, [2]], [1, [2]], True),
        (np.zeros((0, 3)), np.zeros((0, 2)), False),
    ],
)
def test_the_same_answer_however_it_is_wrapped(given, right, is_same):
    assert same(given, right) is is_same
