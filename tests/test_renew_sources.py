"""A chapter that shows an older library is found, and renewed without a run."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tunet_lib.comparison import holm
from tunet_lib.course import show_source

PATH = Path(__file__).parents[1] / "book" / "renew_sources.py"
pytestmark = pytest.mark.skipif(not PATH.exists(), reason="the book is not there")


@pytest.fixture
def renew(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("renew_sources", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["renew_sources.py", *map(str, arguments)])
        module.main()
        return capsys.readouterr().out

    return run


def code(source, *outputs):
    return {"cell_type": "code", "metadata": {}, "source": [source], "outputs": list(outputs)}


def markdown(text):
    return {"output_type": "execute_result", "data": {"text/markdown": [text]}}


@pytest.fixture
def chapter(tmp_path):
    warning = {"output_type": "stream", "name": "stderr", "text": ["not its source"]}
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["show_source(nothing)"]},
        code("!echo not Python"),
        code("from tunet_lib import comparison\nfrom tunet_lib.course import show_source"),
        code("show_source(comparison.holm)", warning, markdown("old")),
    ]
    path = tmp_path / "chapter.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return path


def test_an_old_source_is_named_and_left(renew, chapter):
    before = chapter.read_bytes()
    with pytest.raises(SystemExit, match="older library"):
        renew("--check", chapter)
    assert chapter.read_bytes() == before


def test_an_old_source_is_renewed_and_then_is_none(renew, chapter):
    assert renew(chapter) == f"{chapter}: show_source(comparison.holm)\n"
    warning, shown = json.loads(chapter.read_text(encoding="utf-8"))["cells"][-1]["outputs"]
    assert warning["text"] == ["not its source"]
    assert "".join(shown["data"]["text/markdown"]) == show_source(holm).data
    assert renew("--check", chapter) == ""
