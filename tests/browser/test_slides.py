"""The decks of slides on a beamer and on a telephone: each slide fits and is accessible."""

import re

import pytest

from .conftest import BOOK, ROOT, keep_screenshot
from .test_book import AXE, violations

pytestmark = pytest.mark.browser

DECKS = sorted(path.name for path in (BOOK / "slides").glob("*.html"))
READY = "() => window.Reveal && Reveal.isReady()"
# Whatever is shown and ends beyond its slide, or needs to be scrolled.
TOO_LARGE = """() => {
  const slide = Reveal.getCurrentSlide(), frame = slide.getBoundingClientRect();
  const shown = [...slide.querySelectorAll(":scope *:not(svg *, .katex *)")]
    .filter((one) => one.checkVisibility());
  const beyond = shown.filter((one) => {
    const box = one.getBoundingClientRect();
    return box.left < frame.left - 1 || box.top < frame.top - 1
      || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
  });
  const scrolls = shown.filter((one) => getComputedStyle(one).display !== "inline"
    && (one.scrollWidth > one.clientWidth + 2 || one.scrollHeight > one.clientHeight + 40)
    && one.clientWidth > 0);
  // A figure keeps to the room above the slide's foot.
  const foot = (one) => one.getBoundingClientRect().bottom;
  const grown = shown.filter((one) => foot(one) > foot(one.closest("figure") ?? slide) + 1);
  return [...beyond, ...scrolls, ...grown].map((one) => one.outerHTML.slice(0, 150));
}"""
# Two neighbors of the slide's column that lie on each other.
OVERLAP = """() => {
  const boxes = [...Reveal.getCurrentSlide().firstElementChild.children]
    .filter((one) => one.checkVisibility() && !one.matches(".from"))
    .map((one) => one.getBoundingClientRect());
  return boxes.slice(1).some((box, k) => box.top < boxes[k].bottom - 1);
}"""
SIZES = {"beamer": (1280, 720), "telephone": (390, 844)}

each_deck = pytest.mark.parametrize("deck", DECKS)


def test_every_deck_is_built_and_the_teaching_page_leads_to_it(visitor):
    sources = sorted((ROOT / "book" / "slides").glob("*.md"))
    assert [f"{path.stem}.html" for path in sources] == DECKS
    visitor.open("book/teaching.html")
    links = visitor.tab.locator("main a[href*='slides/']").evaluate_all(
        "(links) => links.map((link) => link.href.split('/').pop())"
    )
    assert links == DECKS


@each_deck
@pytest.mark.parametrize("size", SIZES)
def test_every_slide_fits_and_is_accessible(visitor, deck, size):
    width, height = SIZES[size]
    tab = visitor.tab
    tab.set_viewport_size({"width": width, "height": height})
    visitor.open(f"slides/{deck}")
    tab.wait_for_function(READY)
    tab.add_script_tag(path=AXE)
    found = []
    for number in range(tab.evaluate("Reveal.getTotalSlides()")):
        tab.evaluate("(number) => Reveal.slide(number)", number)
        tab.wait_for_function(
            "[...Reveal.getCurrentSlide().querySelectorAll('img')].every((i) => i.complete)"
        )
        where = f"{deck}, {size}, slide {number + 1}"
        found += [f"{where}: {text}" for text in tab.evaluate(TOO_LARGE)]
        found += [f"{where}: {text}" for text in violations(tab)]
        if tab.evaluate(OVERLAP):
            found.append(f"{where}: parts lie on each other")
        name = f"{deck.removesuffix('.html')}-{number + 1:02}.jpg"
        keep_screenshot(tab, f"slides/{width}/{name}", quality=70)
    assert not found, "\n".join(found)


def test_the_keyboard_moves_and_the_speaker_sees_the_notes(visitor):
    tab = visitor.tab
    visitor.open(f"slides/{DECKS[0]}")
    tab.wait_for_function(READY)
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("Reveal.getIndices().h") == 1
    with tab.expect_popup() as opened:
        tab.keyboard.press("s")
    speaker = opened.value
    notes = speaker.locator(".speaker-controls-notes .value")
    notes.get_by_text("Expect:").wait_for()
    assert "2 min" in notes.inner_text()
    tab.keyboard.press("End")
    last = tab.evaluate("Reveal.getTotalSlides()") - 1
    assert tab.evaluate("Reveal.getIndices().h") == last


def test_sliders_work_on_a_slide_and_keep_the_keys(visitor):
    name = next(n for n in DECKS if 'class="flipbook"' in (BOOK / "slides" / n).read_text("utf-8"))
    tab = visitor.tab
    visitor.open(f"slides/{name}")
    tab.wait_for_function(READY)
    number = tab.evaluate(
        "Reveal.getSlides().findIndex((slide) => slide.querySelector('.flipbook'))"
    )
    tab.evaluate("(number) => Reveal.slide(number)", number)
    slider = tab.locator("section.present .flipbook input").first
    picture = tab.locator("section.present .flipbook img")
    seen = set()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        slider.press(key)
        seen.add(picture.get_attribute("src"))
        assert picture.evaluate("(img) => img.decode().then(() => img.naturalWidth)") > 50
    assert len(seen) == 3
    assert tab.evaluate("Reveal.getIndices().h") == number


@each_deck
def test_a_deck_opens_from_a_folder(visitor, deck):
    visitor.open((BOOK / "slides" / deck).as_uri())
    visitor.tab.wait_for_function(READY)
    fetched = re.findall(r'src="(\.\./_static/[^"]+)"', (BOOK / "slides" / deck).read_text("utf-8"))
    assert len(fetched) == 4
    assert visitor.tab.locator("section.present h1").is_visible()


@each_deck
def test_a_deck_is_printed_one_slide_a_page(visitor, deck):
    tab = visitor.tab
    visitor.open(f"slides/{deck}?print-pdf")
    tab.wait_for_selector(".pdf-page")
    slides = tab.evaluate("Reveal.getTotalSlides()")
    assert tab.locator(".pdf-page").count() == slides
    pdf = tab.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) == slides
