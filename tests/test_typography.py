"""What pages and slides make of text: signs, numbers with their units, names in one line."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "book" / "extensions"))

pytest.importorskip("sphinx")
import typography
from docutils import nodes
from docutils.core import publish_doctree
from sphinx import addnodes

PAGE = """
Of 80 % half, 5 mm, 2.5 ± 1 ml, 9 to 12, and 7 mmol; s = 1 - 3 (Eq. 2, Fig.
4). ``5 mm - 3 x 2`` as it is. What L-Net's map has below 1e-5.

====  ============
line  change
====  ============
1     0.1 to 0.3
2     -0.1 ± 0.02
====  ============
"""


def set_page(source):
    """Set a page, and give its texts with a low line for a space at which none is broken."""
    page = publish_doctree(source)
    typography.join_lines(None, page)
    typography.set_text(None, page)
    return page, [text.replace("\N{NO-BREAK SPACE}", "_") for text in page.findall(nodes.Text)]


def test_a_number_stays_with_its_unit_and_in_a_table_with_the_other_end_of_an_interval():
    _, texts = set_page(PAGE)
    begin = "Of 80_% half, 5_mm, 2.5_±_1_ml, 9 to 12, and 7 mmol; s_=_1_−_3 (Eq._2, Fig._4). "
    assert texts[:2] == [begin, "5 mm - 3 x 2"]
    assert "0.1_to_0.3" in texts
    assert "−0.1_±_0.02" in texts


def test_a_name_or_number_with_a_hyphen_is_marked_as_one_that_does_not_break():
    page, _ = set_page(PAGE)
    kept = [one.astext() for one in page.findall(nodes.inline) if "unbroken" in one["classes"]]
    assert kept == ["L-Net", "1e-5"]


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("120 - 2 x 99 = -78 mm", "120_−_2_×_99 = −78_mm"),
        ("max(0, 0.5 m1 - m2 - 0.2)", "max(0, 0.5 m1 − m2_−_0.2)"),
        ("the loss is -w - t, from (-1, 1)", "the loss is −w − t, from (−1, 1)"),
        ("60 / 4 - 1000 * 3 / 4", "60_/_4_−_1000_×_3_/_4"),
        ("patches of 16 × 32 × 32 voxels", "patches of 16_×_32_×_32 voxels"),
        ("lines 10-27 of a 3-D map, held-out", "lines 10-27 of a 3-D map, held-out"),
        ("5 columns, x = 20", "5 columns, x_=_20"),
        ("at y = x = 56, 5 × brightness", "at y_=_x_=_56, 5_×_brightness"),
        ("2 · 1 / (2 + 3), |X ∩ Y| / |X ∪ Y|", "2_·_1_/_(2_+_3), |X_∩_Y|_/_|X_∪_Y|"),
    ],
)
def test_typed_hyphens_and_letters_become_signs(typed, printed):
    assert typography.printed(typed).replace("\N{NO-BREAK SPACE}", "_") == printed


def test_a_quiz_is_set_in_the_script_that_asks_it_but_for_code_and_formulas():
    asked = 'ask([{"question": "Is L-Net at -1, `x[-1]` or $-1$?", "answer": "5 mm", "x": "5 mm"}])'
    context = {"body": asked}
    typography.set_quizzes(None, "", "", context, None)
    name = "<span class='unbroken'>L-Net</span>"
    shown = asked.replace("L-Net at -1", f"{name} at −1").replace('"answer": "5 ', '"answer": "5_')
    assert context["body"].replace("\N{NO-BREAK SPACE}", "_") == shown


def test_lines_that_markdown_has_parted_are_one_text():
    lines = ("as in chapter", "\n", "6 and Fig.", "\n", "4")
    line = nodes.paragraph("", "", *map(nodes.Text, lines))
    page = nodes.section("", line)
    typography.join_lines(None, page)
    typography.set_text(None, page)
    assert line.astext() == "as in chapter\N{NO-BREAK SPACE}6 and Fig.\N{NO-BREAK SPACE}4"


def test_the_rest_of_a_word_belongs_to_its_link():
    link = addnodes.pending_xref("", nodes.inline("", "voxel"), reftype="term")
    line = nodes.paragraph("", "All ", link, nodes.Text("s of a map"))
    typography.link_endings(None, nodes.section("", line))
    assert link.astext() == "voxels"
    assert line.astext() == "All voxels of a map"
