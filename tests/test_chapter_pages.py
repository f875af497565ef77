"""What the book's pages make of a chapter: steps within steps keep their place."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "book" / "extensions"))

pytest.importorskip("sphinx")
import chapter_pages
from docutils import nodes


def test_a_step_within_steps_is_set_in_with_all_its_lines():
    cell = nodes.entry("", nodes.paragraph("", "\N{EM SPACE}\N{EM SPACE}set it"))
    chapter_pages.mark_indented(None, nodes.row("", nodes.entry(""), cell))
    assert cell.astext() == "set it"
    assert cell["classes"] == ["indented-2"]
