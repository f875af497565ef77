"""The playable cascade: what a voxel is said to see is what it sees, and maps are the network's."""

import json
import re

import numpy as np
import pytest

from tunet_lib import networks
from tunet_lib.config import Config
from tunet_lib.playable import cascade_fields, play_cascade
from tunet_lib.quiet import keras

CONFIG = Config.preset(
    "course", levels=2, filters=2, norm_groups=1, patch_shape=(4, 8, 12), patch_stride=(4, 8, 12)
)


class Sums(networks.Blocks):
    """Blocks that lose nothing: convolutions of ones, no normalization."""

    def conv_block(self, x, filters):
        return self.conv(filters, 3, padding="same", use_bias=False, kernel_initializer="ones")(x)

    def sigmoid_head(self, x, channels):
        return x


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_voxel_sees_what_it_is_said_to_see(levels):
    size = 24
    config = Config.preset("course", levels=levels, filters=1, norm_groups=1)
    blocks = Sums(config, 2)
    image = keras.Input((size, 4, 1))
    whole = networks.u_net(image, blocks, 1, injected=image)
    tumor = networks.u_net(blocks.concatenate(image, whole), blocks, 1, injected=image)
    features = keras.Model(image, [whole, tumor])
    impulses = np.zeros((size, size, 4, 1), np.float32)
    impulses[np.arange(size), np.arange(size)] = 1
    fields = cascade_fields(levels, size)
    for name, found in zip("wt", features.predict_on_batch(impulses), strict=True):
        seen = found.max(axis=(2, 3)) > 0  # (input row, output row)
        first, last = fields[name]
        assert (seen.argmax(axis=0) == first).all()
        assert (size - 1 - seen[::-1].argmax(axis=0) == last).all()


def test_one_level_sees_two_voxels_to_each_side_and_the_cascade_four():
    fields = cascade_fields(1, 20)
    assert [end[10] for end in fields["w"]] == [8, 12]
    assert [end[10] for end in fields["t"]] == [6, 14]
    assert [end[0] for end in fields["w"]] == [0, 2]


@pytest.fixture(scope="module")
def page():
    keras.utils.set_random_seed(1)
    network = networks.tunet(CONFIG)
    patch = np.random.default_rng(1).normal(size=CONFIG.patch_shape).astype(np.float32)
    return network, patch, play_cascade(network, CONFIG, patch, z=2).data


def stored(page):
    image, size, shown = json.loads(re.search(r'\("player-\w+", (\[.*\])\);</script>', page)[1])
    return image, size, shown


def test_every_box_of_the_drawing_has_what_is_shown(page):
    _, _, html = page
    _, size, shown = stored(html)
    assert size == [8, 12]
    assert set(re.findall(r'data-block="(\w+)"', html)) == set(shown)
    assert set(shown) == {"w", "t", *(f"{net}{k}" for net in "wt" for k in range(3))}
    assert "8 channels" in shown["w1"]["says"]  # 2 filters, twice, on the second level
    assert "2 × 4 × 6" in shown["w1"]["says"]
    assert len(shown["w1"]["rows"]) == 4
    assert shown["w0"]["code"] == "x = blocks.conv_block(x, 2 * filters * 2**level)"
    assert shown["t"]["code"].startswith("tumor_prob = u_net(both")
    for one in shown.values():
        assert one["says"] in html.split("<details>")[1].replace("&#x27;", "'")


def test_the_map_is_the_networks(page):
    import base64
    import io

    from PIL import Image

    network, patch, html = page
    expected = network.predict_on_batch(patch[None, ..., None])[0, 2]
    for channel, name in enumerate("wt"):
        picture = Image.open(io.BytesIO(base64.b64decode(stored(html)[2][name]["picture"])))
        gray = np.asarray(picture, float) / 255
        low, high = expected[..., channel].min(), expected[..., channel].max()
        np.testing.assert_allclose(
            low + gray * (high - low), expected[..., channel], atol=0.003 * (high - low) + 1e-6
        )


@pytest.mark.parametrize(("shape", "z"), [((4, 8, 8), 0), ((4, 8, 12), 4), ((4, 8, 12), -1)])
def test_a_patch_that_does_not_fit_is_refused(shape, z):
    with pytest.raises(ValueError, match="slice"):
        play_cascade(None, CONFIG, np.zeros(shape, np.float32), z=z)
