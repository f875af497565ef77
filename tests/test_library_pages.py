"""What the library's pages make of docstrings and signatures."""

import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

sys.path.append(str(Path(__file__).parents[1] / "book" / "extensions"))

pytest.importorskip("sphinx")
import library_pages
from docutils import nodes
from sphinx import addnodes


@dataclasses.dataclass
class Made:
    """Has a field that is made anew, and one of its own."""

    name: str
    history: list[int] = dataclasses.field(default_factory=list)
    _places: dict[int, int] = dataclasses.field(default_factory=dict)


class Called(Protocol):
    """Says what others must have."""


class Layer:
    """Hides its parameters, as Keras does."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, ratio: int = 16):
        self.ratio = ratio


class Pair(NamedTuple):
    """Two numbers."""

    first: int


def signature(thing, found="(*args, **kwargs)"):
    return library_pages.readable_signature(None, "class", "", thing, None, found, None)


def test_a_class_is_shown_with_the_parameters_that_one_gives():
    assert signature(Made, "(name, …)") == ("(name: str, history: list[int] = [])", None)
    assert signature(Layer) == ("(ratio: int = 16)", None)
    assert signature(Called) == ("", None)
    assert signature(Pair, "(first: int)") is None  # is right as it is
    assert library_pages.readable_signature(None, "function", "", len, None, "(x)", None) is None


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (
            "Chapter 01 (``notebooks/01_kits19.ipynb``).",
            "Chapter :doc:`1 </notebooks/01_kits19>`.",
        ),
        (
            "Chapters 05 and 07 (``notebooks/05_a.ipynb``, ``notebooks/07_b.ipynb``).",
            "Chapters :doc:`5 </notebooks/05_a>` and :doc:`7 </notebooks/07_b>`.",
        ),
        (
            "Chapter 10 (notebooks/10_folds.ipynb), the paper map (``book/paper_map.md``)",
            "Chapter :doc:`10 </notebooks/10_folds>`, :doc:`the paper map </book/paper_map>`",
        ),
    ],
)
def test_a_module_links_the_chapters_that_it_names(typed, shown):
    lines = [typed]
    library_pages.link_chapters(None, "module", "", None, None, lines)
    assert lines == [shown]
    untouched = [typed]
    library_pages.link_chapters(None, "function", "", None, None, untouched)
    assert untouched == [typed]


def test_a_field_of_a_named_tuple_is_left_to_its_class():
    def skipped(thing):
        return library_pages.said_by_its_class(None, "class", "", thing, False, None)

    assert skipped(Pair.first)
    assert skipped(Made) is None


def parameter(name, words):
    strong = addnodes.literal_strong("", name)
    return nodes.list_item("", nodes.paragraph("", "", strong, nodes.Text(f" – {words}")))


def test_parameters_of_one_description_share_it():
    items = [parameter("z", "A place."), parameter("y", "A place."), parameter("x", "A place.")]
    listed = nodes.bullet_list("", *items, parameter("mm", "A size."), parameter("a", ""))
    field = nodes.field("", nodes.field_name(), nodes.field_body("", listed))
    library_pages.say_once(None, field)
    assert [one.astext() for one in listed] == ["z, y, x – A place.", "mm – A size.", "a – "]
