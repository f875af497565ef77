"""What Sphinx and its extensions put into the pages, mended where it asks or says too much."""

import re

# Sphinx sets the lines of a long signature as a list of definitions without terms.
SIGNATURE_LINES = re.compile(r'<dl>\n((?:<dd><em class="sig-param">.*</dd>\n)+)</dl>')
# A deprecated role, and the list that then has no items; a name that hides what a button says.
UNTRUE = (
    ' role="doc-biblioentry"',
    ' role="list"',
    ' aria-label="Toggle hidden content"',
)
# A quiz that finds MathJax not loaded yet fails, or loads another one from another host. Our
# quizzes have no formulas.
QUIZ_ASKS_FOR_MATHJAX = "typeof MathJax != 'undefined'", "false"
# A long name in code may break after a dot or an underscore.
NAME_IN_CODE = re.compile(r'(?<=<span class="pre">)[\w./]{12,}(?=[(<=])')
# An option of a command may not, after its hyphens.
OPTION_IN_CODE = '<span class="pre">-', '<span class="pre option">-'


def setup(app):
    """Connect the functions below to Sphinx."""
    app.connect("config-inited", without_thebe)
    app.connect("html-page-context", accessible)
    app.add_js_file("accessible.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_thebe(app, config):
    """Leave out Thebe, which nobody asked for: it takes its script from another host."""
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if one.handler.__module__ != "sphinx_thebe"]
    files = app.registry.css_files
    files[:] = [one for one in files if "thebe" not in one[0]]


def accessible(app, page, template, context, doctree):
    """Give a page the roles and elements that axe-core asks for."""
    context["default_mode"] = "auto"  # the theme's script calls "" an error
    body = context.get("body", "")
    for attribute in UNTRUE:
        body = body.replace(attribute, "")
    body = body.replace(*QUIZ_ASKS_FOR_MATHJAX)
    body = NAME_IN_CODE.sub(lambda name: re.sub(r"(?<=[._/])(?=\w)", "<wbr>", name[0]), body)
    body = body.replace(*OPTION_IN_CODE)
    context["body"] = SIGNATURE_LINES.sub(
        lambda lines: (
            '<div class="signature-lines">\n'
            + lines[1].replace("<dd>", "<div>").replace("</dd>", "</div>")
            + "</div>"
        ),
        body,
    )
