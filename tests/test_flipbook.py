import base64
import io
import re

import pytest
from matplotlib.figure import Figure
from PIL import Image

from tunet_lib.flipbook import flipbook


def draw(gray, width=1):
    figure = Figure(figsize=(width, 1), facecolor=str(gray))
    return figure


def pictures(page):
    """Give the gray value and the width of each picture, in order."""
    found = []
    for text in re.findall(r'"([A-Za-z0-9+/=]{60,})"', page.data):
        image = Image.open(io.BytesIO(base64.b64decode(text))).convert("L")
        found.append((image.getpixel((5, 5)) / 255, image.width))
    return found


def test_a_picture_for_each_combination_the_last_slider_fastest():
    page = flipbook(
        draw,
        {"gray": (0, 0.5, 1), "width": (1, 2)},
        alt=lambda g, w: f"gray {g}, width {w}",
        dpi=50,
    )
    expected = [(gray, 50 * width) for gray in (0, 0.5, 1) for width in (1, 2)]
    assert pictures(page) == [(pytest.approx(gray, abs=0.03), w) for gray, w in expected]
    for gray in (0, 0.5, 1):
        assert f'"gray {gray}, width 2"' in page.data


@pytest.mark.parametrize(("start", "first"), [(None, "1-b"), ([0, 0], "0-a"), ([2, 1], "2-b")])
def test_where_it_starts(start, first):
    page = flipbook(
        lambda *_: draw(1), {"n": (0, 1, 2), "c": "ab"}, alt=lambda n, c: f"{n}-{c}", start=start
    )
    assert f'alt="{first}"' in page.data


def test_texts_cannot_end_the_script_or_the_tag():
    page = flipbook(lambda _: draw(1), {'<b>"': ("</script>",)}, alt=lambda _: '"</script><i>')
    assert page.data.count("</script>") == 1
    assert "<b>" not in page.data
    assert "<i>" not in page.data.partition("<script>")[0]


@pytest.mark.parametrize("sliders", [{}, {"n": ()}, {"n": range(151)}])
def test_too_few_or_too_many_pictures(sliders):
    with pytest.raises(ValueError, match="pictures"):
        flipbook(lambda *_: draw(1), sliders, alt=str)


@pytest.mark.parametrize("start", [[3], [-1], [0, 0]])
def test_a_start_that_does_not_fit(start):
    with pytest.raises(ValueError, match="does not fit"):
        flipbook(lambda _: draw(1), {"n": (1, 2, 3)}, alt=str, start=start)


def test_two_books_in_a_page_have_names_of_their_own():
    books = [flipbook(lambda _: draw(1), {"n": (1,)}, alt=str).data for _ in range(2)]
    names = [re.search('id="(.+?)"', book)[1] for book in books]
    assert names[0] != names[1]
    assert all(f'("{name}", ' in book for name, book in zip(names, books, strict=True))


def test_nothing_is_asked_of_another_host():
    assert "http" not in flipbook(lambda _: draw(1), {"n": (1,)}, alt=str).data
