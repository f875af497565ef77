"""Every page as a reader meets it, on a desk and on a telephone, in light and in dark."""

import contextlib
import importlib
import json
import os
import re
import sys

import pytest

from .conftest import BOOK, ROOT, keep_screenshot

sys.path.append(str(ROOT / "book" / "extensions"))

from typography import printed

pytestmark = pytest.mark.browser

AXE = ROOT / "book" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
TALLEST = 8_000  # pixels of a picture; beyond 8192 Chromium paints a page's beginning again
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]

PAGES = {
    str(path.relative_to(BOOK)): path.read_text("utf-8") for path in sorted(BOOK.rglob("*.html"))
}
PAGES = {
    name: text
    for name, text in PAGES.items()
    if not name.startswith(("_static", "reports", "slides"))
}
# In which widths and themes a page is looked at.
VIEWS = {1280: ("dark", "light"), 390: ("dark", "light")}


# Of the words that look alike in one piece of code, all but the last become plain text. They are
# two thirds of a chapter's elements, and for each of them axe-core looks at what lies behind.
THIN_OUT_CODE = """() => {
  for (const code of document.querySelectorAll("pre, code, dt.sig")) {
    const seen = new Set();
    for (const word of [...code.querySelectorAll(":is(span, em)[class]:not([id])")].reverse()) {
      const look = word.parentElement.className + "/" + word.className;
      if (word.childElementCount === 0 && seen.has(look)) word.replaceWith(word.textContent);
      seen.add(look);
    }
    code.normalize();
  }
}"""
# axe-core's rules for which a theme makes no difference: neither of colors nor of pictures.
THE_SAME_IN_EACH_THEME = """() => Object.fromEntries(axe.getRules()
  .filter(({tags}) => !tags.includes("cat.color") && !tags.includes("cat.text-alternatives"))
  .map(({ruleId}) => [ruleId, {enabled: false}]))"""
# What makes the page scroll sideways: elements that end beyond the screen, outermost first, but
# for those within a box that scrolls by itself.
TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("main *")]
    .filter((one) => one.getBoundingClientRect().right > width)
    .filter((one) => {
      for (let box = one.parentElement; box !== document.body; box = box.parentElement)
        if (getComputedStyle(box).overflowX !== "visible") return false;
      return true;
    })
    .slice(0, 5).map((one) => one.outerHTML.slice(0, 200));
}"""

# What a telephone hides: the rest of a formula; tables, and what is printed, that go on beyond the
# screen unsaid. A script of the page says it a moment after the size has changed.
HIDDEN = """() => [
  ...[...document.querySelectorAll(".katex-display")]
    .filter((one) => one.scrollWidth > one.clientWidth),
  ...[...document.querySelectorAll(".pst-scrollable-table-container, .output.stream pre")]
    .filter((one) => one.scrollWidth > one.clientWidth &&
      !getComputedStyle(one.closest(".output") ?? one, "::before").content.includes("Swipe")),
].map((one) => one.textContent.trim().slice(0, 200))"""

# What a speech program would call "button" or "slider" and no more. To axe-core the label around
# an input is its name, though it may be that of an <output> before it.
NAMELESS = """() => [...document.querySelectorAll("input:not([type=hidden]), select, button")]
  .filter((one) => !one.ariaLabel && !one.labels?.length && !/[a-z]/i.test(one.textContent))
  .map((one) => one.outerHTML.slice(0, 200))"""

# Tells whether the middle of an element is seen, and not what lies over it.
IS_ON_TOP = """(one) => {
  const { x, y, width, height } = one.getBoundingClientRect();
  return one.contains(document.elementFromPoint(x + width / 2, y + height / 2));
}"""

# The theme makes what scrolls reachable by the keyboard a moment after the size has changed.
SCROLLS_BY_KEY = """() =>
  [...document.querySelectorAll("pre, .pst-scrollable-table-container")].every((one) =>
    one.scrollWidth <= one.clientWidth || one.tabIndex >= 0)"""


def pages_with(mark):
    names = [name for name, text in PAGES.items() if mark in text]
    assert names or not PAGES, f"no page has {mark}"  # none is there before the book is built
    return pytest.mark.parametrize("name", names)


def violations(tab, rules=None):
    """What axe-core finds, as one line each; `rules` may switch some off."""
    options = {"runOnly": {"type": "tag", "values": LEVELS}, "resultTypes": ["violations"]}
    options["rules"] = rules or {}
    found = tab.evaluate("(options) => axe.run(document, options)", options)["violations"]
    return [
        f"{violation['id']}: {node['target']} {node['html'][:200]} {node['failureSummary']}"
        for violation in found
        for node in violation["nodes"]
    ]


def wait_for(tab, condition):
    """Wait a while; say whether it came true."""
    from playwright.sync_api import TimeoutError

    with contextlib.suppress(TimeoutError):
        tab.wait_for_function(condition, timeout=5000)
    return tab.evaluate(condition)


def set_theme(tab, theme):
    """Change the theme, and end at once what fades."""
    tab.evaluate(
        """(theme) => {
          document.documentElement.dataset.theme = theme;
          const fading = document.getAnimations().filter((one) => one instanceof CSSTransition);
          fading.forEach((one) => one.finish());
        }""",
        theme,
    )


def keep_pictures(tab, name):
    for width, themes in VIEWS.items():
        tab.set_viewport_size({"width": width, "height": 900})
        for theme in themes:
            set_theme(tab, theme)
            keep_page(tab, name, width, theme)


def keep_page(tab, name, width, theme):
    stem = name.removesuffix(".html").replace("/", "-")
    height = tab.evaluate("document.documentElement.scrollHeight")
    for number, top in enumerate(range(0, height, TALLEST), 1):
        keep_screenshot(
            tab,
            f"{width}-{theme}/{stem}{f'-{number}' if number > 1 else ''}.jpg",
            full_page=True,
            quality=70,
            timeout=120_000,  # a busy machine paints slowly
            clip={"x": 0, "y": top, "width": width, "height": min(TALLEST, height - top)},
        )


def test_the_book_is_built():
    assert {"index.html", "search.html", "book/intro.html"} <= set(PAGES)


def test_every_page_has_an_icon():  # where none is named, a browser asks its host for /favicon.ico
    assert [name for name, text in PAGES.items() if 'rel="icon"' not in text] == []


@pages_with("")
def test_a_page_is_accessible_and_fits_every_screen_and_holds_no_raw_markup(
    returning_visitor, name
):
    tab = returning_visitor.tab
    returning_visitor.open(name)
    check_markup(tab, name)
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    if os.environ.get("SCREENSHOTS"):
        keep_pictures(tab, name)
    tab.add_script_tag(path=AXE)
    found = [f"has no name: {text}" for text in tab.evaluate(NAMELESS)]
    for width, themes in VIEWS.items():
        tab.set_viewport_size({"width": width, "height": 900})
        if not wait_for(tab, SCROLLS_BY_KEY):
            found.append(f"cannot be scrolled by keys at {width} px")
        found += [f"wider than {width} px: {text}" for text in tab.evaluate(TOO_WIDE)]
        if width <= 600 and not wait_for(tab, f"() => ({HIDDEN})().length === 0"):
            found += [f"hidden at {width} px: {text}" for text in tab.evaluate(HIDDEN)]
        tab.evaluate(THIN_OUT_CODE)
        rules = None
        for theme in themes:
            set_theme(tab, theme)
            found += [f"{theme}, {width} px, {text}" for text in violations(tab, rules)]
            rules = tab.evaluate(THE_SAME_IN_EACH_THEME)
    assert not found, "\n".join(found)


def test_a_pale_word_is_found_also_where_code_is_thinned_out(visitor):
    tab = visitor.tab
    visitor.open("notebooks/02_preprocess.html")
    tab.evaluate(THIN_OUT_CODE)
    tab.add_script_tag(path=AXE)
    assert violations(tab) == []
    tab.add_style_tag(content=".highlight .k { color: #aaa !important; }")
    assert {text.partition(":")[0] for text in violations(tab)} == {"color-contrast"}


def check_markup(tab, name):
    """Look for raw markup, for what describes the page, and for a chapter's place."""
    main = tab.locator("main")
    shown = main.inner_text()
    for code in main.locator("pre, code").all_inner_texts():
        shown = shown.replace(code, "")
    for raw in ("| —", "|---", "code cell content", ":::", "{doc}", "<div"):
        assert raw not in shown
    if name.startswith(("book/", "notebooks/")):
        described = tab.locator("meta[name=description]")
        assert described.count() == 1
        assert len(described.get_attribute("content")) > 20
        assert tab.locator("meta[property='og:image']").count() == 1
        assert tab.locator("link[rel*=icon]").count() == 1
    chapter = re.match(r"notebooks/(\d+)_", name)
    if chapter:
        strip = tab.locator(".chain-strip")
        assert "You are here" in strip.inner_text()
        assert strip.locator("li").count() == 8 >= strip.locator("li.here").count() >= 1
        figures = "figure.numbered > figcaption, figure.ct-viewer > figcaption"
        captions = tab.locator(figures).all_inner_texts()
        assert len(captions) >= 3
        for count, caption in enumerate(captions, 1):
            assert re.match(rf"Figure {int(chapter[1])}\.{count}\. \S.{{20}}", caption)


@pages_with('class="chain-strip"')
def test_a_chapter_weighs_at_most_1_5_mb(browser, host, monkeypatch, name):
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    weight, *_ = importlib.import_module("page_figures").measure(browser, f"{host}/{name}", 390)
    assert 0 < weight <= 1.5e6


@pages_with('class="solution"')
def test_on_paper_all_is_unfolded_and_code_is_split_between_sheets(visitor, name):
    """What scrolls is not split, and what fades in when it unfolds is printed as nothing."""
    tab = visitor.tab
    visitor.open(name)
    tab.emulate_media(media="print")
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0
    assert tab.evaluate("document.getAnimations().length") == 0
    boxes = ".bd-article pre, .bd-article details, .bd-article .cell_output"
    scrolling = tab.locator(boxes).evaluate_all(
        "(all) => all.filter((one) => getComputedStyle(one).overflowY !== 'visible').length"
    )
    assert scrolling == 0
    assert (
        tab.locator(".chain-strip, input[type=range], .copybtn").filter(visible=True).count() == 0
    )


def test_the_chain_is_drawn_for_wide_screens_and_for_narrow_ones(visitor):
    visitor.open("book/intro.html")
    steps = ("CT", "Grid", "L-Net", "W-Net", "T-Net", "Ensemble", "Algorithm 1", "Label map")
    for width, shown in ((1280, "wide"), (390, "narrow")):
        visitor.tab.set_viewport_size({"width": width, "height": 844})
        drawing = visitor.tab.locator("svg.drawing:visible")
        assert drawing.count() == 1
        assert shown in drawing.get_attribute("class").split()
        for step in steps:
            assert drawing.get_by_text(step, exact=True).count() == 1
        box = drawing.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_the_welcome_page_says_what_it_is_on_a_telephones_first_screen(visitor):
    visitor.tab.set_viewport_size({"width": 390, "height": 844})
    visitor.open("book/intro.html")
    for what in ("h1", ".hero", "figure img", ".hero-buttons a"):
        box = visitor.tab.locator(f".bd-article {what}").first.bounding_box()
        assert box["y"] + box["height"] <= 844, what


def test_a_telephone_shows_pictures_wide_enough_for_their_words(visitor):
    visitor.tab.set_viewport_size({"width": 390, "height": 844})
    for page in ("notebooks/14_results.html", "book/results.html", "book/performance.html"):
        visitor.open(page)
        pictures = visitor.tab.locator("figure.numbered > a.enlarge")
        sizes = pictures.evaluate_all(
            "(all) => all.map((one) => "
            "[one.clientWidth, one.scrollWidth, Number(one.firstChild.getAttribute('width'))])"
        )
        assert sizes
        for shown, whole, pixels in sizes:
            assert shown <= 390
            assert whole >= max(shown, 0.45 * pixels)
        captions = visitor.tab.locator("figure.numbered > a.enlarge + figcaption")
        said = captions.evaluate_all(
            "(all) => all.map((one) => getComputedStyle(one, '::before').content)"
        )
        for (shown, whole, _), words in zip(sizes, said, strict=True):
            assert ("Swipe" in words) == (whole > shown)


@pages_with('class="flipbook"')
def test_a_telephone_shows_pictures_behind_sliders_about_as_large_as_drawn(visitor, name):
    visitor.tab.set_viewport_size({"width": 390, "height": 844})
    visitor.open(name)
    for book in visitor.tab.locator(".flipbook").all():
        drawn, shown, hidden, reached = book.evaluate(
            "(one) => { const img = one.querySelector('img'); return ["
            "img.naturalWidth, img.clientWidth, one.scrollWidth > one.clientWidth, one.tabIndex]; }"
        )
        if hidden:
            assert shown == drawn
        else:
            assert drawn < 1.2 * shown, "its words are nearly as large as drawn"
        assert reached == (0 if hidden else -1), "what scrolls is reached by the keyboard"
        book.evaluate("(one) => { one.scrollLeft = 1000; }")
        for slider in book.locator("input[type=range]").all():
            box = slider.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390


def test_the_bibliography_names_works_as_the_text_does(visitor):
    visitor.open("notebooks/12_ensemble.html")
    cited = set(visitor.tab.locator(".bibtex-citation a").all_inner_texts())
    assert len(cited) > 3
    visitor.open("book/references.html")
    assert cited <= set(visitor.tab.locator(".citation .label").all_inner_texts())


@pages_with('id="player-')
def test_the_cascade_shows_what_a_box_computes_and_a_voxel_sees(visitor, name):
    visitor.open(name)
    player = visitor.tab.locator(".player")
    says, boxes = player.locator(".player-says"), player.locator("[data-block]")
    patch, shown = player.locator(".player-pictures svg").all()
    assert boxes.count() == player.locator("details li").count() >= 12
    seen = set()
    for number in range(boxes.count()):
        box = boxes.nth(number)
        box.focus()
        assert box.get_attribute("aria-pressed") == "true"
        assert box.evaluate(IS_ON_TOP)
        seen.add((says.inner_text(), shown.locator("image").get_attribute("href")))
    texts, pictures = zip(*seen, strict=True)
    assert len(set(texts)) == len(set(pictures)) == boxes.count()
    boxes.first.press("Enter")

    def frame(svg):
        return [float(svg.locator("rect").get_attribute(k)) for k in ("x", "y", "width", "height")]

    for slider in player.locator("input[type=range]").all():
        slider.press("End")
    assert frame(shown)[2:] == [1, 1]
    _, _, columns, rows = map(float, patch.get_attribute("viewBox").split())
    x, y, width, height = frame(patch)
    assert (x + width, y + height) == (columns, rows), "the last voxel sees the patch's last"
    shown.scroll_into_view_if_needed()
    place = shown.bounding_box()
    visitor.tab.mouse.click(place["x"] + 2, place["y"] + 2)
    assert frame(shown)[:2] == [0, 0]
    assert frame(patch)[:2] == [0, 0]


def test_the_drawings_of_networks_hold_their_shapes_as_text(visitor):
    for name, least in (("05_unet", 7), ("07_cascade", 14)):
        visitor.open(f"notebooks/{name}.html")
        blocks = visitor.tab.locator("svg.drawing").locator(".block")
        assert blocks.count() >= least
        for text in blocks.all_text_contents():
            assert re.search(r"\d+ × \d+ × \d+.*\d+ → \d+ → \d+ channels", text)
    back = visitor.tab.locator("svg.drawing text", has_text="gradient of the tumor loss")
    assert back.first.is_visible()


@pages_with('class="flipbook"')
def test_sliders_turn_the_picture(visitor, name):
    visitor.open(name)
    for book in visitor.tab.locator(".flipbook").all():
        picture = book.locator("img")
        for slider in book.locator("input[type=range]").all():
            seen, start = set(), slider.input_value()
            for key in ("Home", "End"):
                slider.press(key)
                seen.add((picture.get_attribute("src"), picture.get_attribute("alt")))
                assert picture.evaluate("(img) => img.decode().then(() => img.naturalWidth)") > 50
            sources, alts = zip(*seen, strict=True)
            assert len(set(sources)) == len(set(alts)) == 2
            slider.fill(start)  # where another stands at its end, this one may change nothing


@pages_with("data-shufflequestions")
def test_a_quiz_answers_right_and_wrong(visitor, name):
    visitor.open(name)
    chapter = ROOT / name
    quiz = chapter.parent / "quizzes" / f"{chapter.stem}.json"
    questions = json.loads(quiz.read_text(encoding="utf-8"))
    shown = visitor.tab.locator(".Quiz")
    assert shown.count() == len(questions)
    for question, asked in zip(shown.all(), questions, strict=True):
        group = question.get_by_role("radiogroup")
        assert group.evaluate(
            "(one) => document.getElementById(one.getAttribute('aria-labelledby')).textContent"
        )
        buttons = question.locator(".MCButton").all()
        for button, answer in zip(buttons, asked["answers"], strict=True):
            button.click()
            feedback = question.locator(".Feedback")
            said = "correct" if answer["correct"] else "incorrect"
            assert said in feedback.get_attribute("class").split()
            begin = re.split(r"[`$<*\\]", printed(answer["feedback"]))[0]
            assert feedback.inner_text().startswith(begin.strip())


def test_who_leaves_a_sidebar_is_where_it_was_opened_from(visitor):
    visitor.open("notebooks/13_postprocess.html")
    tab = visitor.tab
    tab.set_viewport_size({"width": 390, "height": 844})
    for side in ("primary", "secondary"):
        tab.locator(f".{side}-toggle").press("Enter")
        tab.wait_for_selector(f"#pst-{side}-sidebar-modal[open]")
        tab.keyboard.press("Escape")
        tab.wait_for_function(
            f"document.activeElement === document.querySelector('.{side}-toggle')"
        )


def test_the_page_that_segments_a_ct_fits_the_narrowest_telephone(visitor):
    visitor.open("book/segment.html")
    visitor.tab.set_viewport_size({"width": 320, "height": 640})
    visitor.tab.wait_for_selector(".segment-here input")
    assert visitor.tab.evaluate(TOO_WIDE) == []


def test_search_finds_algorithm_1(visitor):
    visitor.open("index.html")
    visitor.tab.keyboard.press("Control+k")
    visitor.tab.keyboard.type("Algorithm 1")
    visitor.tab.keyboard.press("Enter")
    results = visitor.tab.locator("#search-results li a")
    results.first.wait_for()
    titles = results.all_inner_texts()
    assert any("Post-processing" in title for title in titles), titles


def test_search_knows_the_other_spelling(visitor):
    visitor.open("search.html?q=tumour")
    found = "document.querySelectorAll('#search-results li a').length"  # they come one by one
    visitor.tab.wait_for_function(f"{found} > 10")
    excerpts = visitor.tab.locator("#search-results .context")
    excerpts.first.wait_for()
    assert excerpts.first.inner_text().startswith("You will learn")


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("tumour", "1. "),
        ("dice", "4. "),
        ("u-net", "5. "),
        ("CT window", "1. "),
        ("region growing", "13. "),
        ("predict_windows", "tunet_lib.windows.predict_windows"),
    ],
)
def test_search_shows_first_what_explains_a_word(visitor, typed, first):
    visitor.open(f"search.html?q={typed}")
    visitor.tab.locator("#search-results li a").first.wait_for()
    found = visitor.tab.locator("#search-results li a").first.inner_text()
    assert found.startswith(first)


def test_dark_mode_leaves_gray_values_alone(visitor):
    visitor.open("notebooks/01_kits19.html")
    tab = visitor.tab
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(background)
    for _ in range(3):  # light, dark, and as the system has it, in the theme's order
        if tab.evaluate("document.documentElement.dataset.theme") == "dark":
            break
        tab.locator(".theme-switch-button:visible").click()
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    tab.wait_for_timeout(300)
    assert tab.evaluate(background) != light
    filters = tab.locator(".bd-content img").evaluate_all(
        "(images) => images.map((img) => getComputedStyle(img).filter)"
    )
    assert len(filters) > 3
    assert set(filters) == {"none"}


def test_the_book_is_read_from_a_folder(visitor):
    visitor.open((BOOK / "notebooks" / "04_losses_metrics.html").as_uri())
    assert visitor.tab.locator(".katex").count() > 3
    assert not visitor.troubles
    visitor.open((BOOK / "search.html").as_uri() + "?q=Algorithm+1")
    visitor.tab.locator("#search-results li a").first.wait_for()
    # Only the excerpts are missing: no browser lets a script read another file of the folder.
    visitor.tab.close()
    visitor.troubles.clear()


def test_paper_is_white_and_all_is_as_before_once_it_is_printed(visitor):
    visitor.open("notebooks/01_kits19.html")
    set_theme(visitor.tab, "dark")
    found = visitor.tab.evaluate("""() => ["beforeprint", "afterprint"].map((when) => {
      window.dispatchEvent(new Event(when));
      const folded = document.querySelectorAll("details:not([open])").length;
      return [document.documentElement.dataset.theme, folded];
    })""")
    (on_paper, none), (afterwards, folded) = found
    assert (on_paper, none, afterwards) == ("light", 0, "dark")
    assert folded > 5
