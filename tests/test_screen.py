"""What the command shows: bars, messages, and what failed."""

import io

import pytest
import typer
from rich.console import Console

from tunet_lib import screen


def test_a_bar_ends_full_whatever_its_parts_add_up_to(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(screen, "console", Console(file=shown, width=100))
    with screen.bar("networks", 6) as advance:
        for _ in range(60):
            advance(0.1)
    assert "6/6" in shown.getvalue()


def test_failures_are_shown_at_the_end_and_make_the_status_1(capsys):
    def work():
        with screen.failures_at_the_end() as failures:
            failures["case_00007"] = "is empty"
            assert capsys.readouterr().err == ""

    with pytest.raises(typer.Exit) as ended:
        work()
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == "case_00007: is empty\n"
    with screen.failures_at_the_end():
        pass


def test_failures_are_shown_also_if_a_later_step_cannot_go_on(capsys):
    def work():
        with screen.failures_at_the_end() as failures:
            failures["case_00007"] = "is empty"
            raise KeyError("later")

    with pytest.raises(KeyError, match="later"):
        work()
    assert capsys.readouterr().err == "case_00007: is empty\n"


def test_a_message_with_brackets_or_of_any_length_is_shown_whole(capsys, monkeypatch):
    monkeypatch.setattr(screen, "console", Console(width=40))
    message = "x.nii: [/bold] " + "a" * 100
    screen.say(message)
    screen.complain("Error", message)
    assert capsys.readouterr() == (message + "\n", f"Error: {message}\n")
