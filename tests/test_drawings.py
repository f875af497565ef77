"""Drawings: what they say of a network is what is built, and all of it is text that can be read."""

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.ft2font import FT2Font

from tunet_lib import drawings, networks
from tunet_lib.config import Config
from tunet_lib.quiet import keras

PRESETS = ("paper", "course")
SVG = "{http://www.w3.org/2000/svg}"


def svgs(drawing):
    return ElementTree.fromstring(f"<div>{drawing.svg}</div>").findall(f"{SVG}svg")


def texts(svg):
    return ["".join(node.itertext()) for node in svg.iter(f"{SVG}text")]


def built_blocks(network, shapes):
    """Walk the ReLUs of a built network: the shape and channels after each convolution."""
    relus = [layer.output for layer in network.layers if isinstance(layer, keras.layers.ReLU)]
    probe = keras.Model(network.inputs, relus)
    inputs = [keras.Input(shape) for shape in shapes]
    return [tuple(found.shape[1:]) for found in probe(inputs if len(inputs) > 1 else inputs[0])]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["unet_2d", "unet_3d", "l_net", "w_net", "t_net"])
def test_a_drawing_shows_what_is_built(preset, name):
    config = Config.preset(preset)
    shape = {"unet_2d": config.grid_shape[1:], "l_net": config.lnet_shape}.get(
        name, config.patch_shape
    )
    inputs = 2 if name == "t_net" else 1
    network = getattr(networks, name)(config)
    built = built_blocks(network, [(*shape, 1)] * inputs)
    blocks = drawings.u_net_blocks(
        config, shape, inputs=inputs, injected=name in ("w_net", "t_net")
    )
    drawn = [(*block.shape, n) for block in blocks for n in block.channels[1:]]
    assert sorted(drawn) == sorted(built)
    # What enters a block is what the kernel of its first convolution expects.
    kernels = [
        tuple(layer.kernel.shape[-2:])
        for layer in network.layers
        if "conv" in layer.name and layer.name != "probability"
    ]
    assert sorted(kernels) == sorted(
        pair for block in blocks for pair in (block.channels[:2], block.channels[1:])
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_every_block_is_on_the_drawing(preset):
    config = Config.preset(preset)
    for drawing, lists in (
        (
            drawings.draw_u_net(config, config.patch_shape),
            [drawings.u_net_blocks(config, config.patch_shape)],
        ),
        (
            drawings.draw_tunet(config),
            [
                drawings.u_net_blocks(config, config.patch_shape, inputs=n, injected=True)
                for n in (1, 2)
            ],
        ),
    ):
        (svg,) = svgs(drawing)
        shown = [texts(group) for group in svg.iter(f"{SVG}g") if group.get("class") == "block"]
        assert shown == [
            [
                " × ".join(map(str, block.shape)),
                " → ".join(map(str, block.channels)) + " channels",
            ]
            for blocks in lists
            for block in blocks
        ]
        assert drawing.title in svg.find(f"{SVG}title").text


def test_images_are_injected_below_the_first_level_of_both():
    config = Config.preset("paper")
    (svg,) = svgs(drawings.draw_tunet(config))
    found = [words for words in texts(svg) if re.fullmatch(r"image ÷ \d+", words)]
    assert found == ["image ÷ 2", "image ÷ 4", "image ÷ 8"] * 2
    (svg,) = svgs(drawings.draw_u_net(config, config.patch_shape))
    assert not [words for words in texts(svg) if "÷" in words and "image" in words]


def test_the_chain_names_each_step_and_lights_what_is_asked():
    config = Config.preset("course")
    drawing = drawings.draw_chain(config, here=("tnet",), links={"ct": "one.html"})
    wide, narrow = svgs(drawing)
    for svg in (wide, narrow):
        for step in drawings.STEPS.values():
            assert step.name in texts(svg)
        assert " × ".join(map(str, config.grid_shape)) in texts(svg)
        (lit,) = [g for g in svg.iter(f"{SVG}g") if g.get("class") == "step here"]
        assert "T-Net" in texts(lit)
        (link,) = svg.iter(f"{SVG}a")
        assert link.get("href") == "one.html"
    ids = re.findall(r'\bid="([^"]+)"', drawing.svg)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r"#(drawing[^)\"]+)", drawing.svg)) <= set(ids)


@pytest.mark.parametrize("preset", PRESETS)
def test_words_fit_into_the_boxes_of_the_chain_in_a_wide_font(preset):
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for svg in svgs(drawings.draw_chain(Config.preset(preset))):
        for group in (g for g in svg.iter(f"{SVG}g") if g.get("class") == "step"):
            room = float(group.find(f"{SVG}rect").get("width"))
            for words in group.iter(f"{SVG}text"):
                bold = "-Bold" if words.get("font-weight") else ""
                font = FT2Font(str(fonts / f"DejaVuSans{bold}.ttf"))
                font.set_size(float(words.get("font-size")), 72)
                font.set_text(words.text, 0)
                needed = font.get_width_height()[0] / 64
                assert 10 < needed <= room - 8, words.text


def test_an_unknown_step_is_refused():
    with pytest.raises(KeyError, match="x-net"):
        drawings.draw_chain(Config.preset("course"), here=("x-net",))


def test_every_chapter_knows_where_it_is():
    assert sorted(drawings.HERE) == list(range(17))
    for steps, words in drawings.HERE.values():
        assert set(steps) <= set(drawings.STEPS)
        assert words
    lit = {step for steps, _ in drawings.HERE.values() for step in steps}
    assert lit == set(drawings.STEPS) == set(drawings.ICONS)


def test_everything_is_within_the_drawing():
    for preset in PRESETS:
        config = Config.preset(preset)
        for drawing in (drawings.draw_chain(config), drawings.draw_tunet(config)):
            for svg in svgs(drawing):
                left, _, width, height = map(float, svg.get("viewBox").split())
                for box in svg.iter(f"{SVG}rect"):
                    if float(box.get("width")) < 50:
                        continue  # part of a sign, in its own place
                    x, y, w, h = (float(box.get(k)) for k in ("x", "y", "width", "height"))
                    assert x >= left
                    assert y >= 0
                    assert x + w <= left + width
                    assert y + h <= height


@pytest.mark.parametrize("levels", range(1, 8))
def test_no_block_of_a_u_net_covers_another(levels):
    (svg,) = svgs(drawings.draw_u_net(Config(levels=levels), (128, 128, 128)))
    boxes = [
        tuple(float(box.get(side)) for side in ("x", "y", "width", "height"))
        for box in svg.iter(f"{SVG}rect")
    ]
    assert len(boxes) >= 2 * levels - 1
    for (x, y, width, height), (other_x, other_y, other_width, other_height) in combinations(
        boxes, 2
    ):
        apart_x = x + width <= other_x or other_x + other_width <= x
        assert apart_x or y + height <= other_y or other_y + other_height <= y
