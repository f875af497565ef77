"""A word of a later chapter is linked where an earlier one first needs it.

The glossary names for each term the chapter that teaches it. A chapter before that one, in
reading order, leads to the glossary or to the teaching chapter by the paragraph of the first use
at the latest, or explains the word there itself: it stands in *italics* or **bold** then. The
quickstart is left out, as it tells of everything once.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))[1:]
# What the course takes for known: "you have trained a network once".
KNOWN = {
    *("batch", "channel", "convolution", "epoch", "float32", "learning rate", "loss", "mask"),
    *("optimizer", "ReLU", "seed", "standard deviation"),
}
EVERYDAY = {"accuracy", "air", "case", "plateau", "variant"}  # and more often not meant as a term
pytestmark = pytest.mark.skipif(not CHAPTERS, reason="the book is not there")


def taught():
    """The chapter that teaches each term, by the glossary."""
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    entries = re.split(r"\n\n(?=\S)", text.split("```{glossary}\n")[1].split("\n```")[0])
    found = {entry.split("\n")[0]: re.findall(r"\[Chapter\s+(\d+)\]", entry) for entry in entries}
    return {term: int(places[-1]) for term, places in found.items() if places}


def paragraphs(path):
    """The prose before the further reading, without code, formulas and the texts of links."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = re.sub(r"^#.*$", "", text.split("## Further reading")[0], flags=re.MULTILINE)
    text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.DOTALL)
    text = re.sub(r"(\{term\}`[^`]*`)|(?:\{[\w:]+\})?`[^`]*`", r"\1", text)
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=- )", text)]


def unexplained(path, terms):
    """Terms of later chapters that are used before anything leads to them, with the places."""
    number, found = int(path.stem[:2]), {}
    parts = paragraphs(path)
    for term in (t for t, n in terms.items() if n > number and t not in KNOWN | EVERYDAY):
        word = re.escape(term) if term[0].isupper() else f"(?i:{re.escape(term)})"
        used = re.compile(rf"(?<![\w*`<-]){word}s?(?![\w*`>-])")
        leads = re.compile(rf"`{term}`|<{term}>`|\*{word}s?\*|\]\({terms[term]:02}_")
        for part in parts:
            if leads.search(part):
                break
            if place := used.search(re.sub(r"\[[^\]]*\]\([^)]*\)", "", part)):
                found[term] = part[max(0, place.start() - 40) : place.end() + 40]
                break
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A `fold`, {term}`T <TuNet>`.\n\nTuNet has *folds*.\n\nA fold.", {}),
        ("A fold of {term}`patch`, by [TuNet](a).\n\nThe *fold*", {"fold": "A fold of {term"}),
        ("A fold ([chapter 10](10_a.ipynb)); tunet.\n\n## TuNet", {}),
        ("What TuNets do.", {"TuNet": "What TuNets do."}),
    ],
)
def test_what_is_not_explained_is_found(tmp_path, text, expected):
    path = tmp_path / "05_a.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": text}]}))
    found = unexplained(path, {"fold": 10, "TuNet": 7, "patch": 3})
    assert found.keys() == expected.keys()
    assert all(found[term].startswith(words) for term, words in expected.items())


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_term_is_used_before_it_is_explained(path):
    assert not unexplained(path, taught())
