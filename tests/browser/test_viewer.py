"""The viewer of CTs: drawn, moved, read, and as accessible as the page around it."""

import io

import numpy as np
import pytest
from PIL import Image

from .conftest import BOOK
from .test_book import AXE, PAGES, pages_with, set_theme, violations

pytestmark = pytest.mark.browser

WITH_VIEWER = [name for name, text in PAGES.items() if 'class="ct-viewer"' in text]


def drawn(tab):
    """Give the grays of the canvas as the reader sees them."""
    picture = Image.open(io.BytesIO(tab.locator(".ct-viewer canvas").first.screenshot()))
    return np.asarray(picture.convert("RGB"), float)


def opened(visitor, address):
    visitor.open(address)
    visitor.tab.locator(".ct-viewer button").first.click()
    voxel = visitor.tab.locator(".ct-viewer-voxel:not(:empty)").first
    voxel.wait_for(timeout=60_000)
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
def test_the_viewer_shows_and_reads_voxels(visitor, name):
    tab = visitor.tab
    voxel = opened(visitor, name)
    assert "true: tumor" in voxel.inner_text()
    before = drawn(tab)
    assert before.std() > 20
    assert (np.ptp(before, axis=2) > 60).mean() > 0.005, "no label map is drawn"
    said = voxel.inner_text()
    canvas = tab.locator(".ct-viewer canvas").first
    for key in ("ArrowLeft", "ArrowUp", "PageDown"):
        for _ in range(4):
            canvas.press(key)
    tab.wait_for_timeout(500)
    assert voxel.inner_text() != said
    assert abs(drawn(tab) - before).mean() > 0.5
    tab.locator(".ct-viewer").first.get_by_label("nothing").check()
    tab.wait_for_timeout(500)
    assert (np.ptp(drawn(tab), axis=2) > 60).mean() < 0.005


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
    voxel.wait_for(timeout=60_000)
    said = voxel.inner_text()
    box = tab.locator(".ct-viewer canvas").first.bounding_box()
    tab.touchscreen.tap(box["x"] + 0.2 * box["width"], box["y"] + 0.25 * box["height"])
    tab.wait_for_timeout(1000)
    assert voxel.inner_text() != said
    context.close()


def test_the_viewer_works_from_a_folder(visitor):
    opened(visitor, (BOOK / WITH_VIEWER[0]).as_uri())
    assert drawn(visitor.tab).std() > 20
    visitor.troubles.clear()  # what else a folder cannot give is tested elsewhere
