r"""The decks of slides: `book/slides/*.md`, filled with what the chapters store.

A deck is Markdown. ``---`` stands between two slides; what a slide ends with, set as a quotation
that begins with minutes (``> 4 min``), are the speaker's notes. What comes from a chapter has a
cell with a tag there, such as ``slide-ball``:

``![](01/ball)``
    what the cell gives: its picture, drawing, sliders, table or printed lines; of a cell of text
    its table
``![whole|tumor](01/volumes)``
    only the printed lines in which the regular expression is found; of a table, as in
    ``![1 2](13/algorithm)``, only some columns
``![exercise 2](01)``, ``![quiz 3](01)``
    the text of an exercise, the question of a quiz (whose answer goes into the notes)
``{{01/ball|radius (\d+)}}``
    what the group of the expression finds in what the cell prints

So no number stands here a second time, and a chapter that is run again changes its slides.
``make slides`` builds the decks alone, the book builds them too.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import string
import textwrap
from dataclasses import dataclass
from pathlib import Path

from light_pages import FORMULA, formulas_in, in_place, set_formulas, turned_by_sliders
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.errors import ExtensionError
from typography import printed, unbroken_names

BOOK = Path(__file__).parents[1]
DECKS = BOOK / "slides"
NOTEBOOKS = BOOK.parent / "notebooks"
BUILT = BOOK.parent / "_build" / "html"
TAG = "slide-"
NOTES = re.compile(r"^> (\d+) min\n((?:>.*(?:\n|$))*)\Z", re.MULTILINE)
NUMBER = re.compile(r"\{\{(\d\d/[\w-]+)\|(.+?)\}\}")
ALONE = re.compile(r"<p>(<!--\d+-->)</p>")
# MyST's roles and links of a chapter, which have no meaning outside of the book's own pages.
ROLE = re.compile(r"\{[\w:]+\}`(?:[^`<]*<)?([^`>]+)>?`")
TERM = re.compile(r"\{term\}`([^`<]+?)(?:\s*<[^`]*>)?`")
CHAPTER_LINK = re.compile(r"\]\((\d\d_\w+)\.ipynb\)")
TABLE = re.compile(r"(?:^\|.*\n?)+", re.MULTILINE)
LETTERS = "ABCDE"
LONG = 20  # rows of a table; more stand in two halves side by side
CELL = 44  # letters in a line of a table's cell, about
COLORS = HtmlFormatter(nowrap=True, noclasses=True, style="a11y-high-contrast-light")


@dataclass(frozen=True)
class Slide:
    """One slide: its HTML, the speaker's minutes and notes."""

    body: str
    minutes: int
    notes: str


@dataclass(frozen=True)
class Deck:
    """One deck: its name, title, the chapters that it shows, its text."""

    name: str
    title: str
    chapters: tuple[str, ...]
    text: str


def setup(app):
    """Let Sphinx build the decks with its pages."""
    app.connect("build-finished", build_with_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def build_with_pages(app, error):
    """Build the decks beside the pages."""
    if not error and app.builder.name == "html":
        build(Path(app.outdir))


def read_decks():
    """Read what stands at the head of each deck, in their order."""
    decks = []
    for path in sorted(DECKS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        title = re.match(r"# (.+)", text)[1]
        chapters = re.findall(r"notebooks/(\w+)\.html", text.split("\n---\n")[0])
        decks.append(Deck(path.stem, title, tuple(chapters), text))
    return decks


def build(out):
    """Write all decks as ``out/slides/NAME.html``."""
    folder = out / "slides"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pictures").mkdir(parents=True)
    template = string.Template((DECKS / "deck.html").read_text(encoding="utf-8"))
    chapters, pages = Chapters(folder / "pictures"), {}
    for deck in read_decks():
        slides = "\n".join(section(slide) for slide in slides_of(deck, chapters))
        pages[deck.name] = template.substitute(title=html.escape(deck.title), slides=slides)
    formulas = set_formulas({found for page in pages.values() for found in formulas_in(page)})
    (out / "_images").mkdir(exist_ok=True)
    for name, page in pages.items():
        page = FORMULA.sub(lambda found: in_place(found, formulas), page)
        page = turned_by_sliders(page, out / "_images")
        (folder / f"{name}.html").write_text(page, encoding="utf-8")


def section(slide):
    """Give the HTML of a slide."""
    notes = f'<aside class="notes"><p><b>{slide.minutes} min</b></p>{slide.notes}</aside>'
    return f'<section><div class="slide">{slide.body}</div>{notes}</section>'


def slides_of(deck, chapters):
    """Make the slides of a deck."""
    return [make_slide(text, chapters) for text in re.split(r"^---\n", deck.text, flags=re.M)]


def make_slide(text, chapters):
    """Make a slide of its Markdown."""
    text = NUMBER.sub(lambda found: chapters.number(found[1], found[2]), text)
    notes = NOTES.search(text.rstrip())
    if notes is None:
        raise ExtensionError(f"A slide has no notes that begin with minutes:\n{text}")
    spoken = re.sub(r"^> ?", "", notes[2], flags=re.MULTILINE)
    shown, answers = render(text[: notes.start()], chapters)
    return Slide(shown, int(notes[1]), render(spoken + "".join(answers))[0])


def render(text, chapters=None):
    """Give the HTML of Markdown with places for cells, and the answers of its questions."""
    found, answers = [], []

    def place(self, tokens, index, options, env):
        token = tokens[index]
        shown, answer = chapters.show(token.attrs["src"], token.content)
        found.append(shown)
        answers.append(answer)
        return f"<!--{len(found) - 1}-->"

    markdown = MarkdownIt("commonmark", {"highlight": colored, "typographer": True})
    markdown.enable(["table", "smartquotes"])
    markdown.use(dollarmath_plugin, renderer=formula)
    markdown.add_render_rule("image", place)
    markdown.add_render_rule("text", as_printed)
    shown = ALONE.sub(r"\1", markdown.render(text))
    return re.sub(r"<!--(\d+)-->", lambda one: found[int(one[1])], shown), answers


def as_printed(self, tokens, index, options, env):
    """Set text as the book's pages do."""
    return unbroken_names(html.escape(printed(tokens[index].content)))


def formula(content, options):
    """Mark a formula as the book's pages do."""
    element, ends = ("div", "[]") if options["display_mode"] else ("span", "()")
    return (
        f'<{element} class="math notranslate">\\{ends[0]}{html.escape(content)}\\{ends[1]}'
        f"</{element}>"
    )


def colored(code, language, _):
    """Color Python."""
    return f"<pre {room(code)}>{highlight(code, PythonLexer(), COLORS)}</pre>"


def table(text, columns):
    """Give the HTML of a table's columns, and tell the style how many lines it takes."""
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]
    if columns:
        rows = [[row[int(number) - 1] for number in columns.split()] for row in rows]
    lines = sum(max(-(-len(cell) // CELL) for cell in row) for row in rows)
    style = f'style="--rows: {len(rows)}; --lines: {lines}"'
    head, body = rows[:2], rows[2:]
    half = -(-len(body) // 2) if len(rows) > LONG else len(body)
    made = "".join(
        render("\n".join(f"| {' | '.join(row)} |" for row in [*head, *part]))[0]
        for part in (body[:half], body[half:])
        if part
    )
    if len(rows) > LONG:
        return f'<div class="halves" {style}>{made}</div>'
    return made.replace("<table", f"<table {style}", 1)


def room(text):
    """Tell the style how many lines and columns are to fit."""
    lines = text.rstrip("\n").splitlines()
    return f'style="--rows: {len(lines)}; --columns: {max(map(len, lines))}"'


class Chapters:
    """What the chapters store, by chapter and name."""

    def __init__(self, pictures):
        self.pictures = pictures
        self.titles, self.texts, self.cells, self.quizzes = {}, {}, {}, {}
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            chapter, cells = path.name[:2], json.loads(path.read_text("utf-8"))["cells"]
            self.titles[chapter] = path.stem
            texts = ("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
            self.texts[chapter] = "\n\n".join(texts)
            self.quizzes[chapter] = path.parent / "quizzes" / f"{path.stem}.json"
            for cell in cells:
                for tag in cell["metadata"].get("tags", []):
                    if tag.startswith(TAG):
                        name = f"{chapter}/{tag.removeprefix(TAG)}"
                        if name in self.cells:
                            raise ExtensionError(f"Two cells of a chapter are tagged {name}")
                        self.cells[name] = cell

    def show(self, place, wanted):
        """Give the HTML of what a place asks for, and an answer for the notes."""
        kind, _, number = wanted.partition(" ")
        if kind == "exercise":
            return self._exercise(place, number), ""
        if kind == "quiz":
            return self._question(place, int(number))
        link = f'<p class="from"><a href="../notebooks/{self.titles[place[:2]]}.html">'
        link += f"Chapter {int(place[:2])}</a></p>" if place[:2] != "00" else "Quickstart</a></p>"
        return f"<figure>{self._shown(place, wanted)}</figure>{link}", ""

    def number(self, place, pattern):
        """Find a number in what a cell prints."""
        printed = "".join(self._printed(self._cell(place)))
        found = re.search(pattern, printed)
        if found is None:
            raise ExtensionError(f"{pattern} is not in what {place} prints:\n{printed}")
        return found[1]

    def _cell(self, place):
        if place not in self.cells:
            raise ExtensionError(f"No cell of chapter {place[:2]} is tagged {TAG}{place[3:]}")
        return self.cells[place]

    @staticmethod
    def _printed(cell):
        return ["".join(o["text"]) for o in cell.get("outputs", []) if o.get("name") == "stdout"]

    def _shown(self, place, wanted):
        cell = self._cell(place)
        if cell["cell_type"] == "markdown":
            return table(plain(TABLE.search("".join(cell["source"]))[0]), wanted)
        data = {}
        for output in cell["outputs"]:
            data |= {key: "".join(text) for key, text in output.get("data", {}).items()}
        if wanted or not set(data) & {"image/png", "text/html", "text/markdown"}:
            return self._lines(place, wanted)
        if "image/png" in data:
            alt = cell["metadata"]["mystnb"]["image"]["alt"]
            return self._picture(place, data["image/png"], alt)
        return data["text/html"] if "text/html" in data else render(data["text/markdown"])[0]

    def _lines(self, place, wanted):
        printed = "".join(self._printed(self._cell(place)))
        lines = [line for line in printed.splitlines() if re.search(wanted, line)]
        if not lines:
            raise ExtensionError(f"{place} prints no line with {wanted}")
        text = textwrap.dedent("\n".join(lines))
        return f"<pre {room(text)}>{html.escape(text)}</pre>"

    def _picture(self, place, png, alt):
        picture = Image.open(io.BytesIO(base64.b64decode(png)))
        name = f"{place.replace('/', '-')}.webp"
        picture.save(self.pictures / name, lossless=True, method=4)
        width, height = picture.size
        alt = html.escape(alt)
        return f'<img src="pictures/{name}" alt="{alt}" width="{width}" height="{height}">'

    def _exercise(self, chapter, number):
        found = re.search(
            rf"\*\*{number}\. .*?(?=\n\n\*\*\d|\n\n<details>|\n\n## |\Z)",
            self.texts[chapter],
            re.DOTALL,
        )
        if found is None:
            raise ExtensionError(f"Chapter {chapter} has no exercise {number}")
        return f'<div class="exercise">{render(plain(found[0]))[0]}</div>'

    def _question(self, chapter, number):
        asked = json.loads(self.quizzes[chapter].read_text("utf-8"))[number - 1]
        options = "".join(f"<li>{render(a['answer'])[0]}</li>" for a in asked["answers"])
        right = next(k for k, answer in enumerate(asked["answers"]) if answer["correct"])
        answer = f"\n\n**Expect:** {LETTERS[right]}. {asked['answers'][right]['feedback']}"
        question = f"{render(asked['question'])[0]}<ol>{options}</ol>"
        return f'<div class="question">{question}</div>', answer


def plain(text):
    """Make of a chapter's Markdown what stands for itself."""
    text = ROLE.sub(r"\1", TERM.sub(r"\1", text))
    return CHAPTER_LINK.sub(r"](../notebooks/\1.html)", text).replace(".md)", ".html)")


def main():
    """Build the decks alone, with what they need."""
    for name in ("vendor/reveal", "vendor/katex", "slides"):
        shutil.copytree(BOOK / "_static" / name, BUILT / "_static" / name, dirs_exist_ok=True)
    shutil.copy(BOOK / "_static" / "logo.svg", BUILT / "_static")
    build(BUILT)
    print(
        *(f"_build/html/slides/{deck.name}.html: {deck.title}" for deck in read_decks()), sep="\n"
    )


if __name__ == "__main__":
    main()
