"""Give every picture of a chapter a number and a caption: Figure 7.3.

A caption is the text that the cell's metadata give the picture (`mystnb: image: alt`), or the
title of a drawing. Whoever cannot see the picture hears it once, as the caption.
"""

import html
import re

from docutils import nodes

CHAPTER = re.compile(r"notebooks/(\d+)_")
DRAWING = re.compile(r'<svg [^>]*class="drawing.*?<title[^>]*>(.*?)</title>', re.DOTALL)
# So many lines of code before a picture are folded where at least half of them draw.
LONG, DRAWS = 14, re.compile(r"\bax\b|\baxes\b|\bfigure\b|\bplt\.|\bplots\.|\.text\(|color|alpha=")
# In the page: a figure whose picture is a file.
PICTURE = re.compile(r'(<figure [^>]*\bnumbered\b[^>]*>\s*)(<img [^>]*\bsrc="([^"]+)"[^>]*>)')
PLAYED = "A picture to play with: move its sliders, and it changes."


def setup(app):
    """Let Sphinx call the functions below."""
    app.connect("builder-inited", without_numbers_of_its_own, priority=900)
    app.connect("doctree-read", number)
    app.connect("html-page-context", enlarge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_numbers_of_its_own(app):
    """Keep Sphinx from counting through the whole book, as Jupyter Book tells it to."""
    app.config.numfig = False


def number(app, doctree):
    """Make each picture of a chapter's outputs a figure."""
    chapter = CHAPTER.match(app.env.docname)
    if not chapter:
        return
    pictures = [(node, text) for node in doctree.findall() if (text := caption_of(node))]
    for count, (node, text) in enumerate(pictures, 1):
        name = f"Figure {int(chapter[1])}.{count}"
        ident = f"figure-{int(chapter[1])}-{count}"
        figure = nodes.figure("", ids=[ident], names=[ident], classes=["numbered"])
        hide_long_code(node)
        node.replace_self(figure)
        if isinstance(node, nodes.image):
            node["alt"] = name  # what it shows is said right below
        caption = nodes.caption("", "", nodes.strong(text=f"{name}."), nodes.Text(f" {text}"))
        figure += [node, caption]
        doctree.note_explicit_target(figure)


def enlarge(app, page, template, context, doctree):
    """Let a picture that is pressed open alone, where a telephone shows all of its pixels."""
    body = context.get("body", "")
    context["body"] = PICTURE.sub(r'\1<a class="enlarge" href="\3">\2</a>', body)


def caption_of(node):
    """Give the caption of what is a cell's picture, else nothing."""
    mime = node.parent.get("mime_type") if isinstance(node.parent, nodes.container) else None
    if isinstance(node, nodes.image) and mime and "alt" in node:
        text = node["alt"]
    elif isinstance(node, nodes.raw) and mime == "text/html" and 'class="flipbook"' in node[0]:
        text = PLAYED
    elif isinstance(node, nodes.raw) and mime == "text/html" and (title := DRAWING.search(node[0])):
        text = html.unescape(title[1])
    else:
        return None
    return text[0].upper() + text[1:].rstrip(".") + "."


def hide_long_code(node):
    """Fold the code of a picture where it is long and mostly draws."""
    while node is not None and node.get("nb_element") != "cell_code":
        node = node.parent
    if node is None or "hide_mode" in node:
        return
    code = node.children[0].astext()
    lines = [line for line in code.splitlines() if line.strip()]
    if len(lines) >= LONG and sum(map(bool, map(DRAWS.search, lines))) >= len(lines) / 2:
        node["hide_mode"] = "input"
        node["prompt_show"] = "Show the code of this picture"
        node["prompt_hide"] = "Hide the code of this picture"
