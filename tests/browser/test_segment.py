"""A CT segmented in the page, beside the library: the same networks give the same label map."""

import base64
import csv
import dataclasses
import gzip
import itertools
import json
import shutil
import time

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tiny import random_model

from tunet_lib import plausible
from tunet_lib.config import Config
from tunet_lib.export import export_onnx
from tunet_lib.files import DataError, notes_taken
from tunet_lib.model import Model
from tunet_lib.phantom import make_phantom
from tunet_lib.placement import Placement
from tunet_lib.postprocess import postprocess
from tunet_lib.predict import COURSE_WEIGHTS, predict_scan
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import load_label, load_scan, scan_of
from tunet_lib.volumes import volumes_ml

from .conftest import ROOT

pytestmark = pytest.mark.browser

PAGE = "book/segment.html"
LEAST_DSC = 0.999
EVERY_WAY = [
    "".join(codes)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]
PACKING = """
const unpacked = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
const packed = async (blob) => (await new Promise((resolve) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.readAsDataURL(new Blob([blob]));
})).split(",")[1];
"""
# Gives the worker a CT, and waits for its label map.
SEGMENT = """async ([name, ct]) => {PACKING
  const worker = new Worker("../_static/segment/worker.js", { type: "module" });
  const where = [];
  const answer = await new Promise((resolve, reject) => {
    worker.onerror = (event) => reject(new Error(event.message));
    worker.onmessage = ({ data }) => {
      if (data.say === "window") where.push(data.where);
      if (data.say === "result" || data.say === "failed") resolve(data);
    };
    worker.postMessage({ do: "segment", blob: new Blob([unpacked(ct)]), name });
  });
  if (answer.say === "failed") throw new Error(answer.sentence);
  worker.postMessage({ do: "save", label: answer.label });
  const { blob } = await new Promise((resolve) => {
    worker.onmessage = ({ data }) => resolve(data);
  });
  worker.terminate();
  const { ml, tumorProb, isSure } = answer;
  return { label: await packed(blob), ml, tumorProb, isSure, where };
}""".replace("PACKING", PACKING)
# Prepares a CT, and brings a label map from the grid back to it.
THERE_AND_BACK = """async ([ct, label, config, medians]) => {PACKING
  const segment = new URL("../_static/segment/", location.href);
  const nifti = await import(new URL("nifti.js", segment));
  const { Placement } = await import(new URL("placement.js", segment));
  const { prepareScan } = await import(new URL("prepare.js", segment));
  const read = await nifti.readNifti(new Blob([unpacked(ct)]), "ct.nii");
  const placement = new Placement(read, config);
  const { volumes } = prepareScan(read, placement, config, medians);
  const prepared = await Promise.all(medians.map((median) => packed(volumes.get(median))));
  const inFile = placement.labelFromGrid(unpacked(label));
  const { volumesMl } = await import(new URL("volumes.js", segment));
  const { axes, fileShape: shape } = placement;
  const sizesMm = nifti.voxelSizes(read.affine);
  const voxelMl = nifti.voxelMm3(read.affine) / 1000;
  const ml = volumesMl(inFile, { shape, axes, sizesMm, voxelMl });
  return { shape: placement.gridShape, prepared, back: await packed(inFile), ml };
}""".replace("PACKING", PACKING)


VOLUMES = """async ([label, shape, sizesMm]) => {PACKING
  const { volumesMl } = await import(new URL("../_static/segment/volumes.js", location.href));
  const axes = [2, 1, 0].map((axis) => ({ axis, isForward: true }));
  const voxelMl = sizesMm.reduce((a, b) => a * b, 1) / 1000;
  return volumesMl(unpacked(label), { shape, axes, sizesMm, voxelMl });
}""".replace("PACKING", PACKING)
DECIDE = """async ([whole, tumor, mask, shape, config, paper]) => {PACKING
  const { algorithm1 } = await import(new URL("../_static/segment/algorithm1.js", location.href));
  const [a, b] = [whole, tumor].map((text) => new Float32Array(unpacked(text).buffer));
  return packed(algorithm1(a, b, unpacked(mask), { shape, config, paper }));
}""".replace("PACKING", PACKING)
READ_AND_WRITE = """async ([file]) => {PACKING
  const segment = new URL("../_static/segment/", location.href);
  const { readNifti, writeNifti } = await import(new URL("nifti.js", segment));
  const ct = await readNifti(new Blob([unpacked(file)]), "ct.nii");
  const label = new Uint8Array(ct.voxels.length).fill(2, 7, 9);
  const [voxels, written] = [Float32Array.from(ct.voxels), await writeNifti(label, ct)];
  return { affine: ct.affine, voxels: await packed(voxels), label: await packed(written) };
}""".replace("PACKING", PACKING)
# What is believed of a CT, and how it is given to the viewer, after 1024 if need be.
BELIEVED = """async ([file, config]) => {PACKING
  const segment = new URL("../_static/segment/", location.href);
  const { plainNifti, readNifti } = await import(new URL("nifti.js", segment));
  const { Placement } = await import(new URL("placement.js", segment));
  const { prepareScan } = await import(new URL("prepare.js", segment));
  try {
    const ct = await readNifti(new Blob([unpacked(file)]), "ct.nii");
    const placement = new Placement(ct, config);
    const { volumes, warnings, shift } = prepareScan(ct, placement, config, [false]);
    const plain = await packed(plainNifti(ct.voxels, ct, shift));
    return { doubts: warnings.join(" "), volume: await packed(volumes.get(false)), plain };
  } catch (error) {
    return { refused: error.message };
  }
}""".replace("PACKING", PACKING)
CHECK_LABEL = """async ([label, shape, affine]) => {PACKING
  const segment = new URL("../_static/segment/", location.href);
  const { axesOf } = await import(new URL("placement.js", segment));
  const { checkLabel } = await import(new URL("plausible.js", segment));
  return checkLabel(unpacked(label), shape, axesOf(affine));
}""".replace("PACKING", PACKING)
# What a hurried reader does, to a page whose viewer takes its time to open.
SLOW_VIEWER = """() => {
  const { open } = window.ctViewer;
  window.ctViewer.open = async (...given) => {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    window.opened = (window.opened ?? 0) + 1;
    return open(...given);
  };
  const { page } = document.querySelector(".segment-here");
  const { hear } = page;
  page.hear = (data) => {
    if (data.say === "result") window.result = data;
    return hear.call(page, data);
  };
}"""
SHOWN = """async () => {
  const { viewer, ct } = document.querySelector(".segment-here").page;
  const names = viewer.nv.volumes.map(({ name }) => name);
  const { img } = viewer.layers.get("ct");
  const voxels = new img.constructor(await ct.slice(352).arrayBuffer());
  const isIts = img.length === voxels.length && img.every((value, k) => value === voxels[k]);
  const ours = isIts && [...viewer.layers.values()].every((one) => viewer.nv.volumes.includes(one));
  return { names, ours };
}"""
LAYERS = ["ct.nii", "truth.nii.gz", "found.nii", "map.nii"]
# Switches line 14 off and on again, and gives what the page tells its worker.
SWITCHED = """async () => {
  const { page } = document.querySelector(".segment-here");
  const list = await (await fetch("../_static/made/networks/networks.json")).json();
  const config = { ...list.config, tumor_is_whole_if_none: true };
  page.hear({ say: "ready", config, warnings: [] });
  const told = [];
  page.worker = { postMessage: (message) => told.push(message), terminate() {} };
  const box = document.querySelector("[name=tumor_is_whole_if_none]");
  for (const _ of [0, 1]) {
    box.checked = !box.checked;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }
  return told;
}"""
# Lets no worker make an array of numbers, as where no memory is left. What comes before the
# worker's own script has run waits for it.
NO_MEMORY = """() => {
  const Begun = window.Worker;
  window.Worker = function (url) {
    const text = `const early = [];
      self.onmessage = (event) => early.push(event);
      await import("${url}");
      self.Float32Array = function () { throw new RangeError("Array buffer allocation failed"); };
      early.forEach((event) => self.onmessage(event));`;
    const script = new Blob([text], { type: "text/javascript" });
    return new Begun(URL.createObjectURL(script), { type: "module" });
  };
}"""


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """Give the networks of the page as the library has them."""
    folder = tmp_path_factory.mktemp("networks")
    for name in ("lnet", "tunet"):
        shutil.copytree(COURSE_WEIGHTS / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """Give networks of any weights that look as the course's do, and answer in a moment.

    Same grid, same windows, fewer channels and levels: `models` for the library, `page` for the
    page. A window of the course's own takes the page seconds.
    """
    folder = tmp_path_factory.mktemp("quick")
    course = vars(Config.load(COURSE_WEIGHTS / "tunet" / "config.json"))
    small = {"filters": 2, "levels": 2, "norm_groups": 2, "first_prob": 0.5}
    for name in ("lnet", "tunet"):
        random_model(name, **course | small).save(folder / "models" / name)
    export_onnx(folder / "models", folder / "page")
    return folder


def open_with(visitor, networks):
    """Open the page, which gets these networks."""

    def give(route):
        route.fulfill(path=networks / "page" / route.request.url.rpartition("/")[2])

    visitor.tab.route("**/made/networks/*", give)
    visitor.open(PAGE)


def text_of(data):
    return base64.b64encode(data).decode()


def dsc(one, other):
    both = one.sum() + other.sum()
    return 1.0 if both == 0 else 2 * (one & other).sum() / both


def write(volume_hu, spacing_mm, path, codes="IPL"):
    """Write a CT whose axes run as `codes` says."""
    scan = scan_of(volume_hu, spacing_mm)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(codes)
    )
    image = nib.Nifti1Image(volume_hu, scan.affine).as_reoriented(turn)
    assert "".join(nib.aff2axcodes(image.affine)) == codes
    nib.save(image, path)
    return path


def check_against_the_library(tab, path, networks, tmp_path):
    """Segment a CT both ways, and give what the page found; `where` is of each window."""
    found = tab.evaluate(SEGMENT, [path.name, text_of(path.read_bytes())])
    check_label(found, path, networks, tmp_path)
    return found


def check_label(found, path, networks, tmp_path):
    """Compare a label map of the page with the library's."""
    (tmp_path / "found.nii.gz").write_bytes(base64.b64decode(found["label"]))
    scan = load_scan(path)
    mine = load_label(tmp_path / "found.nii.gz", scan)
    with notes_taken() as notes:
        check_label_map(mine, predict_scan(scan, networks))
    assert found["ml"] == pytest.approx(volumes_ml(mine, scan), rel=1e-4)
    doubts = [note for note in notes if "not sure of the tumor" in note]
    assert found["isSure"] == (not doubts)
    assert all(f"{found['tumorProb']:.2f}" in doubt for doubt in doubts)


def check_label_map(mine, theirs):
    assert (theirs > 0).any()
    scores = dsc(mine > 0, theirs > 0), dsc(mine == 2, theirs == 2)
    assert min(scores) >= LEAST_DSC, scores


def one_kidney():
    """Give a phantom whose right side is fat, kidney and all."""
    volume_hu, label, spacing_mm = make_phantom(np.random.default_rng(7))
    right = np.zeros_like(label, bool)
    right[..., : label.shape[2] // 2] = True
    volume_hu[right & (label > 0)] = -100
    return volume_hu, spacing_mm


def anisotropic():
    rng = np.random.default_rng(8)
    volume_hu, _, spacing_mm = make_phantom(rng, (120, 96, 64), (2.0, 4.0, 6.0))
    return volume_hu, spacing_mm


def larger_than_the_grid():
    """Give a phantom with so much air around it that the grid has to grow along all axes."""
    volume_hu, _, spacing_mm = make_phantom(np.random.default_rng(9), (60, 128, 128), (5, 3, 3))
    around = [(8, 8), (12, 12), (12, 12)]
    return np.pad(volume_hu, around, constant_values=-1000), spacing_mm


def phantom():
    volume_hu, _, spacing_mm = make_phantom(np.random.default_rng(5))
    return volume_hu, spacing_mm


@pytest.mark.parametrize(
    ("make", "codes"),
    [
        (phantom, "IPL"),
        (phantom, "RAS"),
        (one_kidney, "LPS"),
        (anisotropic, "PSR"),
        (larger_than_the_grid, "LAS"),
    ],
)
def test_a_label_map_is_that_of_the_library(visitor, quick, tmp_path, make, codes):
    path = write(*make(), tmp_path / "ct.nii.gz", codes)
    open_with(visitor, quick)
    found = check_against_the_library(visitor.tab, path, quick / "models", tmp_path)
    assert len(found["where"]) > 4


def test_all_48_orientations_are_prepared_as_by_the_library(visitor, tmp_path):
    config = Config.load(COURSE_WEIGHTS / "tunet" / "config.json")
    volume_hu, label, spacing_mm = make_phantom(
        np.random.default_rng(6), (30, 40, 48), (9.0, 8.0, 7.0)
    )
    scan = scan_of(volume_hu, spacing_mm)
    placement = Placement(scan, config)
    volumes = prepare_scan(scan, config, placement=placement)
    on_grid = placement.label_to_grid(label)
    back = placement.label_from_grid(on_grid)
    values = {key: getattr(config, key) for key in vars(config)}
    visitor.open(PAGE)
    for codes in EVERY_WAY:
        medians = [False, True] if codes == "RAS" else [False]  # it takes a second
        path = write(volume_hu, spacing_mm, tmp_path / f"{codes}.nii", codes)
        given = [text_of(path.read_bytes()), text_of(on_grid.tobytes()), values, medians]
        found = visitor.tab.evaluate(THERE_AND_BACK, given)
        assert tuple(found["shape"]) == placement.grid_shape
        for median, text in zip(medians, found["prepared"], strict=True):
            volume = np.frombuffer(base64.b64decode(text), np.float32)
            expected = volumes[median].ravel()
            np.testing.assert_allclose(volume, expected, rtol=0, atol=1e-4, err_msg=codes)
        image = nib.load(path)
        mine = np.frombuffer(base64.b64decode(found["back"]), np.uint8)
        mine = mine.reshape(image.shape, order="F")
        mine = nib.Nifti1Image(mine, image.affine)
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.io_orientation(scan.affine)
        )
        mine = np.asarray(mine.as_reoriented(turn).dataobj)
        assert min(dsc(mine > 0, back > 0), dsc(mine == 2, back == 2)) >= LEAST_DSC, codes
        assert found["ml"] == pytest.approx(volumes_ml(mine, scan), rel=1e-4), codes


def test_volumes_are_on_the_side_that_the_library_says(visitor):
    """Two kidneys, one alone, beside what is none, off the middle, in two pieces; a horseshoe."""
    spacing_mm = (5.0, 4.0, 3.0)
    scan = scan_of(np.zeros((20, 30, 80), np.int16), spacing_mm)
    columns = [[(10, 25), (50, 65)], [(45, 60)], [(4, 12), (25, 38)], [(10, 70)]]
    columns.append([(45, 60), (73, 76)])
    columns.append([(40, 46), (64, 72), (73, 80)])
    visitor.open(PAGE)
    for bars in columns:
        label = np.zeros(scan.shape, np.uint8)
        for start, stop in bars:
            label[5:12, 10:20, start:stop] = 1
            label[6:9, 12:15, start : start + 6] = 2
        given = [text_of(label.tobytes()), list(scan.shape[::-1]), list(spacing_mm[::-1])]
        found = visitor.tab.evaluate(VOLUMES, given)
        assert found == pytest.approx(volumes_ml(label, scan)), bars


def test_algorithm_1_decides_as_the_library_with_line_14_and_without(visitor):
    rng = np.random.default_rng(3)
    config = Config.load(COURSE_WEIGHTS / "tunet" / "config.json")
    shape = (12, 16, 20)
    smooth = [ndimage.gaussian_filter(rng.random(shape), 1.5) for _ in range(2)]
    whole, tumor = ((one - one.min()) / np.ptp(one) for one in smooth)
    mask = np.zeros(shape, bool)
    mask[2:10, 3:14, 2:18] = True
    visitor.open(PAGE)
    counts = []
    for tumor_prob, by_rule in itertools.product((tumor, 0.05 * tumor), (True, False)):
        ours = dataclasses.replace(config, tumor_is_whole_if_none=by_rule)
        maps = [np.float32(one) for one in (whole, tumor_prob)]
        expected = postprocess(*maps, ours, lnet_mask=mask)
        values = {key: getattr(ours, key) for key in vars(ours)}
        paper = {"grid_spacing_mm": Config().grid_spacing_mm}
        texts = [text_of(one.tobytes()) for one in (*maps, mask)]
        found = visitor.tab.evaluate(DECIDE, [*texts, shape, values, paper])
        found = np.frombuffer(base64.b64decode(found), np.uint8).reshape(shape)
        np.testing.assert_array_equal(found, expected)
        counts.append((found == 2).sum())
    assert counts[0] == counts[1] > 0, "where there is a tumor, line 14 says nothing"
    assert counts[2] > counts[3] == 0


def case_of_the_page(name, path):
    """Write the CT of a phantom that comes with the book."""
    script = (ROOT / f"book/_static/made/{name}.js").read_text(encoding="utf-8")
    files = json.loads(script.partition(" = ")[2].rstrip(";\n"))
    path.write_bytes(base64.b64decode(files["ct"]))
    return path


def wait_until_done(tab, timeout_s=240):
    tab.wait_for_selector(".segment-here .result:not([hidden])", timeout=1000 * timeout_s)
    tab.wait_for_selector(".segment-here .ct-viewer-voxel:not(:empty)", timeout=60_000)


def milliliters(tab):
    """Give the ml of kidney and of tumor, both sides together."""
    return [float(text) for text in tab.locator(".result td:last-child").all_inner_texts()]


def saved(tab, path):
    """Save the label map as a reader does."""
    with tab.expect_download() as download:
        tab.click(".save")
    download.value.save_as(path)
    return path


def test_a_reader_segments_a_phantom_as_the_library_does_and_nothing_leaves(
    visitor, networks, tmp_path
):
    tab, asked = visitor.tab, []
    tab.context.on("request", lambda request: asked.append(request))
    visitor.open(PAGE)
    before = sum(request.method != "GET" for request in asked)
    started = time.perf_counter()
    tab.click("[data-case=typical]")
    wait_until_done(tab)
    took_s = time.perf_counter() - started
    kidney, tumor = milliliters(tab)
    assert kidney > 50
    assert "tumor" in tab.locator(".segment-here .ct-viewer-voxel").inner_text()
    scan = load_scan(case_of_the_page("typical", tmp_path / "ct.nii.gz"))
    mine = load_label(saved(tab, tmp_path / "found.nii.gz"), scan)
    check_label_map(mine, predict_scan(scan, networks))

    # A tumor that does not grow is smaller, at once; a wider mask lets TuNet see more windows.
    tab.locator(".sliders input[name=tumor_low_threshold]").fill("0.95")
    tab.wait_for_function(
        f"document.querySelectorAll('.result td:last-child')[1].textContent != '{tumor:.1f}'",
        timeout=120_000,
    )
    assert milliliters(tab)[1] < tumor

    sides = tab.locator(".result td").all_inner_texts()
    for name, right, left, both in (sides[:4], sides[4:]):
        assert name in ("kidney", "tumor")
        assert float(right) + float(left) == pytest.approx(float(both), abs=0.11)

    narrow = milliliters(tab)[0]
    tab.locator(".sliders input[name=lnet_threshold]").fill("0.02")
    picture = tab.locator(".segment-here .ct-viewer-stage").bounding_box()
    assert 0 < picture["y"] < 900 - picture["height"], "it stays in sight beside the sliders"
    tab.wait_for_function(
        f"document.querySelectorAll('.result td:last-child')[0].textContent != '{narrow:.1f}'",
        timeout=120_000,
    )
    assert milliliters(tab)[0] > narrow

    label = nib.load(saved(tab, tmp_path / "label.nii.gz"))
    assert label.get_data_dtype() == np.uint8
    voxel_ml = np.prod(label.header.get_zooms()) / 1000
    saved_ml = (np.asarray(label.dataobj) == 2).sum() * voxel_ml
    assert saved_ml == pytest.approx(milliliters(tab)[1], abs=0.06)

    addresses = [request.url for request in asked]
    assert any(address.endswith("tunet.onnx") for address in addresses), "workers are watched, too"
    ours = (visitor.host, "blob:", "data:")
    assert all(address.startswith(ours) for address in addresses)
    assert before == sum(request.method != "GET" for request in asked) == 0
    record(tab, took_s)


def record(tab, took_s):
    """Note how long the page took, here."""
    folder = ROOT / "book" / "results"
    size = sum(path.stat().st_size for path in (ROOT / "book/_static/made/networks").glob("*.onnx"))
    assert 0 < size <= 8e6
    with (folder / "segment_page.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["browser", "networks_mb", "click_to_result_s"])
        version = tab.context.browser.version.partition(".")[0]
        writer.writerow([f"Chromium {version}", f"{size / 1e6:.1f}", f"{took_s:.0f}"])


def test_a_reader_stops_and_begins_again(visitor):
    tab = visitor.tab
    visitor.open(PAGE)
    tab.click("[data-case=typical]")
    tab.wait_for_function("document.querySelector('.said').textContent.startsWith('TuNet')")
    tab.click(".stop")
    assert tab.locator(".said").inner_text() == "Stopped."
    assert tab.locator(".working").is_hidden()
    tab.click("[data-case=small]")
    tab.wait_for_function("document.querySelector('.said').textContent.startsWith('TuNet')")
    tab.click(".stop")


@pytest.fixture
def hurried(visitor, quick):
    """Give the page with quick networks and a slow viewer, when it has a first result."""
    tab = visitor.tab
    open_with(visitor, quick)
    tab.evaluate(SLOW_VIEWER)
    tab.click("[data-case=small]")
    tab.wait_for_function("window.result")
    return tab


def test_of_two_cts_in_a_hurry_the_second_is_shown(hurried):
    hurried.evaluate("window.result = null")
    hurried.click("[data-case=large]")  # the viewer of the first is about to open
    hurried.wait_for_function(
        "window.opened === 2 && document.querySelector('.segment-here').page.viewer"
    )
    shown = hurried.evaluate(SHOWN)
    assert shown["names"] == LAYERS
    assert shown["ours"]
    assert hurried.locator(".stage canvas").count() == 1
    # The first one's are given back; those of the second as well, when it goes.
    hurried.evaluate("() => { window.old = document.querySelector('.segment-here').page.viewer; }")
    hurried.click("[data-case=small]")
    hurried.wait_for_function("window.old.nv.gl.isContextLost()")


def test_results_that_come_faster_than_they_are_shown(hurried):
    wait_until_done(hurried)
    hurried.evaluate("""async () => {
      const { page } = document.querySelector(".segment-here");
      await Promise.all([1, 2, 3, 4].map(() => page.hear(window.result)));
    }""")
    shown = hurried.evaluate(SHOWN)
    assert sorted(shown["names"]) == sorted(LAYERS)
    assert shown["ours"]


# Has the worker segment a CT of few windows; `next` waits for what it says.
FEW_WINDOWS = """
  const script = new URL("../_static/segment/worker.js", location.href);
  const worker = new Worker(script, { type: "module" });
  const said = [];
  const next = (kind) => new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      said.push(data.say);
      if (data.say === kind) resolve(data);
      else if (["result", "failed"].includes(data.say)) reject(new Error(data.say));
    };
  });
  const config = { lnet_threshold: threshold };
  worker.postMessage({ do: "segment", blob: new Blob([unpacked(file)]), name, config });
"""
STOPPED = """async ([name, file, threshold]) => {PACKINGFEW_WINDOWS
  const decide = (number) =>
    worker.postMessage({ do: "decide", config: { lnet_threshold: 0 }, number });
  await next("result");
  decide(1);
  const { all } = await next("window");
  worker.postMessage({ do: "stop" });
  await next("stopped");
  const before = said.filter((one) => one === "window").length;
  decide(2);
  await next("result");
  worker.terminate();
  return { all, before, after: said.filter((one) => one === "window").length - before };
}""".replace("PACKING", PACKING).replace("FEW_WINDOWS", FEW_WINDOWS)


def of_few_voxels(path, networks):
    """Give a threshold of L-Net that few voxels of a CT reach, so that few windows are needed.

    It lies where rounding does not matter: in the widest gap between the most probable voxels.
    """
    lnet = Model.load(networks / "models" / "lnet")
    prob = np.unique(lnet.predict(prepare_scan(load_scan(path), lnet.config)))[-20:]
    gap = np.diff(prob).argmax()
    assert prob[gap + 1] - prob[gap] > 1e-4
    return float(prob[gap : gap + 2].mean())


def test_a_stop_comes_between_two_windows_and_what_is_done_stays_done(visitor, quick, tmp_path):
    path = write(*phantom(), tmp_path / "ct.nii")
    open_with(visitor, quick)
    given = [path.name, text_of(path.read_bytes()), of_few_voxels(path, quick)]
    found = visitor.tab.evaluate(STOPPED, given)
    first = found["before"] + found["after"] - found["all"]  # those of the first result
    assert 0 < first < found["before"] < first + found["all"]
    assert found["after"] > 0


def test_who_stops_later_windows_keeps_what_was_found(hurried, tmp_path):
    wait_until_done(hurried)
    told = hurried.evaluate("""() => {
      const { page } = document.querySelector(".segment-here");
      const { worker } = page, told = [], postMessage = (message) => told.push(message);
      page.worker = { postMessage, terminate: () => told.push("ended") };
      page.hear({ say: "window", done: 1, all: 2, where: "here" });
      document.querySelector(".stop").click();
      page.hear({ say: "stopped" });
      page.worker = worker;
      return told;
    }""")
    assert told == [{"do": "stop"}]
    said = hurried.locator(".said").inner_text()
    assert said == "Stopped. What is shown is that of before."
    assert hurried.locator(".working").is_hidden()
    assert nib.load(saved(hurried, tmp_path / "label.nii.gz")).ndim == 3


def test_a_ct_may_be_dropped_on_the_one_that_is_shown(hurried, tmp_path):
    wait_until_done(hurried)
    volume_hu, spacing_mm = one_kidney()
    path = write(volume_hu, spacing_mm, tmp_path / "mine.nii.gz")
    path = path.rename(tmp_path / "mine.nii (1).gz")  # as browsers name what is there already
    canvas = hurried.locator(".stage canvas")
    canvas.scroll_into_view_if_needed()
    box, session = canvas.bounding_box(), hurried.context.new_cdp_session(hurried)
    given = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": box["x"] + 50, "y": box["y"] + 50, "data": given}
        session.send("Input.dispatchDragEvent", event)
    hurried.wait_for_function(
        "document.querySelector('.segment-here').page.name === 'mine.nii (1).gz'"
    )
    wait_until_done(hurried)
    shown = hurried.evaluate(SHOWN)
    assert shown["names"] == ["ct.nii", "found.nii", "map.nii"]
    assert shown["ours"]


def test_what_was_offline_is_asked_for_again(visitor):
    tab = visitor.tab
    visitor.open(PAGE)
    tab.route("**/made/typical.js", lambda route: route.abort())
    tab.click("[data-case=typical]")
    said = "document.querySelector('.said').textContent"
    tab.wait_for_function(f"{said} === 'made/typical.js could not be loaded.'")
    tab.unroute("**/made/typical.js")
    tab.click("[data-case=typical]")
    tab.wait_for_function(f"{said}.startsWith('TuNet') || {said}.startsWith('L-Net')")
    tab.click(".stop")
    tab.context.set_offline(True)
    tab.click("[data-case=typical]")
    tab.wait_for_function(f"{said}.startsWith('A file of this site could not be loaded.')")
    tab.context.set_offline(False)
    visitor.troubles.clear()  # the requests that were refused


def torn(packed):
    """Change a byte of the check sum, and leave the length."""
    return packed[:-6] + bytes([packed[-6] ^ 0xFF]) + packed[-5:]


def gzips(whole):
    """Pack a file as some programs do, and browsers do not unpack it."""
    middle = len(whole) // 3
    yield "one", gzip.compress(whole)
    yield "several", gzip.compress(whole[:middle]) + gzip.compress(whole[middle:])
    yield "zeros behind", gzip.compress(whole) + bytes(512)
    yield "more behind", gzip.compress(whole) + b"signature"


def test_whatever_python_reads_is_read(visitor):
    """Of 8 MB: browsers drop what they have not given out when they meet what follows the end."""
    values = np.random.default_rng(0).integers(-900, 900, (160, 160, 160), np.int16)
    affine = np.diag([0.8, 0.8, 3, 1])
    files = dict(gzips(nib.Nifti1Image(values, affine).to_bytes()))
    files["64 bits"] = nib.Nifti1Image(
        values[:40].astype(np.int64), affine, dtype=np.int64
    ).to_bytes()
    visitor.open(PAGE)
    for name, data in files.items():
        found = visitor.tab.evaluate(READ_AND_WRITE, [text_of(data)])
        voxels = np.frombuffer(base64.b64decode(found["voxels"]), np.float32)
        expected = values[:40] if name == "64 bits" else values
        np.testing.assert_array_equal(voxels, expected.ravel("F"), err_msg=name)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_label_map_keeps_its_cts_unit_and_nothing_of_its_values(visitor, kind):
    image = kind(np.full((12, 11, 10), 40, np.int16), np.diag([800, 800, 3000, 1]))
    header = image.header
    header.set_xyzt_units("micron")
    header.set_intent("t test", (10,), name="mine")
    header["descrip"], header["cal_min"], header["cal_max"] = b"Jane Doe", -160, 240
    visitor.open(PAGE)
    found = visitor.tab.evaluate(READ_AND_WRITE, [text_of(image.to_bytes())])
    label = kind.from_bytes(gzip.decompress(base64.b64decode(found["label"])))
    assert label.header.get_xyzt_units()[0] == "micron"
    np.testing.assert_allclose(label.affine, image.affine)
    assert label.header.get_intent() == ("none", (), "")
    for name in ("descrip", "cal_min", "cal_max", "intent_p1"):
        assert not label.header[name].item()
    assert np.asarray(label.dataobj).ravel("F")[6:10].tolist() == [0, 2, 2, 0]


def bad_files(path):
    scan = scan_of(np.zeros((20, 30, 30), np.int16), (5.0, 5.0, 5.0))
    image = nib.Nifti1Image(np.full((30, 30, 20), 40, np.float32), np.diag([5.0, 5.0, 5.0, 1]))
    whole = nib.Nifti1Image(scan.volume_hu, scan.affine).to_bytes()
    yield "empty.nii.gz", b"", "is empty"
    yield "page.nii.gz", b"<html>not found</html>" * 99, "not a NIfTI image"
    yield "nothing.nii.gz", gzip.compress(b""), "is empty"
    yield "torn.nii.gz", torn(gzip.compress(whole)), "cut short or damaged"
    yield "half.nii", whole[: len(whole) // 2], "cut short or damaged"
    yield "half.nii.gz", gzip.compress(whole)[:-99], "cut short or damaged"
    yield "movie.nii", nib.Nifti1Image(np.zeros((9, 9, 9, 5)), np.eye(4)).to_bytes(), "three axes"
    image.dataobj[5, 5, 5] = np.nan
    yield "nan.nii", image.to_bytes(), "without a number"
    turned = np.diag([5.0, 5.0, 5.0, 1])
    turned[:2, :2] = [[4.3, -2.5], [2.5, 4.3]]
    yield "askew.nii", nib.Nifti1Image(scan.volume_hu, turned).to_bytes(), "askew by 30 degrees"
    gray = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8)
    large = nib.Nifti1Image(scan.volume_hu, np.diag([0.5, 0.5, 0.5, 1]))
    large.header.set_data_dtype(np.int16)
    header = bytearray(large.to_bytes())
    header[42:48] = np.array([1024, 1024, 900], "<i2").tobytes()
    yield "large.nii", bytes(header), "944 million voxels, more than a browser can hold"
    for offset in (np.nan, 1e30):
        header = bytearray(whole)
        header[108:112] = np.array([offset], "<f4").tobytes()
        yield "offset.nii", bytes(header), "has a vox_offset of .* Correct its header"
    header = bytearray(whole)
    header[80:92] = np.array([-5, -5, -5], "<f4").tobytes()
    header[252:256] = bytes(4)  # neither qform nor sform
    yield "pixdim.nii", bytes(header), "no usable voxel size"
    long = nib.Nifti1Image(np.zeros((9, 9, 101), np.int16), np.diag([40.0, 40.0, 40.0, 1]))
    yield "long.nii", long.to_bytes(), "measures 360 x 360 x 4040 mm"
    yield "gray.nii", nib.Nifti1Image(gray, np.diag([5.0, 5.0, 5.0, 1])).to_bytes(), "holds no HU"


def test_a_bad_file_is_answered_with_a_sentence(visitor, tmp_path):
    tab = visitor.tab
    visitor.open(PAGE)
    for name, data, sentence in bad_files(tmp_path):
        file = {"name": name, "mimeType": "application/octet-stream", "buffer": data}
        tab.set_input_files(".segment-here input[accept]", file)
        said = f"/^{name}.*{sentence}/.test(document.querySelector('.said').textContent)"
        tab.wait_for_function(said, timeout=20_000)
        assert tab.locator(".working").is_hidden()


def doubtful():
    """Give CTs that something is strange about, and what is said of each."""
    rng = np.random.default_rng(4)
    hu, _, spacing_mm = make_phantom(rng, (30, 40, 48), (9.0, 8.0, 7.0))
    hu = hu.astype(np.float32)
    y, x = np.ogrid[-1:1:40j, -1:1:48j]
    is_outside = np.broadcast_to(y**2 + x**2 > 0.9, hu.shape)
    metal = hu.copy()
    metal[15, 20, 24] = 2e5
    yield np.where(is_outside, -3000, hu), spacing_mm, "padding below -1024"
    yield np.where(is_outside, -2000, hu + 1024), spacing_mm, "1024 is subtracted"
    yield hu[:10], spacing_mm, "only 10 slices, 90 mm"
    yield hu, (9.0, 3.0, 7.0), "measures 270 x 120 x 336 mm"
    yield np.full_like(hu, 40.3), spacing_mm, "one value everywhere"
    yield -hu, spacing_mm, "sign turned"
    yield metal, spacing_mm, "which is no HU"
    yield np.zeros((80, 80, 80), np.int16), (50.0, 50.0, 50.0), "a grid of"


def test_what_is_strange_about_a_ct_is_said_as_by_the_library(visitor, tmp_path):
    config = Config.load(COURSE_WEIGHTS / "tunet" / "config.json")
    config = dataclasses.replace(config, clip_hu=None)  # so that air is seen
    values = {key: getattr(config, key) for key in vars(config)}
    visitor.open(PAGE)
    for volume_hu, spacing_mm, doubt in doubtful():
        path = write(volume_hu, spacing_mm, tmp_path / "ct.nii", "LPS")
        found = visitor.tab.evaluate(BELIEVED, [text_of(path.read_bytes()), values])
        if "refused" in found:
            assert doubt in found["refused"]
            with pytest.raises(DataError, match=doubt):
                prepare_scan(load_scan(path), config)
            continue
        assert doubt in found["doubts"]
        with notes_taken() as notes:
            volume = prepare_scan(load_scan(path), config)[False]
        assert any(doubt in note for note in notes), notes
        prepared = np.frombuffer(base64.b64decode(found["volume"]), np.float32)
        np.testing.assert_allclose(prepared, volume.ravel(), rtol=0, atol=1e-4, err_msg=doubt)
        plain = nib.Nifti1Image.from_bytes(base64.b64decode(found["plain"]))
        shift = 1024 if "subtracted" in doubt else 0
        np.testing.assert_array_equal(plain.get_fdata(), nib.load(path).get_fdata() - shift)


@pytest.mark.filterwarnings("ignore:.*(LAS is assumed|taken to measure)")
def test_the_viewer_gets_a_ct_where_the_library_has_it(visitor, tmp_path):
    """Of files that say in µm, or not at all, how the patient lies."""
    hu = np.random.default_rng(0).integers(-900, 900, (40, 40, 30), np.int16)
    config = Config.load(COURSE_WEIGHTS / "tunet" / "config.json")
    values = {key: getattr(config, key) for key in vars(config)}
    visitor.open(PAGE)
    for name in ("silent", "micron"):
        in_mm = np.diag([-8.0, 8.0, 9.0, 1])
        image = nib.Nifti1Image(hu, in_mm if name == "silent" else in_mm * 1000)
        image.header.set_xyzt_units("mm" if name == "silent" else "micron")
        data = bytearray(image.to_bytes())
        if name == "silent":
            data[252:256] = bytes(4)  # neither qform nor sform
        path = tmp_path / f"{name}.nii"
        path.write_bytes(data)
        found = visitor.tab.evaluate(BELIEVED, [text_of(path.read_bytes()), values])
        plain = nib.Nifti1Image.from_bytes(base64.b64decode(found["plain"]))
        np.testing.assert_allclose(plain.affine, load_scan(path).file.affine, err_msg=name)
        assert ("how the patient lies" in found["doubts"]) == (name == "silent")
        assert plain.header.get_xyzt_units()[0] == "mm"
        assert plain.get_data_dtype() == np.int16
        np.testing.assert_array_equal(plain.dataobj, hu)


def contradictory():
    """Give NIfTIs whose headers contradict themselves, and what is said of each."""
    hu = np.random.default_rng(0).integers(-900, 900, (40, 40, 30), np.int16)
    in_mm = np.diag([-8.0, 8.0, 9.0, 1])

    def made(sform=in_mm, qform=in_mm, unit="mm", sizes=None):
        image = nib.Nifti1Image(hu, in_mm)
        image.header.set_xyzt_units(unit)
        image.set_sform(sform, 1)
        if qform is not None:
            image.set_qform(qform, 1)
        data = bytearray(image.to_bytes())
        if qform is None:
            data[252:254] = bytes(2)
        if sizes is not None:
            data[80:92] = np.array(sizes, "<f4").tobytes()
        return bytes(data)

    mirrored = np.diag([8.0, 8.0, 9.0, 1])
    yield made(), ""
    yield made(qform=mirrored), "sform and qform disagree on how the patient lies; sform is taken"
    yield (
        made(sizes=(8, 8, 3)),
        "sform says that a voxel measures 8 x 8 x 9 mm, its pixdim 8 x 8 x 3",
    )
    yield made(unit="micron"), "voxels are taken to measure 8 x 8 x 9 mm"
    yield made(sform=np.diag([0.0, 8, 9, 1])), "sform is not usable, so qform is taken"
    yield made(qform=None, sizes=(0, 0, 0)), "no usable voxel size in pixdim, so that of its sform"


def test_a_header_that_contradicts_itself_is_said_as_by_the_library(visitor, tmp_path):
    config = Config.load(COURSE_WEIGHTS / "tunet" / "config.json")
    values = {key: getattr(config, key) for key in vars(config)}
    visitor.open(PAGE)
    path = tmp_path / "ct.nii"
    for data, doubt in contradictory():
        path.write_bytes(data)
        found = visitor.tab.evaluate(BELIEVED, [text_of(data), values])
        with notes_taken() as notes:
            load_scan(path)
        assert doubt in found["doubts"]
        assert any(doubt in note for note in notes) if doubt else not notes
        assert doubt or "taken" not in found["doubts"]


NOTHING_FOUND = """async ([file, config]) => {PACKING
  const from = (name) => import(new URL(`../_static/segment/${name}`, location.href));
  const { readNifti } = await from("nifti.js");
  const { Segmentation } = await from("segment.js");
  const networks = ["lnet", "tunet"].map((network) => ({ network, median: false }));
  const list = { networks, config, paper: config, sure_prob: 0.6 };
  const ct = await readNifti(new Blob([unpacked(file)]), "ct.nii");
  const run = async ({ network }, image, shape) =>
    new Float32Array(shape[0] * shape[1] * shape[2] * (network === "lnet" ? 1 : 2)).fill(0.01);
  const segmentation = new Segmentation(ct, list, run);
  await segmentation.localize();
  return segmentation.decide(config).doubts;
}""".replace("PACKING", PACKING)


def test_where_lnet_finds_no_kidney_it_is_said(visitor, tmp_path):
    config = Config.load(COURSE_WEIGHTS / "tunet" / "config.json")
    values = {key: getattr(config, key) for key in vars(config)}
    values |= {"grid_spacing_mm": config.grid_spacing_mm}
    path = write(*phantom(), tmp_path / "ct.nii")
    visitor.open(PAGE)
    doubts = visitor.tab.evaluate(NOTHING_FOUND, [text_of(path.read_bytes()), values])
    assert doubts[0].startswith("L-Net found no kidney, so TuNet looked everywhere")


SAVED_MEANWHILE = """async ([name, file, threshold]) => {PACKINGFEW_WINDOWS
  const { label } = await next("result");
  said.length = 0;
  worker.postMessage({ do: "decide", config: { lnet_threshold: 0 }, number: 1 });
  await next("window");
  worker.postMessage({ do: "save", label });
  await next("result");
  worker.terminate();
  return said;
}""".replace("PACKING", PACKING).replace("FEW_WINDOWS", FEW_WINDOWS)


def test_a_label_map_is_saved_while_the_networks_look_on(visitor, quick, tmp_path):
    path = write(*phantom(), tmp_path / "ct.nii")
    open_with(visitor, quick)
    given = [path.name, text_of(path.read_bytes()), of_few_voxels(path, quick)]
    said = visitor.tab.evaluate(SAVED_MEANWHILE, given)
    assert "file" in said
    assert said.index("file") < len(said) - 2
    assert said[-2:] == ["window", "result"]


def test_a_label_map_that_ends_where_its_ct_ends_is_said(visitor, tmp_path):
    visitor.open(PAGE)
    middle = (slice(4, 6),) * 3
    places = [middle, (0, 5, 5), (9, 5, 5), (5, 0, 5), (5, 10, 5), (5, 5, 0), (5, 0, 11), None]
    for place, codes in itertools.product(places, ("IPL", "RAS", "PSR")):
        label = np.zeros((10, 11, 12), np.uint8)
        label[place or slice(0)] = 2
        with notes_taken() as notes:
            plausible.check_label(label, tmp_path / "ct.nii")
        image = nib.load(write(label, (5.0, 4.0, 3.0), tmp_path / "label.nii", codes))
        given = text_of(np.asarray(image.dataobj).tobytes("F"))
        found = visitor.tab.evaluate(
            CHECK_LABEL, [given, list(image.shape), image.affine[:3].tolist()]
        )
        assert len(found) == len(notes) == (place != middle)
        for mine, theirs in zip(found, notes, strict=True):
            same = mine.partition("(")[2].partition(")")[0] if place else "o kidney was found"
            assert same in mine
            assert same in theirs


# Gives the page a result, and no viewer to show it with.
UNSEEN = """async () => {
  const { page } = document.querySelector(".segment-here");
  window.ctViewer.open = () => Promise.reject(new Error("no WebGL"));
  page.ct = new File([], "ct.nii");
  const ml = { kidney_right: 1, kidney_left: 1, tumor_right: 0, tumor_left: 0 };
  const files = { label: new Blob(), tumor: new Blob() };
  const doubts = ["No kidney was found."];
  await page.hear({ say: "result", files, ml, doubts, isSure: true, where: "here" });
}"""


def test_doubts_and_a_viewer_that_fails_are_read_aloud(visitor):
    visitor.open(PAGE)
    visitor.tab.evaluate(UNSEEN)
    for part, text in ((".unseen", "no WebGL"), (".said", "No kidney was found.")):
        assert text in visitor.tab.locator(f"{part}[role=status]").inner_text()
    assert visitor.tab.locator(".doubts[role=status]").count() == 1


def test_too_little_memory_is_answered_with_a_sentence(visitor):
    tab = visitor.tab
    visitor.open(PAGE)
    tab.evaluate(NO_MEMORY)
    tab.click("[data-case=small]")
    said = "document.querySelector('.said').textContent.startsWith('There is too little memory')"
    tab.wait_for_function(said, timeout=60_000)
    assert tab.locator(".working").is_hidden()


def test_the_switch_of_line_14_is_what_the_worker_is_told(visitor):
    visitor.open(PAGE)
    told = visitor.tab.evaluate(SWITCHED)
    assert [one["config"]["tumor_is_whole_if_none"] for one in told] == [False, True]
    assert [one["do"] for one in told] == ["decide", "decide"]
