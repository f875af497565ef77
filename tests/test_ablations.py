"""What other pages say of chapter 16 is what its own code makes of its tables."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
CHAPTER = ROOT / "notebooks" / "16_ablations.ipynb"
CELLS = (  # that the chapter's numbers are computed by
    "import numpy as np",
    *("def noise(", "def read(", "TAUGHT = ", "def of_family(", "def test(", "def verdict("),
)
pytestmark = pytest.mark.skipif(not CHAPTER.exists(), reason="the book is not there")
FALSE = "false_kidney_ml"

QUOTES = (  # where, in which words, and what the numbers in them are
    ("03_patches", "uniformly they cost {} of the tumor's DSC", lambda c: -c.gain("2d_uniform")),
    ("03_patches", "marked {} ml more in healthy", lambda c: c.each("2d_uniform", FALSE).mean()),
    ("03_patches", "three seeds {}, {} and {} ml", lambda c: c.scores("2d_uniform", FALSE)),
    (
        "03_patches",
        "the same network with such sampling marked {}, {} and {}",
        lambda c: c.scores("2d", FALSE),
    ),
    ("03_patches", "the tumor is {} lower, which is a hint", lambda c: -c.gain("2d_1deg")),
    ("07_cascade", "sets {} TuNets beside", lambda c: len(c.scores("tunet"))),
    ("07_cascade", "beside {} U-Nets 3D", lambda c: len(c.scores("3d"))),
    ("14_results", "an SD of {} of the tumor DSC for a short U-Net 2D", lambda c: c.sd("2d")),
    ("14_results", "and of {} for a U-Net 3D", lambda c: c.sd("3d")),
    ("14_results", "raise a U-Net 3D's tumor DSC by {}", lambda c: c.gain("3d_half")),
    ("14_results", "{} seeds of three", lambda c: (c.each("3d_half") > 0).sum()),
    ("14_results", "seeds of {}, and after", lambda c: len(c.each("3d_half"))),
    ("results", "give a U-Net 3D {} more of the tumor", lambda c: c.gain("3d_half")),
    ("results", "tumor. {} seeds give no more", lambda c: len(c.each("3d_half"))),
    ("results", "loses {} of the tumor", lambda c: -c.gain("2d_uniform")),
    ("results", "drawn uniformly ({} seeds", lambda c: len(c.each("2d_uniform"))),
    ("results", "1° alone costs {} of the tumor", lambda c: -c.gain("2d_1deg")),
    ("results", "a hint, by {} seeds", lambda c: len(c.each("2d_1deg"))),
    ("results", "of such a network may differ by {}", lambda c: c.two_in_3d()),
)
VERDICTS = (  # what a page says of a row, in which words, and what the chapter calls it
    ("03_patches", "beyond the luck of a training", ["2d_uniform"], "**moved**"),
    ("03_patches", "lower, which is a hint and no more", ["2d_1deg"], "a hint"),
    ("04_losses_metrics", "no more than training again", ["2d_entropy"] * 2, "retraining noise"),
    ("07_cascade", "cannot tell their scores", ["tunet_first"] * 2, "retraining noise"),
    ("14_results", "asked there a hint and no more", ["3d_half"], "a hint"),
    ("results", "seeds give no more than a hint of it", ["3d_half"], "a hint"),
    ("results", "of the tumor: a hint, by", ["2d_1deg"], "a hint"),
)
WORDS = ("zero", "one", "two", "three", "four", "five", "six")


@pytest.fixture(scope="module")
def chapter():
    """The chapter's own functions, over the tables as they are now."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(CHAPTER.parent)
        patch.setattr(sys, "path", [*sys.path])
        for mark in CELLS:
            (cell,) = (text for text in code if mark in text)
            exec(cell, names)
    of = SimpleNamespace(**names)

    def each(name, field="tumor"):
        return of.pair_cases(of.rows, name.partition("_")[0], name, field=field).fold_means()

    def two_in_3d():
        return of.reach(*of.noise(of.of_family("3d", "tumor") + of.of_family("tunet", "tumor")), 1)

    return SimpleNamespace(
        each=each,
        gain=lambda name: each(name).mean(),
        scores=lambda name, field="tumor": of.fold_means(of.rows, name, field),
        sd=lambda base: of.noise(of.of_family(base, "tumor"))[0],
        two_in_3d=two_in_3d,
        verdict=lambda name, region: of.verdict((name, region)),
    )


def prose(where):
    path = ROOT / "notebooks" / f"{where}.ipynb"
    if path.exists():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        text = (ROOT / "book" / f"{where}.md").read_text(encoding="utf-8")
    return " ".join(text.split())


def as_quoted(value, quote):
    """Write a number as a quote has it: in words, or with as many decimals."""
    if quote.isalpha():
        return WORDS[value].capitalize() if quote[0].isupper() else WORDS[value]
    return f"{value:.{len(quote.partition('.')[2])}f}"


@pytest.mark.parametrize(("where", "words", "compute"), QUOTES)
def test_a_number_of_chapter_16_is_quoted_as_it_is(chapter, where, words, compute):
    pattern = re.escape(words).replace(r"\{\}", r"([\w.]*\w)")
    (found,) = re.finditer(pattern, prose(where))
    value = compute(chapter)
    values = value if isinstance(value, list) else [value]
    expected = [as_quoted(*pair) for pair in zip(values, found.groups(), strict=True)]
    assert found[0] == words.format(*expected)


@pytest.mark.parametrize(("where", "words", "rows", "verdict"), VERDICTS)
def test_a_verdict_of_chapter_16_is_told_as_it_is(chapter, where, words, rows, verdict):
    """Of a row that is there twice, of the tumor and of the whole."""
    assert prose(where).count(words) == 1
    for name, region in zip(rows, ("tumor", "whole"), strict=False):
        assert chapter.verdict(name, region) == verdict
