"""Print the whole book, built as one page, into one PDF: make pdf.

What is left out on paper is in `book/_static/custom.css`; `accessible.js` unfolds solutions.
"""

import os
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

BUILT = Path(__file__).parents[1] / "_build"
SINGLE, PDF = BUILT / "singlehtml", BUILT / "tunet-book.pdf"
FOOTER = (
    '<div style="font-size: 8px; width: 100%; text-align: center">'
    '<span class="pageNumber"></span></div>'
)
# What a book wants and a single page does not: the contents on a sheet of their own, and a new
# sheet for each chapter.
STYLE = """
#jb-print-docs-body { break-after: page; }
#jb-print-docs-body h1 { font-size: 2.6rem; font-weight: 700; text-align: left; }
#jb-print-toc nav { columns: 2; }
#jb-print-toc nav ul { break-inside: avoid; }
.toctree-wrapper > section { break-before: page; }
.toctree-wrapper > section > h2 { border: 0; font-size: 2.2rem; font-weight: 700; margin-top: 0; }
"""


def main() -> None:
    """Print it."""
    # Sphinx writes the page into the folder of its first chapter, with paths from the one above.
    page = SINGLE / "all.html"
    shutil.copyfile(SINGLE / "book" / "intro.html", page)
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    # Chromium refuses its sandbox to root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        tab = browser.new_page(color_scheme="light")
        tab.set_default_timeout(300_000)
        tab.goto(page.as_uri())
        tab.add_style_tag(content=STYLE)
        tab.pdf(
            path=PDF,
            format="A4",
            print_background=True,
            scale=0.75,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            margin={"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
            outline=True,
            tagged=True,
        )
        browser.close()
    print(f"{PDF}: {PDF.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
