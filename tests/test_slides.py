"""The decks of slides: filled from the chapters, with notes, as long as the session."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "book" / "extensions"))

pytest.importorskip("sphinx")
import slides  # noqa: E402 - an extension of the book, found by its folder
from sphinx.errors import ExtensionError  # noqa: E402

DECKS = slides.read_decks()
TEACHING = (ROOT / "book" / "teaching.md").read_text("utf-8").split("## Syllabus B")[0]
each_deck = pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.name)


@pytest.fixture(scope="module")
def chapters(tmp_path_factory):
    return slides.Chapters(tmp_path_factory.mktemp("pictures"))


def session(deck):
    """What the teaching guide plans for a deck's session."""
    return TEACHING.split(f"### Session {deck.name[0]}:")[1].split("Homework:")[0]


def test_there_is_a_deck_for_each_session():
    assert [deck.name[0] for deck in DECKS] == re.findall(r"### Session (\d):", TEACHING)
    for deck in DECKS:
        assert f"Session {deck.name[0]}: {deck.title}\n" in TEACHING


@each_deck
def test_a_deck_fills_its_session_and_shows_its_chapters(deck, chapters):
    made = slides.slides_of(deck, chapters)
    assert 12 <= len(made) <= 20
    rows = re.findall(r"^\| (\d+) \|", session(deck), re.MULTILINE)
    assert sum(slide.minutes for slide in made) == sum(map(int, rows))
    planned = re.findall(r"chapters? (\d+)", session(deck))
    assert {name[:2] for name in deck.chapters} == {f"{int(number):02}" for number in planned}


@each_deck
def test_each_slide_says_what_to_say_what_to_ask_and_what_to_expect(deck, chapters):
    for slide in slides.slides_of(deck, chapters)[1:]:
        notes = re.sub("<[^>]+>", "", slide.notes)
        said, asked = notes.split("Ask:")
        question, expected = asked.split("Expect:")
        assert min(len(said.split()), len(question.split()), len(expected.split())) >= 2, notes
        assert len(notes.split()) >= 20


def test_every_tag_is_on_a_slide_and_no_number_is_picked_in_vain(chapters):
    text = "".join(deck.text for deck in DECKS)
    assert set(re.findall(r"[({](\d\d/[\w-]+)[)|]", text)) == set(chapters.cells)


def test_a_chapter_that_stores_something_else_changes_its_slide(chapters):
    cell = json.loads(json.dumps(chapters.cells["00/shares"]))
    (deck,) = (deck for deck in DECKS if "](00/shares)" in deck.text)
    text = next(part for part in deck.text.split("\n---\n") if "](00/shares)" in part)
    before = slides.make_slide(text, chapters)
    number = chapters.number("00/shares", r"1 voxel in (\d+)")
    assert number in before.body
    assert number in before.notes
    cell["outputs"][0]["text"] = ["tumor: 1 voxel in 9999\n"]
    other = slides.Chapters(chapters.pictures)
    other.cells["00/shares"] = cell
    after = slides.make_slide(text, other)
    assert "1 voxel in 9999" in after.body
    assert "9999" in after.notes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("## No notes\n", "no notes"),
        ("![](01/nothing)\n\n> 1 min\n> Say.\n", "No cell of chapter 01 is tagged slide-nothing"),
        ("![never](01/ball)\n\n> 1 min\n> Say.\n", "prints no line with never"),
        ("![exercise 9](01)\n\n> 1 min\n> Say.\n", "has no exercise 9"),
        ("{{01/ball|never (1)}}\n\n> 1 min\n> Say.\n", "is not in what 01/ball prints"),
    ],
)
def test_what_a_chapter_does_not_hold_stops_the_build(chapters, text, reason):
    with pytest.raises(ExtensionError, match=reason):
        slides.make_slide(text, chapters)


def test_the_answer_of_a_quiz_is_in_the_notes_and_not_on_the_slide(chapters):
    slide = slides.make_slide("![quiz 1](01)\n\n> 1 min\n> Say.\n", chapters)
    asked = json.loads((ROOT / "notebooks/quizzes/01_kits19.json").read_text("utf-8"))[0]
    right = next(k for k, answer in enumerate(asked["answers"]) if answer["correct"])
    assert f"<strong>Expect:</strong> {'ABCDE'[right]}." in slide.notes
    assert slide.body.count("<li>") == len(asked["answers"])
    assert "Expect" not in slide.body
