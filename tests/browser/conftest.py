"""The built book in Debian's Chromium, with every other host out of reach: make browser."""

import contextlib
import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "_build" / "html"
SCREENSHOTS = ROOT / "_build" / "screenshots"
ARRIVED = "() => document.readyState === 'complete'"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def keep_screenshot(tab, name, **options):
    """Keep a picture to look at: ``make browser SCREENSHOTS=1``. They take as long as the tests."""
    if os.environ.get("SCREENSHOTS"):
        tab.screenshot(path=SCREENSHOTS / name, **options)


@pytest.fixture(scope="session")
def host():
    handler = functools.partial(QuietHandler, directory=BOOK)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def launch():
    """Give what starts Chromium, with arguments of one's own."""
    from playwright.sync_api import sync_playwright

    # Or, where neither is installed, Playwright's own.
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    # WebGL, for the viewer, drawn without a graphics card; pages themselves, which Debian's
    # Chromium would draw the same way, take half the time when they are not.
    arguments = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    arguments.append("--disable-gpu-rasterization")
    # A request to any other host fails, and is noted.
    arguments.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses it to root
    with sync_playwright() as playwright:
        yield lambda *own: playwright.chromium.launch(
            executable_path=executable, args=[*arguments, *own]
        )


@pytest.fixture(scope="session")
def browser(launch):
    browser = launch()
    yield browser
    browser.close()


class Visitor:
    """A reader's tab, which notes all that goes wrong in it."""

    def __init__(self, tab, host):
        self.tab, self.host, self.troubles = tab, host, []
        tab.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        tab.on("requestfailed", self._note_failure)
        tab.on("console", self._note_console)
        tab.on("response", self._note_response)

    def open(self, address):
        self.tab.goto(address if "://" in address else f"{self.host}/{address}")
        self.tab.wait_for_function(ARRIVED)

    def _note_failure(self, request):
        # Whoever leaves a page aborts what it was still loading from its own host.
        if request.url.startswith(self.host) and request.failure == "net::ERR_ABORTED":
            return
        self.troubles.append(f"failed: {request.url} ({request.failure})")

    def _note_console(self, message):
        if message.type == "error":
            self.troubles.append(f"console: {message.text}")

    def _note_response(self, response):
        if response.status >= 400:
            self.troubles.append(f"{response.status}: {response.url}")


def arrive(browser):
    """Give what a reader has who comes for the first time: nothing kept, nothing chosen."""
    return browser.new_context(color_scheme="light", viewport={"width": 1280, "height": 900})


@contextlib.contextmanager
def visit(context, host):
    """Give a tab, in which nothing may go wrong."""
    visitor = Visitor(context.new_page(), host)
    yield visitor
    visitor.tab.close()
    assert not visitor.troubles, "\n".join(visitor.troubles)


@pytest.fixture
def visitor(browser, host):
    with arrive(browser) as context, visit(context, host) as visitor:
        yield visitor


@pytest.fixture(scope="session")
def stay(browser):
    with arrive(browser) as context:
        yield context


@pytest.fixture
def returning_visitor(stay, host):
    """Give a tab to a reader whose browser keeps what the pages share.

    They open in half of the time.
    """
    with visit(stay, host) as visitor:
        yield visitor
