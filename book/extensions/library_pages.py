"""The library's pages: docstrings and signatures, which are written to be read in an editor too."""

import dataclasses
import inspect
import itertools
import re

from docutils import nodes
from sphinx import addnodes
from sphinx.util.inspect import stringify_signature

# A chapter by its file, in a docstring; and a chapter's number before its link.
FILE = re.compile(r"(?:``)?(?P<path>notebooks/0?(?P<number>\d+)_\w+)\.ipynb(?:``)?")
NUMBERED = re.compile(r"\b0?(\d+) \((:doc:`\1 <[^>]+>`)\)")
BOTH = re.compile(r"\b0?(\d+) and 0?(\d+) \((:doc:`\1 <[^>]+>`), (:doc:`\2 <[^>]+>`)\)")
TO = re.compile(r"\b0(\d) to 0?(\d+)\b")
PAGE = re.compile(r"the paper map \(``(book/paper_map)\.md``\)")
BETWEEN = " \N{EN DASH} "  # Sphinx has it between a parameter and what it is


def setup(app):
    """Let Sphinx call the functions below."""
    app.connect("autodoc-skip-member", said_by_its_class)
    app.connect("autodoc-process-docstring", link_chapters)
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("doctree-read", say_once)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def said_by_its_class(app, what, name, obj, skip, options):
    """Leave out the fields of a named tuple, which its docstring lists: they say a number only."""
    return True if (inspect.getdoc(obj) or "").startswith("Alias for field number") else None


def link_chapters(app, what, name, obj, options, lines):
    """Make links of the chapters that a module's docstring names."""
    if what == "module":
        text = FILE.sub(r":doc:`\g<number> </\g<path>>`", "\n".join(lines))
        text = BOTH.sub(r"\3 and \4", NUMBERED.sub(r"\2", text))
        text = TO.sub(r"\1 to \2", text)
        lines[:] = PAGE.sub(r":doc:`the paper map </\1>`", text).split("\n")


def readable_signature(app, what, name, obj, options, signature, returns):
    """Give a class the parameters of its own, without private ones, and defaults that are values.

    Keras puts a signature in front of a layer's, and a protocol has one that nobody calls.
    """
    if what != "class" or not signature:
        return None
    own = obj.__dict__.get("__init__")
    if dataclasses.is_dataclass(obj):
        found = inspect.signature(obj)
        made = {field.name: field.default_factory for field in dataclasses.fields(obj)}
        parameters = [
            one.replace(default=made[one.name]()) if "factory" in repr(one.default) else one
            for one in found.parameters.values()
            if not one.name.startswith("_")
        ]
    elif signature == "(*args, **kwargs)":
        if not inspect.isfunction(own) or getattr(obj, "_is_protocol", False):
            return "", returns
        found = inspect.signature(own)
        parameters = list(found.parameters.values())[1:]
    else:
        return None
    shown = found.replace(parameters=parameters, return_annotation=found.empty)
    return stringify_signature(shown, unqualified_typehints=True), returns


def say_once(app, doctree):
    """Join parameters that follow each other and have one description between them.

    A docstring says it once, and napoleon repeats it for each name.
    """
    for field in doctree.findall(nodes.field):
        items = list(field.findall(nodes.list_item))
        for before, item in itertools.pairwise(items):
            texts = [one.astext().partition(BETWEEN) for one in (before, item)]
            name = next(iter(item.findall(addnodes.literal_strong)), None)
            if name is None or not texts[1][2] or texts[0][2] != texts[1][2]:
                continue
            first = next(iter(item.findall(nodes.paragraph)))
            names = [one.deepcopy() for one in before.findall(addnodes.literal_strong)]
            joined = [part for one in names for part in (one, nodes.Text(", "))]
            place = first.index(name)
            first[place:place] = joined
            before.parent.remove(before)
