"""The viewer of CTs: drawn, moved, read, and as accessible as the page around it."""

import io

import numpy as np
import pytest
from PIL import Image

from .conftest import BOOK
from .test_book import AXE, PAGES, pages_with, set_theme, violations

pytestmark = pytest.mark.browser

SLOW = 120_000  # ms; without a graphics card a picture takes a second, and more beside other tests
WITH_VIEWER = [name for name, text in PAGES.items() if 'class="ct-viewer"' in text]


def drawn(tab):
    """Give the grays of the canvas as the reader sees them."""
    canvas = tab.locator(".ct-viewer canvas").first
    canvas.evaluate("(one) => one.scrollIntoView({ block: 'center', behavior: 'instant' })")
    picture = Image.open(io.BytesIO(tab.screenshot(clip=canvas.bounding_box(), timeout=SLOW)))
    return np.asarray(picture.convert("RGB"), float)


def blue(picture):
    """Give the share of the pixels that have a kidney's color."""
    return (picture[..., 2] - picture[..., 0] > 30).mean()


def opened(visitor, address):
    visitor.open(address)
    visitor.tab.locator(".ct-viewer button").first.click()
    voxel = visitor.tab.locator(".ct-viewer-voxel:not(:empty)").first
    voxel.wait_for(timeout=SLOW)
    return voxel


def test_a_page_with_a_viewer_loads_none_of_it_before_it_is_asked_for(visitor):
    asked = []
    visitor.tab.on("request", lambda request: asked.append(request.url))
    visitor.open(WITH_VIEWER[0])
    visitor.tab.wait_for_load_state("networkidle")
    assert not [url for url in asked if "niivue" in url or url.endswith("typical.js")]
    picture = visitor.tab.locator(".ct-viewer img").first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("(img) => img.decode().then(() => img.naturalWidth)") > 300


def test_without_scripts_there_is_a_picture_and_no_button(browser, host):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{host}/{WITH_VIEWER[0]}")
    assert tab.locator(".ct-viewer img").first.is_visible()
    assert tab.locator(".ct-viewer button").first.is_hidden()
    context.close()


@pages_with('class="ct-viewer"')
def test_the_viewer_is_drawn(visitor, name):
    voxel = opened(visitor, name)
    assert "true: tumor" in voxel.inner_text()
    picture = drawn(visitor.tab)
    assert picture.std() > 20
    assert blue(picture) > 0.005, "no kidney is drawn"


def test_keys_move_the_cross_and_a_layer_is_switched_off(visitor):
    tab = visitor.tab
    voxel = opened(visitor, WITH_VIEWER[0])
    before, said = drawn(tab), voxel.inner_text()
    canvas = tab.locator(".ct-viewer canvas").first
    canvas.evaluate("(one) => one.focus()")
    for _ in range(4):
        tab.keyboard.press("PageDown")
    tab.wait_for_function(
        "(text) => document.querySelector('.ct-viewer-voxel').textContent !== text", arg=said
    )
    assert abs(drawn(tab) - before).mean() > 0.5
    tab.locator(".ct-viewer [value=none]").first.check()
    assert blue(drawn(tab)) == 0


def test_sliders_change_the_window(visitor):
    tab = visitor.tab
    opened(visitor, WITH_VIEWER[0])
    before = drawn(tab).mean()
    tab.locator(".ct-viewer [data-key=level]").first.fill("-400")
    tab.wait_for_timeout(500)
    assert drawn(tab).mean() > 1.2 * before


@pytest.mark.parametrize("width", [1280, 390])
def test_an_open_viewer_is_accessible_and_its_grays_are_those_of_light(visitor, width):
    tab = visitor.tab
    tab.set_viewport_size({"width": width, "height": 900})
    opened(visitor, WITH_VIEWER[0])
    tab.add_script_tag(path=AXE)
    seen, found = {}, []
    for theme in ("light", "dark"):
        set_theme(tab, theme)
        seen[theme] = drawn(tab)
        found += [f"{theme}: {text}" for text in violations(tab)]
    assert not found, "\n".join(found)
    assert abs(seen["light"] - seen["dark"]).max() <= 2


def test_a_finger_moves_the_cross(browser, host):
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 800})
    tab = context.new_page()
    tab.goto(f"{host}/{WITH_VIEWER[0]}")
    tab.locator(".ct-viewer button").first.tap()
    voxel = tab.locator(".ct-viewer-voxel:not(:empty)").first
    voxel.wait_for(timeout=SLOW)
    said = voxel.inner_text()
    canvas = tab.locator(".ct-viewer canvas").first
    canvas.evaluate("(one) => one.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = canvas.bounding_box()
    finger = {"x": box["x"] + 0.2 * box["width"], "y": box["y"] + 0.25 * box["height"]}
    # A tap of Playwright's is over at once; a finger stays for a moment.
    touch = context.new_cdp_session(tab)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [finger]})
    tab.wait_for_timeout(150)
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    tab.wait_for_function(
        "(text) => document.querySelector('.ct-viewer-voxel').textContent !== text",
        arg=said,
        timeout=SLOW,
    )
    context.close()


def test_the_viewer_works_from_a_folder(visitor):
    opened(visitor, (BOOK / WITH_VIEWER[0]).as_uri())
    assert drawn(visitor.tab).std() > 20
    visitor.troubles.clear()  # what else a folder cannot give is tested elsewhere
