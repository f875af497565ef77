"""What the book's pages make of text: numbers keep their units, steps within steps their place."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "book" / "extensions"))

pytest.importorskip("sphinx")
import chapter_pages
from docutils import nodes
from docutils.core import publish_doctree

PAGE = """
Of 80 % half, 5 mm, 2.5 ± 1 ml, 9 to 12 of them, and 7 mmol; s = 1 - 3 (Eq. 2). ``5 mm`` as it is.

====  ============
line  change
====  ============
1     0.1 to 0.3
2     -0.1 ± 0.02
====  ============
"""


def test_a_number_stays_with_its_unit_and_in_a_table_with_the_other_end_of_an_interval():
    page = publish_doctree(PAGE)
    chapter_pages.keep_together(None, page)
    texts = [text.replace("\N{NO-BREAK SPACE}", "_") for text in page.findall(nodes.Text)]
    begin = "Of 80_% half, 5_mm, 2.5_±_1_ml, 9 to 12 of them, and 7 mmol; s_=_1 - 3 (Eq._2). "
    assert texts[:2] == [begin, "5 mm"]
    assert "0.1_to_0.3" in texts
    assert "-0.1_±_0.02" in texts


def test_a_step_within_steps_is_set_in_with_all_its_lines():
    cell = nodes.entry("", nodes.paragraph("", "\N{EM SPACE}\N{EM SPACE}set it"))
    chapter_pages.mark_indented(None, nodes.row("", nodes.entry(""), cell))
    assert cell.astext() == "set it"
    assert cell["classes"] == ["indented-2"]
