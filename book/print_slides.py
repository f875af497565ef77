"""Print each deck of slides twice, without and with its notes: make slides-pdf."""

import os
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

BUILT = Path(__file__).parents[1] / "_build"
PDFS = BUILT / "slides"
# Reveal's own way to paper, and what comes between two slides there.
KINDS = {"": "?print-pdf", "-notes": "?print-pdf&showNotes=separate-page"}


def main() -> None:
    """Print them."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    # Chromium refuses its sandbox to root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    PDFS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        tab = browser.new_page(color_scheme="light", viewport={"width": 1280, "height": 720})
        for deck in sorted((BUILT / "html" / "slides").glob("*.html")):
            for kind, query in KINDS.items():
                path = PDFS / f"{deck.stem}{kind}.pdf"
                tab.goto(deck.as_uri() + query)
                tab.wait_for_selector(".pdf-page")
                tab.wait_for_function("[...document.images].every((image) => image.complete)")
                tab.pdf(path=path, prefer_css_page_size=True, print_background=True, tagged=True)
                print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        browser.close()


if __name__ == "__main__":
    main()
