"""What chapters share: the strip "you are here", one look of solutions, words for the search."""

import html
import json
import re
import textwrap
from pathlib import Path

from docutils import nodes
from slides import read_decks

from tunet_lib import drawings
from tunet_lib.config import Config

CHAPTER = re.compile(r"notebooks/(\d+)_")
# What a page holds where it wants the drawing of the whole chain.
ASKED = '<div class="chain"></div>'
# Step of the chain → the chapter that explains it.
EXPLAINED = {
    "ct": "notebooks/01_kits19",
    "grid": "notebooks/02_preprocess",
    "lnet": "notebooks/06_lnet",
    "wnet": "notebooks/07_cascade",
    "tnet": "notebooks/07_cascade",
    "ensemble": "notebooks/12_ensemble",
    "algorithm_1": "notebooks/13_postprocess",
    "label": "notebooks/11_inference",
}

# A solution in code is a hidden cell, one in words a <details>: both become the same box.
SOLUTION_IN_CODE = re.compile(
    r'(<div class="cell [^"]*tag_hide-cell[^"]*">\s*)<details class="admonition[^"]*">\s*'
    r"<summary>.*?</summary>",
    re.DOTALL,
)
SOLUTION_IN_WORDS = re.compile(r"<details>\s*<summary>(Solution[\w ]*)</summary>")
# An entry of the glossary, and the chapter at its end.
TERM = re.compile(r"^(\S.*)\n(?:  .*\n)*?  .*\[Chapter (\d+)\]\([^)]*\)\n(?!  )", re.MULTILINE)
SHORT = 9  # letters
STEP_IN = "\N{EM SPACE}"  # before a step within steps, in a table
# Spellings and names that the book does not use, for the search.
SYNONYMS = {
    "tumor": "tumour tumours cancer lesion",
    "whole": "organ",
    "preprocess": "preprocessing",
    "color": "colour",
    "center": "centre",
    "region growing": "hysteresis",
    "Dice": "F1 overlap Sorensen",
    "label map": "mask annotation",
    "gray": "grey",
}


def setup(app):
    """Connect the functions below to Sphinx."""
    app.connect("doctree-read", add_synonyms)
    app.connect("doctree-read", mark_counted)
    app.connect("doctree-read", mark_indented)
    app.connect("html-page-context", style_solutions)
    app.connect("html-page-context", draw_chain)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", tell_search)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_synonyms(app, doctree):
    """Let the search find a page by other words than its own."""
    text = doctree.astext()
    words = [word for ours, theirs in SYNONYMS.items() if ours in text for word in theirs.split()]
    if words:
        doctree.insert(0, nodes.meta("", name="keywords", content=", ".join(words)))


def tell_search(app, page, template, context, doctree):
    """Tell the search which chapter teaches which term of the glossary."""
    if page == "search":
        glossary = Path(app.srcdir, "book", "glossary.md").read_text(encoding="utf-8")
        taught = {term.lower(): int(chapter) for term, chapter in TERM.findall(glossary)}
        app.add_js_file(None, body=f"const TAUGHT_IN = {json.dumps(taught)};")


def mark_counted(app, doctree):
    """Mark tables that begin with a number or a short word, which needs no room on a telephone."""
    for table in doctree.findall(nodes.table):
        if all(len(row[0].astext()) <= SHORT for row in table.findall(nodes.row)):
            table["classes"].append("counted")


def mark_indented(app, doctree):
    """Mark the cells of a table whose text is stepped in, so that all its lines are."""
    for entry in doctree.findall(nodes.entry):
        steps = len(entry.astext()) - len(entry.astext().lstrip(STEP_IN))
        if steps:
            first = next(entry.findall(nodes.Text))
            first.parent.replace(first, nodes.Text(first.lstrip(STEP_IN)))
            entry["classes"].append(f"indented-{steps}")


def style_solutions(app, page, template, context, doctree):
    """Give solutions in code and in words one class and one wording."""
    body = context.get("body", "")
    body = SOLUTION_IN_CODE.sub(
        r'\1<details class="solution"><summary>Solution in code</summary>', body
    )
    context["body"] = SOLUTION_IN_WORDS.sub(
        r'<details class="solution"><summary>\1</summary>', body
    )


def draw_chain(app, page, template, context, doctree):
    """Put the strip "you are here" on top of a chapter, and the drawing where a page asks."""
    body = context.get("body", "")
    links = {step: context["pathto"](chapter) for step, chapter in EXPLAINED.items()}
    if chapter := CHAPTER.match(page):
        here = strip(int(chapter[1]), links)
        if app.builder.name == "html":  # on paper there are no decks
            here = here.replace("</p></nav>", slides_of(page, context["pathto"]) + "</p></nav>")
        body = body.replace("</h1>", "</h1>" + here, 1)
    elif ASKED in body:
        drawing = drawings.draw_chain(Config.preset("course"), links=links)
        body = body.replace(ASKED, drawing._repr_html_())
    context["body"] = body


def strip(chapter, links):
    """Draw the steps of the chain in one line, with those of a chapter lit."""
    here, words = drawings.HERE[chapter]
    steps = "".join(
        f'<li{" class=here" if name in here else ""}><a href="{links[name]}">'
        f'<svg viewBox="0 0 24 24" aria-hidden="true">{drawings.ICONS[name]}</svg>'
        f"<span>{step.name}</span></a></li>"
        for name, step in drawings.STEPS.items()
    )
    return (
        f'<nav class="chain-strip" aria-label="Steps of the method"><ol>{steps}</ol>'
        f"<p><strong>You are here:</strong> {words}.</p></nav>"
    )


def slides_of(page, pathto):
    """Link to the decks of slides that show a chapter."""
    decks = [deck for deck in read_decks() if page.removeprefix("notebooks/") in deck.chapters]
    return "".join(
        f' Slides: <a href="{pathto(f"slides/{deck.name}.html", 1)}">{html.escape(deck.title)}</a>.'
        for deck in decks
    )


def describe(app, page, template, context, doctree):
    """Say what a page is about to whoever links to it: title, first words and a picture."""
    if doctree is None:
        return
    prose = [p for p in doctree.findall(nodes.paragraph) if not isinstance(p.parent, nodes.entry)]
    words = prose[0].astext() if prose else app.config.html_title
    words = textwrap.shorten(words, 200, placeholder=" …")
    owner, repository = app.config.html_theme_options["repository_url"].split("/")[-2:]
    site = f"https://{owner}.github.io/{repository}"  # where the workflow `book` puts it
    said = {
        "og:title": re.sub("<[^>]+>", "", context.get("title", "")),
        "og:description": words,
        "og:type": "article",
        "og:url": f"{site}/{page}.html",
        "og:image": f"{site}/_static/result.png",
        "og:image:alt": "A slice of a CT, the true outlines of kidney and tumor, and those found",
    }
    tags = [f'<meta property="{key}" content="{html.escape(said[key])}" />' for key in said]
    if 'name="description"' not in context.get("metatags", ""):
        tags.append(f'<meta name="description" content="{html.escape(words)}" />')
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags])
