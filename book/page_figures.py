"""What a page of the built book weighs, and how soon it shows: python book/page_figures.py.

Writes book/results/pages.csv: for each page, opened at 1280 and at 390 px with nothing cached, the
bytes (not compressed) and requests until it stands still, and the time to the first paint.
"""

from __future__ import annotations

import csv
import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

from playwright.sync_api import Browser, Request, sync_playwright

BOOK = Path(__file__).parents[1] / "_build" / "html"
TABLE = Path(__file__).parent / "results" / "pages.csv"
WIDTHS = (1280, 390)
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serve files and say nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Measure every page of the table of contents."""
    pages = [*sorted((BOOK / "book").glob("*.html")), *sorted((BOOK / "notebooks").glob("*.html"))]
    handler = functools.partial(QuietHandler, directory=BOOK)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    # Chromium refuses its sandbox to root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    rows: list[tuple[object, ...]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        for page in pages:
            name = page.relative_to(BOOK).as_posix()
            for width in WIDTHS:
                address = f"http://127.0.0.1:{server.server_port}/{name}"
                rows.append((name, width, *measure(browser, address, width)))
        browser.close()
    server.shutdown()
    with TABLE.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(["page", "width_px", "weight_bytes", "requests", "first_paint_ms"])
        lines.writerows(rows)


def measure(browser: Browser, address: str, width: int) -> tuple[int, int, int]:
    """Open a page with nothing cached: bytes, requests, and milliseconds to the first paint."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    tab = context.new_page()
    finished: list[Request] = []
    tab.on("requestfinished", lambda one: finished.append(one))
    tab.goto(address, wait_until="networkidle")
    sizes = [one.sizes()["responseBodySize"] for one in finished]
    paint_ms = tab.wait_for_function(FIRST_PAINT).json_value()
    context.close()
    return sum(sizes), len(sizes), round(paint_ms)


if __name__ == "__main__":
    main()
