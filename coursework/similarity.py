"""Which papers have code in common, beyond what was given and whatever its names are."""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Mapping, Sequence
from itertools import combinations
from zlib import crc32

GRAM = 12  # tokens that have to agree in a row
WINDOW = 8  # of so many fingerprints the least is kept (winnowing, Schleimer et al. 2003)
LEAST = 10  # fingerprints, below which a share means nothing


def fingerprints(sources: Sequence[str]) -> set[int]:
    """Give the fingerprints of a paper: of runs of tokens, in which all names are alike."""
    found: set[int] = set()
    for source in sources:
        kinds = _tokens(source)
        hashes = [
            crc32(" ".join(kinds[n : n + GRAM]).encode()) for n in range(len(kinds) - GRAM + 1)
        ]
        for first in range(max(1, len(hashes) - WINDOW + 1)):
            found |= {min(hashes[first : first + WINDOW])} if hashes else set()
    return found


def similarities(
    papers: Mapping[str, Sequence[str]], given: Sequence[str]
) -> list[tuple[float, str, str]]:
    """Compare all pairs of papers.

    Parameters
    ----------
    papers
        Name → the code of each cell.
    given
        The cells that every student got; what is in them is no sign of anything.

    Returns
    -------
    list of tuple
        Share in common, 0 to 1 (of the shorter paper), and both names; the largest first.
    """
    known = fingerprints(given)
    prints = {name: fingerprints(sources) - known for name, sources in papers.items()}
    pairs = []
    for (a, of_a), (b, of_b) in combinations(prints.items(), 2):
        fewer = min(len(of_a), len(of_b))
        if fewer >= LEAST:
            pairs.append((len(of_a & of_b) / fewer, a, b))
    return sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))


def _tokens(source: str) -> list[str]:
    kinds: list[str] = []
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                kinds.append("name")
            elif token.type == tokenize.STRING:
                kinds.append("text")
            elif token.type not in skipped:
                kinds.append(token.string)
    except (tokenize.TokenError, IndentationError, SyntaxError):
        pass  # up to where it can be read
    return kinds
