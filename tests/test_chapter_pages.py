"""What the book's pages make of a chapter: steps within steps keep their place."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).parents[1] / "book" / "extensions"))

pytest.importorskip("sphinx")
import chapter_pages
import light_pages
from docutils import nodes
from sphinx.errors import ExtensionError


def test_a_step_within_steps_is_set_in_with_all_its_lines():
    cell = nodes.entry("", nodes.paragraph("", "\N{EM SPACE}\N{EM SPACE}set it"))
    chapter_pages.mark_indented(None, nodes.row("", nodes.entry(""), cell))
    assert cell.astext() == "set it"
    assert cell["classes"] == ["indented-2"]


def test_a_build_without_its_assets_says_at_once_what_makes_them(monkeypatch, tmp_path):
    def begin(kind):
        light_pages.check_assets(SimpleNamespace(builder=SimpleNamespace(format=kind)))

    monkeypatch.setattr(light_pages, "KATEX", tmp_path / "katex.js")
    begin("")  # a check of links needs none
    with pytest.raises(ExtensionError, match="make assets"):
        begin("html")
    light_pages.KATEX.touch()
    begin("html")


def test_words_of_code_lose_their_element_where_they_look_the_same_without_it():
    style = "".join(
        f"html[{mode}] .highlight {rule}\n"
        for mode, plain in {"light": "#080808", "dark": "#F8F8F2"}.items()
        for rule in (
            f"{{ background: #fefefe; color: {plain} }}",
            f".n {{ color: {plain} }}",
            f".nn {{ color: {plain}; font-weight: bold }}",
            ".p { color: #080808 }",  # like the rest in one of two modes only
            ".k { color: #6730C5 }",
        )
    )
    words = "".join(f'<span class="{kind}">{kind}</span>' for kind in ("n", "nn", "p", "k"))
    found = light_pages.plain_words(style).sub(r"\1", words)
    assert found == words.replace('<span class="n">n</span>', "n")
