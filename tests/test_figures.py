"""The book's numbers of figures, and what a second build costs."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx_jupyterbook_latex", reason="the extra book is not installed")
from sphinx.application import Sphinx

EXTENSIONS = Path(__file__).parents[1] / "book" / "extensions"


def build(folder, monkeypatch):
    """Build with the extension that Jupyter Book brings, which numbers figures, and with ours."""
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    settings = {"extensions": ["sphinx_jupyterbook_latex", "figures"], "numfig": True}
    app = Sphinx(folder, None, folder / "html", folder / "doctrees", "html", settings, status=None)
    read = []
    app.connect("source-read", lambda app, page, source: read.append(page))
    app.build()
    monkeypatch.delitem(sys.modules, "figures")
    return app.config.numfig, read


def test_sphinx_counts_no_figures_and_a_second_build_reads_no_page_again(tmp_path, monkeypatch):
    (tmp_path / "index.rst").write_text("Title\n=====\n", encoding="utf-8")
    assert build(tmp_path, monkeypatch) == (False, ["index"])
    assert build(tmp_path, monkeypatch) == (False, [])
