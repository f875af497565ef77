"""Stored pictures get smaller, look the same, and stay as they are where they would not."""

import base64
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PATH = Path(__file__).parents[1] / "book" / "shrink_pictures.py"
pytestmark = pytest.mark.skipif(not PATH.exists(), reason="the book is not there")


@pytest.fixture(scope="module")
def shrink_pictures():
    spec = importlib.util.spec_from_file_location("shrink_pictures", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def png(array):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(stream, "png", dpi=(200, 200))
    return stream.getvalue()


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)


def grey_with_a_red_line():
    grey = np.random.default_rng(0).normal(120, 40, (200, 200)).clip(0, 255)
    rgba = np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=-1)
    rgba[100] = (200, 30, 30, 255)
    return rgba


def test_a_figure_gets_smaller_and_looks_the_same(shrink_pictures):
    data = png(grey_with_a_red_line())
    small = shrink_pictures.shrunk(data)
    assert len(small) < 0.6 * len(data)
    assert np.abs(pixels(small) - pixels(data)).mean() < 0.5
    assert np.abs(pixels(small)[100] - (200, 30, 30)).max() <= 2
    assert Image.open(io.BytesIO(small)).info["dpi"] == Image.open(io.BytesIO(data)).info["dpi"]
    assert shrink_pictures.shrunk(small) == small


def test_what_needs_more_colors_or_is_transparent_stays(shrink_pictures):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3))
    clear = grey_with_a_red_line()
    clear[0, 0, 3] = 0
    for array in (noise, clear):
        assert shrink_pictures.shrunk(png(array)) == png(array)


def test_a_notebook_keeps_everything_else(shrink_pictures):
    stored = base64.b64encode(png(grey_with_a_red_line())).decode()
    output = {"data": {"image/png": stored + "\n", "text/plain": "<Figure>"}, "metadata": {}}
    notebook = {"cells": [{"source": "1"}, {"outputs": [{"text": "2"}, output]}], "nbformat": 4}
    assert shrink_pictures.shrink(notebook)
    assert len(output["data"]["image/png"]) < 0.6 * len(stored)
    assert output["data"]["text/plain"] == "<Figure>"
    assert notebook["cells"][1]["outputs"][0] == {"text": "2"}
    assert not shrink_pictures.shrink(notebook)
