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


def test_a_bar_of_bytes_knows_its_size_and_takes_back_what_was_thrown_away(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(screen, "console", Console(file=shown, width=100))
    with screen.bytes_bar("download") as (on_size, on_bytes):
        on_size(8_000_000)
        for count in (2_500_000, 1_000_000, -500_000):
            on_bytes(count)
    assert "download" in shown.getvalue()
    assert "3.0/8.0 MB" in shown.getvalue()


def test_in_a_table_what_is_bad_is_red_and_what_is_only_strange_yellow(monkeypatch):
    shown = io.StringIO()
    terminal = {"force_terminal": True, "color_system": "standard", "no_color": False}
    monkeypatch.setattr(screen, "console", Console(file=shown, width=100, **terminal))
    rows = [(("case_00001", "[/b].nii", "is empty"), True), (("case_00002", "", "is odd"), False)]
    screen.show_table(("case", "file", "what"), rows)
    red, yellow = "\x1b[31m", "\x1b[33m"
    assert f"{red}is empty" in shown.getvalue()
    assert f"{yellow}is odd" in shown.getvalue()
    assert shown.getvalue().count(red) == shown.getvalue().count(yellow) == 1
    assert "[/b].nii" in shown.getvalue()  # no markup


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
