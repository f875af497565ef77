"""The page's networks on a graphics card: the same label map, or the processor answers."""

import keras
import numpy as np
import pytest
from tiny import random_model

from tunet_lib.config import Config
from tunet_lib.export import export_onnx
from tunet_lib.phantom import make_phantom
from tunet_lib.predict import COURSE_WEIGHTS
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import scan_of
from tunet_lib.windows import cut_patch

from .conftest import arrive, visit
from .test_segment import (
    PACKING,
    PAGE,
    check_against_the_library,
    check_label,
    open_with,
    phantom,
    text_of,
    write,
)

pytestmark = pytest.mark.browser

PROGRAM = "ort.jspi.bundle.min.mjs"
# Says in every worker that there is an adapter, or none.
ADAPTER = """(adapter) => {
  const Begun = window.Worker;
  window.Worker = function (url) {
    const text = `const early = [];
      self.onmessage = (event) => early.push(event);
      const requestAdapter = async () => (${JSON.stringify(adapter)});
      Object.defineProperty(navigator, "gpu", { value: { requestAdapter } });
      await import("${new URL(url, location.href)}");
      early.forEach((event) => self.onmessage(event));`;
    const script = new Blob([text], { type: "text/javascript" });
    return new Begun(URL.createObjectURL(script), { type: "module" });
  };
}"""
# Stands for the card's program: the processor's, which sees no image twice, and HOW it fails. The
# processor itself takes longer, as beside a card; else a busy machine decides which is sooner.
PRETENDED = """
import { InferenceSession as Sessions, Tensor } from "./ort.wasm.bundle.min.mjs";
const { run } = Sessions.prototype;
Sessions.prototype.run = async function (...given) {
  await new Promise((resolve) => setTimeout(resolve, 300));
  return run.apply(this, given);
};
const device = Object.assign(new EventTarget(), { destroy() {} });
const trouble = Object.assign(new Event("uncapturederror"), { error: new Error("no memory") });
const env = { wasm: {}, webgpu: { device } };
let seen, maps, times = 0;
const InferenceSession = { async create(graph) {
  const session = await Sessions.create(graph);
  return { async run({ image }) {
    if (image.data !== seen) maps = (await run.call(session, { image })).probability.data;
    seen = image.data;
    const isLate = ++times > 5;
    HOW;
    return { probability: { data: maps } };
  } };
} };
export { env, InferenceSession, Tensor };
"""
HOW = {
    "right": "",
    "wrong": "maps = maps.map((prob) => prob + 0.02)",
    "lost": "if (isLate) throw new Error('lost')",
    "short of memory": "if (isLate) { maps.fill(0.5); device.dispatchEvent(trouble); }",
}
# A processor that takes half a second, beside cards of all kinds: whether each is kept after each
# of three windows, and how far the answers were off.
CARDS = """async () => {
  const { Network } = await import(new URL("../_static/segment/programs.js", location.href));
  const after = (ms, maps) => new Promise((resolve) => setTimeout(resolve, ms, maps));
  const right = Float32Array.of(0.25, 0.5);
  const lost = () => Promise.reject(new Error("lost"));
  const cards = {
    same: () => right,
    nearly: () => right.map((prob) => prob + 5e-3),
    wrong: () => right.map((prob) => prob + 0.02),
    nothing: () => right.map(() => NaN),
    slow: () => after(1500, right),
    stuck: () => new Promise(() => {}),
    failing: lost,
    warm: (time) => (time > 1 ? right : after(1500, right)),
    lost: (time) => (time > 3 ? lost() : right),
    halting: (time) => (time > 3 ? new Promise(() => {}) : right),
  };
  const tried = Object.entries(cards).map(async ([name, answer]) => {
    let time = 0, closed = 0;
    const card = { run: async () => answer(++time), close() { closed++; } };
    const network = new Network(() => after(500, right), card);
    const kept = [], off = [];
    for (const _ of [1, 2, 3]) {
      const maps = await network.run();
      kept.push(Boolean(network.card));
      off.push(...maps.map((prob, k) => Math.abs(prob - right[k])));
    }
    return [name, { kept, off: Math.max(...off), closed }];
  });
  return Object.fromEntries(await Promise.all(tried));
}"""
OPEN = """
  const segment = new URL("../_static/segment/", location.href);
  const { findCard, Network, openOnProcessor } = await import(new URL("programs.js", segment));
  const made = new URL("../made/networks/", segment);
  const fetched = async (name) => (await fetch(new URL(name, made))).arrayBuffer();
  const card = await findCard({ evenSoftware: true });
"""
# SwiftShader, once in some dozens of runs, takes the tab with it.
ONCE_MORE = pytest.mark.flaky(reruns=1, only_rerun="Target crashed")
IS_THERE = "async () => Boolean(await navigator.gpu?.requestAdapter())"
# One image, both ways.
BOTH = """async ([image, shape]) => {PACKING OPEN
  const graph = await fetched("tunet.onnx");
  const [onCard, onProcessor] = [await card.open(graph), await openOnProcessor(graph)];
  const voxels = new Float32Array(unpacked(image).buffer);
  const [theirs, ours] = [await onCard.run(voxels, shape), await onProcessor(voxels, shape)];
  const off = ours.map((prob, k) => Math.abs(prob - theirs[k]));
  return { off: Math.max(...off), highest: Math.max(...ours) };
}""".replace("OPEN", OPEN).replace("PACKING", PACKING)
# A CT on the card, which may be lost after some windows; how often the processor was asked.
ON_CARD = """async ([ct, lostAfter]) => {PACKING OPEN
  const { readNifti, writeNifti } = await import(new URL("nifti.js", segment));
  const { Segmentation } = await import(new URL("segment.js", segment));
  const list = JSON.parse(new TextDecoder().decode(await fetched("networks.json")));
  const networks = new Map();
  let byProcessor = 0;
  for (const entry of list.networks) {
    const graph = await fetched(entry.file);
    const onProcessor = await openOnProcessor(graph);
    const network = new Network((...given) => { byProcessor++; return onProcessor(...given); });
    network.card = await card.open(graph);
    network.longestMs = 60_000;
    networks.set(entry, network);
  }
  const read = await readNifti(new Blob([unpacked(ct)]), "ct.nii.gz");
  const run = (entry, image, shape) => networks.get(entry).run(image, shape);
  const segmentation = new Segmentation(read, list, run);
  await segmentation.localize();
  let windows = 0;
  await segmentation.predict(list.config, (done) => {
    windows = done;
    if (done === lostAfter) for (const { card } of networks.values()) card?.close();
  });
  const { label, ml, tumorProb, isSure } = segmentation.decide(list.config);
  const file = await packed(await writeNifti(label, read));
  return { label: file, ml, tumorProb, isSure, windows, byProcessor };
}""".replace("OPEN", OPEN).replace("PACKING", PACKING)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Give the smallest networks, of any weights: `models` for the library, `page` for the page."""
    folder = tmp_path_factory.mktemp("tiny")
    keras.utils.set_random_seed(0)
    for name in ("lnet", "tunet"):
        random_model(name).save(folder / "models" / name)
    export_onnx(folder / "models", folder / "page")
    return folder


@pytest.fixture(scope="module")
def with_card(launch):
    """Give a Chromium that offers a graphics card, if only one that is software."""
    browser = launch("--enable-unsafe-webgpu")
    yield browser
    browser.close()


@pytest.fixture
def card_visitor(with_card, host):
    with arrive(with_card) as context, visit(context, host) as visitor:
        visitor.open(PAGE)
        if not visitor.tab.evaluate(IS_THERE):
            pytest.skip("this Chromium offers no WebGPU adapter, not even SwiftShader")
        yield visitor


def test_a_card_answers_only_if_it_says_the_same_sooner(visitor):
    visitor.open(PAGE)
    found = visitor.tab.evaluate(CARDS)
    kept = {name: one["kept"] for name, one in found.items()}
    for name in ("same", "nearly", "warm"):
        assert kept.pop(name) == [True, True, True], name
        assert found[name]["closed"] == 0
    for name in ("lost", "halting"):
        assert kept.pop(name) == [True, True, False], name
    assert len(kept) == 5
    assert not any(itself for several in kept.values() for itself in several), kept
    assert all(one["closed"] == 1 for name, one in found.items() if not one["kept"][-1])
    assert all(one["off"] <= 0.01 for one in found.values())


def segment_pretending(visitor, networks, tmp_path, adapter, how):
    """Segment a phantom beside a card, and give who saw each window and what was asked for."""
    asked = []
    visitor.tab.context.on("request", lambda request: asked.append(request.url))
    program = PRETENDED.replace("HOW", HOW[how])
    visitor.tab.route(
        f"**/{PROGRAM}", lambda route: route.fulfill(body=program, content_type="text/javascript")
    )
    open_with(visitor, networks)
    visitor.tab.evaluate(ADAPTER, adapter)
    path = write(*phantom(), tmp_path / "ct.nii.gz")
    found = check_against_the_library(visitor.tab, path, networks / "models", tmp_path)
    return found["where"], asked


@pytest.mark.parametrize("adapter", [None, {"info": {"isFallbackAdapter": True}}])
def test_without_a_card_nothing_of_it_is_loaded(visitor, networks, tmp_path, adapter):
    where, asked = segment_pretending(visitor, networks, tmp_path, adapter, "right")
    assert set(where) == {"on the processor"}
    assert any("onnxruntime" in address for address in asked)
    assert not any("jspi" in address for address in asked)


@pytest.mark.parametrize("how", HOW)
def test_whatever_a_card_does_the_label_map_is_that_of_the_library(
    visitor, networks, tmp_path, how
):
    adapter = {"info": {"isFallbackAdapter": False}}
    where, asked = segment_pretending(visitor, networks, tmp_path, adapter, how)
    kept, given_up = how != "wrong", how != "right"
    assert where[0] == ("on the graphics card" if kept else "on the processor")
    assert where[-1] == ("on the processor" if given_up else "on the graphics card")
    assert any(PROGRAM in address for address in asked)


def test_the_page_says_who_answers(visitor, networks):
    open_with(visitor, networks)
    visitor.tab.evaluate(ADAPTER, None)
    visitor.tab.click("[data-case=small]")
    said = "document.querySelector('.said').textContent.includes('on the processor')"
    visitor.tab.wait_for_function(said, timeout=60_000)


@ONCE_MORE
def test_the_networks_of_the_page_say_the_same_on_a_card(card_visitor):
    config = Config.load(COURSE_WEIGHTS / "tunet" / "config.json")
    volume_hu, _, spacing_mm = make_phantom(np.random.default_rng(5))
    volume = prepare_scan(scan_of(volume_hu, spacing_mm), config, [False])[False]
    shape = (16, 16, 16)  # a window takes SwiftShader minutes
    start = [size // 3 for size in volume.shape]
    patch = cut_patch(volume, tuple(start), shape).astype(np.float32)
    found = card_visitor.tab.evaluate(BOTH, [text_of(patch.tobytes()), shape])
    assert found["highest"] > 0.01
    assert found["off"] < 1e-3


@ONCE_MORE
@pytest.mark.parametrize("lost_after", [None, 4])
def test_a_label_map_of_a_card_is_that_of_the_library(card_visitor, networks, tmp_path, lost_after):
    open_with(card_visitor, networks)
    path = write(*phantom(), tmp_path / "ct.nii.gz")
    found = card_visitor.tab.evaluate(ON_CARD, [text_of(path.read_bytes()), lost_after])
    check_label(found, path, networks / "models", tmp_path)
    lost = found["windows"] - lost_after if lost_after else 0
    assert found["byProcessor"] == lost
    assert found["windows"] > 4
