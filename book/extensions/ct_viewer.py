"""The viewer of CTs in the pages.

``<div class="ct-viewer" data-case="typical"></div>`` in a page or a chapter becomes a figure: a
picture, and a button that opens the case in three planes and in 3-D. Cases are those that
``book/page_files.py`` makes.
"""

import html
import json
import re
from pathlib import Path

MADE = Path(__file__).parents[1] / "_static" / "made"
# In a chapter `figures.py` puts the figure's number there, too.
PLACE = re.compile(r'<div class="ct-viewer"(?: data-figure="([\w .]+)")? data-case="(\w+)"></div>')
SEGMENT_PAGE = "book/segment"
FIGURE = """<figure class="ct-viewer" data-case="{name}">
<img src="{picture}" alt="{alt}" width="768">
<button type="button" hidden>Move through it, in three planes and in 3-D ({mb:.1f} MB)</button>
<figcaption>{caption}</figcaption>
</figure>"""
NIIVUE_MB = 0.8  # compressed, as servers send it


def setup(app):
    """Connect the functions below to Sphinx."""
    app.connect("html-page-context", with_viewers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def with_viewers(app, page, template, context, doctree):
    """Put a figure into each place for one, and the scripts into pages that have any."""
    body = context.get("body", "")
    if page != SEGMENT_PAGE and not PLACE.search(body):
        return
    app.add_js_file("viewer.js")
    app.add_css_file("viewer.css")
    if page == SEGMENT_PAGE:
        app.add_js_file("segment/page.js", type="module")
    cases = json.loads((MADE / "cases.json").read_text(encoding="utf-8"))

    def figure(place):
        number, name = place.groups()
        megabytes = (MADE / f"{name}.js").stat().st_size / 1e6 + NIIVUE_MB
        case_id = cases[name].removeprefix("case_")
        text = f"Phantom {case_id}, a synthetic CT with two kidneys and a tumor"
        begin = f"<strong>{number}.</strong> " if number else ""
        return FIGURE.format(
            name=name,
            picture=context["pathto"](f"_static/made/{name}.webp", 1),
            alt=html.escape(f"{text}: coronal, sagittal and axial slices with the true outlines"),
            mb=megabytes,
            caption=f"{begin}{text}: blue is the true outline of kidney and tumor, orange that of "
            "the tumor. Opened, it shows what the networks found, or again the truth.",
        )

    context["body"] = PLACE.sub(figure, body)
