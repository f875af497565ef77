"""The viewer of CTs: drawn, moved, read, and as accessible as the page around it."""

import base64
import gzip
import io
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from .conftest import BOOK
from .test_book import AXE, PAGES, pages_with, set_theme, violations

pytestmark = pytest.mark.browser

# What niivue itself holds: the cross in voxels along x, y, z, and how much of each layer is seen.
STATE = """() => {
  const { nv, layers } = document.querySelector("figure.ct-viewer").viewer;
  const opacity = Object.fromEntries([...layers].map(([kind, volume]) => [kind, volume.opacity]));
  return { cross: [...nv.frac2vox(nv.scene.crosshairPos)], opacity };
}"""
TELEPHONE = 390  # px; a small canvas is drawn soon
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


def tint(picture):
    """Give how far from gray the pixels are, on the mean."""
    return np.ptp(picture, axis=-1).mean()


def turn(tab, key, value):
    """Move a slider, and give the picture."""
    tab.locator(f".ct-viewer [data-key={key}]").first.fill(str(value), timeout=SLOW)
    return drawn(tab)


def lay_over(tab, kind):
    """Choose what is laid over the CT, and give the picture."""
    tab.locator(f".ct-viewer [value={kind}]").first.check(timeout=SLOW)
    return drawn(tab)


def held(name):
    """Give the CT of a case and its label maps, along x to the right, y to the front, z up."""
    text = (BOOK / "_static" / "made" / f"{name}.js").read_text(encoding="utf-8")
    packed = json.loads(text.partition(" = ")[2].rstrip(";\n"))

    def array(key):
        image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(packed[key])))
        return np.asarray(nib.as_closest_canonical(image).dataobj)

    return [array(key) for key in ("ct", "truth", "found")]


def opened(visitor, address, width=1280):
    visitor.tab.set_viewport_size({"width": width, "height": 900})
    visitor.open(address)
    visitor.tab.locator(".ct-viewer button").first.click()
    voxel = visitor.tab.locator(".ct-viewer-voxel:not(:empty)").first
    voxel.wait_for(timeout=SLOW)
    return voxel


def test_the_welcome_page_and_three_chapters_have_a_viewer():
    chapters = [f"notebooks/{name}.html" for name in ("01_kits19", "13_postprocess", "14_results")]
    assert ["book/intro.html", *chapters] == WITH_VIEWER


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


def test_each_key_moves_the_cross_by_a_voxel(visitor):
    tab = visitor.tab
    voxel = opened(visitor, WITH_VIEWER[0], TELEPHONE)
    tab.locator(".ct-viewer canvas").first.evaluate("(one) => one.focus()")
    before = drawn(tab)
    # x grows toward the patient's right, which is on the left of the picture; y to the front; z up.
    steps = {
        "ArrowLeft": (1, 0, 0),
        "ArrowRight": (-1, 0, 0),
        "ArrowUp": (0, 1, 0),
        "ArrowDown": (0, -1, 0),
        "PageUp": (0, 0, 1),
        "PageDown": (0, 0, -1),
    }
    for key, step in steps.items():
        start = tab.evaluate(STATE)["cross"]
        tab.keyboard.press(key)
        assert tuple(np.subtract(tab.evaluate(STATE)["cross"], start)) == step, key
    # In a view of its own the arrows stay within the slice: to the left, up, to the next one.
    for view, moves in {
        "coronal": ((1, 0, 0), (0, 0, 1), (0, 1, 0)),
        "sagittal": ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
        "all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    }.items():
        tab.locator(".ct-viewer select").first.select_option(view, timeout=SLOW)
        tab.locator(".ct-viewer canvas").first.evaluate("(one) => one.focus()")
        for key, step in zip(("ArrowLeft", "ArrowUp", "PageUp"), moves, strict=True):
            start = tab.evaluate(STATE)["cross"]
            tab.keyboard.press(key)
            assert tuple(np.subtract(tab.evaluate(STATE)["cross"], start)) == step, (view, key)
    for _ in range(4):
        tab.keyboard.press("PageDown")
    at = tuple(tab.evaluate(STATE)["cross"])
    hu, *labels = (int(array[at]) for array in held("typical"))
    true, found = (("background", "kidney", "tumor")[label] for label in labels)
    assert voxel.inner_text() == f"At the cross: {hu} HU · true: {true} · found: {found}"
    assert abs(drawn(tab) - before).mean() > 0.5


def test_truth_and_prediction_are_switched(visitor):
    tab = visitor.tab
    opened(visitor, WITH_VIEWER[0], TELEPHONE)
    pictures = {}
    for kind in ("truth", "found", "none"):
        pictures[kind] = lay_over(tab, kind)
        opacity = tab.evaluate(STATE)["opacity"]
        assert opacity.pop("ct") == 1
        assert opacity == {each: 0.5 if each == kind else 0 for each in ("truth", "found")}
    assert blue(pictures["none"]) == 0
    differ = abs(pictures["truth"] - pictures["found"]).max(axis=-1) > 30
    assert 0.0005 < differ.mean() < blue(pictures["truth"]), "two outlines of the same kidneys"
    assert abs(lay_over(tab, "truth") - pictures["truth"]).max() <= 2


def test_sliders_change_opacity_and_window(visitor):
    tab = visitor.tab
    opened(visitor, WITH_VIEWER[0], TELEPHONE)
    half, full, none = (turn(tab, "opacity", percent) for percent in (50, 100, 0))
    assert blue(none) == 0
    assert tint(full) - tint(none) > 1.5 * (tint(half) - tint(none)) > 0
    assert turn(tab, "level", -400).mean() > 1.2 * none.mean()
    assert abs(turn(tab, "level", 40) - none).max() <= 2
    soft = (none > 60) & (none < 200)  # neither air nor bone
    assert turn(tab, "width", 2000)[soft].std() < 0.5 * none[soft].std()


def test_a_slider_cuts_the_3d_view_open(visitor):
    tab = visitor.tab
    opened(visitor, WITH_VIEWER[0], TELEPHONE)
    tab.locator(".ct-viewer select").first.select_option("3d", timeout=SLOW)
    whole, cut, deeper = (turn(tab, "clip", percent) for percent in (0, 40, 60))
    assert whole.std() > 20, "a body is drawn"
    assert abs(cut - whole).mean() > 2
    assert abs(deeper - cut).mean() > 2


@pytest.mark.parametrize("width", [1280, 390])
def test_an_open_viewer_is_accessible_and_its_grays_are_those_of_light(visitor, width):
    tab = visitor.tab
    opened(visitor, WITH_VIEWER[0], width)
    tab.add_script_tag(path=AXE)
    seen, found = {}, []
    for theme in ("light", "dark"):
        set_theme(tab, theme)
        seen[theme] = drawn(tab)
        found += [f"{theme}: {text}" for text in violations(tab)]
    assert not found, "\n".join(found)
    assert abs(seen["light"] - seen["dark"]).max() <= 2


def test_a_finger_moves_the_cross_and_draws_it_along(browser, host):
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 800})
    tab = context.new_page()
    tab.goto(f"{host}/{WITH_VIEWER[0]}")
    tab.locator(".ct-viewer button").first.tap()
    voxel = tab.locator(".ct-viewer-voxel:not(:empty)").first
    voxel.wait_for(timeout=SLOW)
    canvas = tab.locator(".ct-viewer canvas").first
    canvas.evaluate("(one) => one.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box, touch = canvas.bounding_box(), context.new_cdp_session(tab)
    places, said = [tab.evaluate(STATE)["cross"]], voxel.inner_text()
    # A tap of Playwright's is over at once; a finger stays for a moment, and may slide.
    for event, across in (("touchStart", 0.2), ("touchMove", 0.25), ("touchMove", 0.3)):
        finger = {"x": box["x"] + across * box["width"], "y": box["y"] + 0.25 * box["height"]}
        touch.send("Input.dispatchTouchEvent", {"type": event, "touchPoints": [finger]})
        tab.wait_for_timeout(150)
        places.append(tab.evaluate(STATE)["cross"])
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert places[0] != places[1]
    (first, *rest), (then, *still), (last, *same) = places[1:]
    assert first > then > last, "to the right, where the arrow to the right leads as well"
    assert rest == still == same
    tab.wait_for_function(
        "(text) => document.querySelector('.ct-viewer-voxel').textContent !== text",
        arg=said,
        timeout=SLOW,
    )
    context.close()


# Opens a viewer of what is no CT, and says whether each WebGL context was given back.
FAILED = """async () => {
  const contexts = [];
  const { getContext } = HTMLCanvasElement.prototype;
  HTMLCanvasElement.prototype.getContext = function (...given) {
    const context = getContext.apply(this, given);
    if (given[0] === "webgl2") contexts.push(context);
    return context;
  };
  const stage = document.body.appendChild(document.createElement("div"));
  const ct = new File(["none"], "ct.nii");
  const failed = await window.ctViewer.open(stage, { ct }).catch(String);
  stage.remove();
  HTMLCanvasElement.prototype.getContext = getContext;
  return { failed, given: contexts.map((one) => one.isContextLost()) };
}"""
VIEW = """() => {
  const { nv } = document.querySelector("figure.ct-viewer").viewer;
  const { sliceType } = nv.opts;
  const { clipPlaneDepthAziElevs } = nv.scene;
  return JSON.stringify([sliceType, clipPlaneDepthAziElevs, nv.uiData.activeClipPlaneIndex]);
}"""


def test_a_viewer_that_failed_can_be_tried_again_and_holds_nothing(visitor):
    tab = visitor.tab
    tab.set_viewport_size({"width": TELEPHONE, "height": 900})
    visitor.open(WITH_VIEWER[0])
    tab.route("**/made/typical.js", lambda route: route.abort())
    button = tab.locator(".ct-viewer button").first
    button.press("Enter")
    text = "document.querySelector('.ct-viewer button').textContent"
    tab.wait_for_function(f"{text}.endsWith('Try again')")
    assert button.is_enabled()
    assert button.evaluate("(one) => one === document.activeElement")
    tab.unroute("**/made/typical.js")
    button.press("Enter")
    tab.locator(".ct-viewer-voxel:not(:empty)").first.wait_for(timeout=SLOW)
    visitor.troubles.clear()  # the request that was refused

    # Keys of niivue's own change nothing behind the controls' back.
    canvas = tab.locator(".ct-viewer canvas").first
    canvas.hover(position={"x": 40, "y": 40}, timeout=SLOW)
    before = tab.evaluate(VIEW)
    for key in "vcp":
        tab.keyboard.press(key)
    assert tab.evaluate(VIEW) == before

    found = tab.evaluate(FAILED)
    assert isinstance(found["failed"], str)
    assert len(found["given"]) > 1
    assert all(found["given"])
    visitor.troubles.clear()  # what niivue says of the file


def test_the_viewer_works_from_a_folder(visitor):
    opened(visitor, (BOOK / WITH_VIEWER[0]).as_uri())
    assert drawn(visitor.tab).std() > 20
    visitor.troubles.clear()  # what else a folder cannot give is tested elsewhere
