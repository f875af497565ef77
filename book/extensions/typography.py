"""Text as it is printed: signs in place of hyphens and letters, and no line broken within a number.

A chapter and a quiz are typed on a keyboard, which has no minus; pages and slides show one.
"""

import re

from docutils import nodes
from figures import ancestors
from sphinx import addnodes

# Typed → printed: a sign before a number, and between two things that are computed.
SIGN = re.compile(r"(?<![\w.–-])-(?=\.?\d|[a-z]\b)")
MINUS = re.compile(r"(?<=[\d)]) - (?=[\w(])|(?<=\b\w) - (?=[\w(])|(?<=\w) - (?=[\d(])")
TIMES = re.compile(r"(?<=[\d)]) [x*] (?=[\w(])")
# A number and its unit stay in one line, and its error, what it is the number or value of, or a
# small sum; in a table also the two ends of an interval. Where the text breaks in its file, it
# holds a line's end in place of a space.
UNIT = re.compile(
    r"(?<=\d)\s(?=(?:%|HU|ml|mm|cm|kB|MB|GB)(?!\w))|(?:(?<=\bEq\.)|(?<=\bFig\.)|(?<=\bTable)"
    r"|(?<=\bAlgorithm)|(?<=\b[Cc]hapter)|(?<=\bLine)|(?<=\bline))\s(?=\d)"
)
SUM = re.compile(
    r"(?<=[\d½¼²³)])\s([±·×/+−])\s(?=\(?−?[\d½¼])|(?<=\d)\s(×)\s(?=[a-z])"
    r"|(?<=\b\w)\s(=)\s(?=[-−]?\d|\w\b)|\s([∪∩])\s|(?<=\w\|)\s(/)\s(?=\|)"
)
INTERVAL = re.compile(r"(?<=\d)\s(to)\s(?=[-−+]?\d)")
# What would break after a hyphen that is part of a name or a number.
NAME = re.compile(r"\b(?:[LTUW]|nnU)-Nets?\b|\b\d+e-\d+\b")
# The text of a quiz, in the script that asks it.
ASKED = re.compile(r'("(?:question|answer|feedback)": ")((?:[^"\\]|\\.)*)')
# A quiz is Markdown still, whose code and formulas are no text.
PART_OF_QUIZ = re.compile(r"(?P<kept>`[^`]*`|\$[^$]*\$)|(?P<text>[^`$]+|[`$])")
AS_WRITTEN = (nodes.literal, nodes.FixedTextElement, nodes.raw, nodes.math, nodes.math_block)


def setup(app):
    """Let Sphinx call the functions below."""
    app.connect("doctree-read", link_endings)
    app.connect("doctree-read", join_lines)
    app.connect("doctree-read", set_text)
    app.connect("html-page-context", set_quizzes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def printed(text):
    """Give the text with its signs, and with spaces at which no line is broken."""
    text = SIGN.sub("\N{MINUS SIGN}", text)
    text = MINUS.sub(" \N{MINUS SIGN} ", text)
    text = TIMES.sub(" \N{MULTIPLICATION SIGN} ", text)
    return SUM.sub(unbroken, UNIT.sub("\N{NO-BREAK SPACE}", text))


def unbroken(found):
    """Give what was found with spaces at which no line is broken."""
    return re.sub(r"\s", "\N{NO-BREAK SPACE}", found[0])


def unbroken_names(page):
    """Keep the names in some HTML in one line."""
    return NAME.sub(r"<span class='unbroken'>\g<0></span>", page)


def link_endings(app, doctree):
    """Take the rest of a word into its link: of a term of the glossary, and an s behind it."""
    for link in doctree.findall(addnodes.pending_xref):
        behind = link.next_node(descend=False, siblings=True)
        ending = re.match("[a-z]+", behind) if isinstance(behind, nodes.Text) else None
        if ending and link["reftype"] == "term":
            *_, word = link.findall(nodes.Text)
            word.parent.replace(word, nodes.Text(word + ending[0]))
            behind.parent.replace(behind, nodes.Text(behind[ending.end() :]))


def join_lines(app, doctree):
    """Join the lines of a text, between which Markdown's parser has put ends of lines."""
    for element in list(doctree.findall(nodes.TextElement)):
        joined = []
        for child in element.children:
            if joined and isinstance(child, nodes.Text) and isinstance(joined[-1], nodes.Text):
                joined[-1] = nodes.Text(joined[-1] + child)
            else:
                joined.append(child)
        if len(joined) < len(element.children):
            element[:] = joined


def set_text(app, doctree):
    """Set all text of a page but code, formulas and titles, which a search looks for."""
    for text in list(doctree.findall(nodes.Text)):
        above = [text.parent, *ancestors(text.parent)]
        if isinstance(text.parent, AS_WRITTEN) or any(
            isinstance(up, nodes.title | addnodes.desc_signature) for up in above
        ):
            continue
        kept = printed(text)
        if any(isinstance(up, nodes.entry) for up in above):
            kept = INTERVAL.sub(unbroken, kept)
        parts = re.split(f"({NAME.pattern})", kept)
        if len(parts) > 1 or kept != text:
            text.parent.replace(text, [part_of_text(part) for part in parts if part])


def part_of_text(part):
    """Make a node of text, or of a name that does not break."""
    if NAME.fullmatch(part):
        return nodes.inline("", part, classes=["unbroken"])
    return nodes.Text(part)


def set_quizzes(app, page, template, context, doctree):
    """Set the text of quizzes, but for code and formulas."""
    context["body"] = ASKED.sub(
        lambda found: found[1] + PART_OF_QUIZ.sub(printed_part, found[2]), context.get("body", "")
    )


def printed_part(found):
    """Give the text of a quiz as it is printed, and its code and formulas as they are."""
    return found["kept"] or unbroken_names(printed(found["text"]))
