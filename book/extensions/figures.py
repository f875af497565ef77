"""Give every picture of a cell a number and a caption: Figure 7.3 of a chapter, Figure 1 elsewhere.

A caption is the text that the cell's metadata give the picture (`mystnb: image: alt`), or the
title of a drawing. Whoever cannot see the picture hears it once, as the caption.
"""

import html
import re
from pathlib import Path

from docutils import nodes
from PIL import Image

CHAPTER = re.compile(r"notebooks/(\d+)_")
DRAWING = re.compile(r'<svg [^>]*class="drawing.*?<title[^>]*>(.*?)</title>', re.DOTALL)
# So many lines of code before a picture are folded where at least half of them draw.
LONG, DRAWS = 14, re.compile(r"\bax\b|\baxes\b|\bfigure\b|\bplt\.|\bplots\.|\.text\(|color|alpha=")
# In the page: a figure whose picture is a file.
PICTURE = re.compile(r'(<figure [^>]*\bnumbered\b[^>]*>\s*)(<img [^>]*\bsrc="([^"]+)"[^>]*>)')
# The place of a viewer (ct_viewer.py), which takes part in the count of a chapter.
VIEWER = '<div class="ct-viewer"'
PLAYED = "A picture to play with: move its sliders, and it changes"
# A line of a cell that does nothing but import.
IMPORTS = re.compile(r"import |from |sys\.path\.|[ )#]|$")
# On a telephone a picture is as wide as this share of its pixels: its smallest words stay 9 pixels.
READABLE = 0.46
# Elsewhere one that is as wide as all are fills the page, and a narrower one less: their words are
# of one size. In inches, with its margin.
WIDEST_IN = 6.5
DENSE = 150  # dots per inch: of fewer a picture is shown as large as it is


def setup(app):
    """Let Sphinx call the functions below."""
    app.connect("config-inited", without_numbers_of_its_own, priority=900)
    app.connect("doctree-read", number)
    app.connect("html-page-context", enlarge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_numbers_of_its_own(app, config):
    """Keep Sphinx from counting through the whole book, as Jupyter Book tells it to.

    Later than here it would seem that the configuration has changed, and each build would read
    all pages anew.
    """
    config.numfig = False


def number(app, doctree):
    """Make each picture of a page's outputs a figure."""
    chapter = CHAPTER.match(app.env.docname)
    within = [str(int(chapter[1]))] if chapter else []
    for cell in doctree.findall(nodes.container):
        if cell.get("hide_mode") == "input":
            name_folded(cell, what_it_is(cell.children[0].astext(), len(cell.children) > 1))
    pictures = [(node, text) for node in doctree.findall() if (text := caption_of(node))]
    if not chapter:
        pictures = [(node, text) for node, text in pictures if text != VIEWER]
    for count, (node, text) in enumerate(pictures, 1):
        place = [*within, str(count)]
        name, ident = f"Figure {'.'.join(place)}", "-".join(["figure", *place])
        if text == VIEWER:
            said = node.astext().replace(VIEWER, f'{VIEWER} data-figure="{name}"')
            node.replace_self(nodes.raw("", said, format="html"))
            continue
        figure = nodes.figure("", ids=[ident], names=[ident], classes=["numbered"])
        hide_long_code(node)
        node.replace_self(figure)
        if isinstance(node, nodes.image):
            node["alt"] = name  # what it shows is said right below
        caption = nodes.caption("", "", nodes.strong(text=f"{name}."), nodes.Text(f" {text}"))
        figure += [node, caption]
        doctree.note_explicit_target(figure)


def enlarge(app, page, template, context, doctree):
    """Say how wide a picture is to be, and let it open alone when it is pressed."""
    sources = {name: uri for uri, (_, name) in app.env.images.items()}

    def open_alone(found):
        source = sources.get(found[3].rpartition("/")[2])
        if source is None:
            return found[0]
        with Image.open(Path(app.srcdir, source)) as picture:
            width, height = picture.size
            dpi = picture.info.get("dpi", (0, 0))[0]
        image = found[2].replace("<img ", f'<img width="{width}" height="{height}" ', 1)
        share = f"{min(1, width / dpi / WIDEST_IN):.0%}" if dpi > DENSE else "auto"
        return (
            f'{found[1]}<a class="enlarge" href="{found[3]}" '
            f'style="--readable: {READABLE * width:.0f}px; --share: {share}">{image}</a>'
        )

    context["body"] = PICTURE.sub(open_alone, context.get("body", ""))


def caption_of(node):
    """Give the caption of what is a cell's picture, else nothing."""
    mime = node.parent.get("mime_type") if isinstance(node.parent, nodes.container) else None
    html_of_cell = node.astext() if isinstance(node, nodes.raw) and mime == "text/html" else ""
    if isinstance(node, nodes.image) and mime and "alt" in node:
        text = node["alt"]
    elif 'class="flipbook"' in html_of_cell:
        text = alt_of(node, PLAYED)
    elif title := DRAWING.search(html_of_cell):
        text = alt_of(node, html.unescape(title[1]))
    elif isinstance(node, nodes.raw) and not mime and VIEWER in node.astext():
        return VIEWER
    else:
        return None
    return text[0].upper() + text[1:].rstrip(".") + "."


def alt_of(node, otherwise):
    """Give the text that the metadata of a node's cell have for its picture."""
    cell = next((up for up in ancestors(node) if "cell_metadata" in up), {"cell_metadata": {}})
    return cell["cell_metadata"].get("mystnb", {}).get("image", {}).get("alt", otherwise)


def ancestors(node):
    """Walk up the elements that a node is in."""
    while (node := node.parent) is not None:
        yield node


def hide_long_code(node):
    """Fold the code of a picture where it is long and mostly draws."""
    cell = next((up for up in ancestors(node) if up.get("nb_element") == "cell_code"), None)
    if cell is None:
        return
    lines = [line for line in cell.children[0].astext().splitlines() if line.strip()]
    if (
        "hide_mode" not in cell
        and len(lines) >= LONG
        and sum(map(bool, map(DRAWS.search, lines))) >= len(lines) / 2
    ):
        cell["hide_mode"] = "input"
    elif cell.get("hide_mode") != "input" or len(cell.children[-1].children) > 1:
        return
    name_folded(cell, "the code of this picture")


def what_it_is(code, shows):
    """Give a name to what is folded, and shows something or does not."""
    if "google.colab" in code:
        return "the set-up for Google Colab"
    if "write_phantoms(" in code and not shows:
        return "the set-up"
    return "the imports" if all(map(IMPORTS.match, code.splitlines())) else "the code"


def name_folded(cell, what):
    """Say on the fold what is in it."""
    cell["prompt_show"], cell["prompt_hide"] = f"Show {what}", f"Hide {what}"
