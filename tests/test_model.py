"""A network saved and loaded, and what it predicts of a whole volume."""

import functools
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import SHAPE, tiny_config

from tunet_lib import model as model_module
from tunet_lib.config import VARIANTS, Config
from tunet_lib.files import DataError, save_json
from tunet_lib.model import Model
from tunet_lib.quiet import keras

TUNET = VARIANTS["tunet"]
KINDS = ["unet2d", "unet3d", "lnet", "tunet", "tunet_seb"]
PAPER = Config.preset("paper")


@functools.cache
def untrained(name):
    """Give one network of a kind; that it was built once must not matter."""
    keras.utils.set_random_seed(0)
    return Model.untrained(VARIANTS[name], tiny_config())


def other_weights(network, seed):
    rng = np.random.default_rng(seed)
    return [w + rng.normal(0, 0.1, w.shape) for w in network.get_weights()]


def random_volumes(*shape):
    rng = np.random.default_rng(0)
    return {median: rng.normal(size=shape).astype(np.float32) for median in (False, True)}


def image_of(name):
    shape = (1, 8, 8, 1) if name == "unet2d" else (1, 4, 8, 8, 1)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", ["unet2d", "lnet", "tunet_seb"])
def test_saved_and_loaded_predicts_the_same(tmp_path, name):
    variant, config = VARIANTS[name], tiny_config(levels=1, precision="float16")
    model = Model.untrained(variant, config)
    model.network.set_weights(other_weights(model.network, seed=0))
    model.save(tmp_path / "new")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = Model.load(tmp_path / "new")
    assert (loaded.variant, loaded.config) == (variant, config)
    for mine, theirs in zip(model.network.get_weights(), loaded.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # What was trained in fewer bits predicts in float32.
    plain = Model.untrained(variant, tiny_config(levels=1)).network
    plain.set_weights(model.network.get_weights())
    image = image_of(name)
    np.testing.assert_array_equal(
        loaded.network.predict_on_batch(image), plain.predict_on_batch(image)
    )
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "config.json",
        "model.weights.h5",
        "variant.json",
    ]


def save_with_other_weights(name, variant, folder):
    """Save a network of a kind as another variant of that kind, no weight of which is the same."""
    network = untrained(name).network
    before = network.get_weights()
    network.set_weights(other_weights(network, seed=1))
    Model(network, variant, untrained(name).config).save(folder)
    network.set_weights(before)


@pytest.mark.parametrize("name", KINDS)
def test_it_predicts_the_same_once_loaded_also_into_a_network_that_it_takes_over(
    tmp_path, monkeypatch, name
):
    model, variant = untrained(name), VARIANTS[name]
    volumes = random_volumes(*SHAPE)
    before = model.predict(volumes)
    assert before.shape == (*SHAPE, len(variant.regions))
    assert before.dtype == np.float32
    assert before.std() > 0
    model.save(tmp_path / "first")
    first = Model.load(str(tmp_path / "first"))
    assert (first.variant, first.config) == (variant, model.config)
    np.testing.assert_array_equal(first.predict(volumes), before)

    # The other variant of this kind: the volumes differ, the network does not.
    (other,) = (
        v
        for v in VARIANTS.values()
        if (v.network, v.squeeze_excite) == (variant.network, variant.squeeze_excite)
        and v != variant
    )
    save_with_other_weights(name, other, tmp_path / "second")
    anew = Model.load(tmp_path / "second")
    monkeypatch.setattr(model_module, "build", None)
    taken_over = Model.load(tmp_path / "second", network=first.network)
    assert taken_over.network is first.network
    assert taken_over.variant == anew.variant == other
    assert taken_over.config == anew.config == model.config
    found = taken_over.predict(volumes)
    np.testing.assert_array_equal(found, anew.predict(volumes))
    assert (found != before).any()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A saved TuNet, which is not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "tunet"
    untrained("tunet").save(folder)
    return folder


@pytest.fixture
def saved(tmp_path, kept):
    return shutil.copytree(kept, tmp_path / "tunet")


BOTH_WAYS = pytest.mark.parametrize("anew", [True, False], ids=["anew", "taken over"])


@functools.cache
def spare():
    return Model.untrained(TUNET, tiny_config()).network


def load(folder, anew):
    return Model.load(folder, network=None if anew else spare())


@BOTH_WAYS
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tunet", {"levels": 3}),
        ("tunet", {"levels": 1, "patch_shape": (8, 8, 8)}),
        ("tunet", {"filters": 4}),
        ("tunet", {"norm_groups": 1, "filters": 1}),
        ("tunet_seb", {}),
        ("unet3d", {}),
        ("lnet", {}),
        ("unet2d", {}),
    ],
)
def test_weights_of_another_network(tmp_path, saved, name, changes, anew):
    Model.untrained(VARIANTS[name], tiny_config(**changes)).save(tmp_path / "other")
    (tmp_path / "other" / "model.weights.h5").replace(saved / "model.weights.h5")
    with pytest.raises(DataError, match=r"model\.weights\.h5.*another configuration"):
        load(saved, anew)


def test_weights_without_gates_in_a_network_with_gates(tmp_path, saved):
    seb = untrained("tunet_seb")
    seb.save(tmp_path / "seb")
    (saved / "model.weights.h5").replace(tmp_path / "seb" / "model.weights.h5")
    before = seb.network.get_weights()
    for network in (None, seb.network):
        with pytest.raises(DataError, match="another configuration"):
            Model.load(tmp_path / "seb", network=network)
    # An array too few is seen before any is taken.
    for mine, theirs in zip(before, seb.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@BOTH_WAYS
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_weights(saved, part, anew):
    path = saved / "model.weights.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DataError, match=r"model\.weights\.h5.*damaged"):
        load(saved, anew)


@BOTH_WAYS
@pytest.mark.parametrize("part", [0.0, 0.02, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
def test_damaged_weights_are_noticed(saved, part, anew):
    path = saved / "model.weights.h5"
    content = bytearray(path.read_bytes())
    start = int(len(content) * part)
    content[start : start + 3000] = bytes(reversed(content[start : start + 3000]))
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"model\.weights\.h5.*damaged"):
        load(saved, anew)


@BOTH_WAYS
@pytest.mark.parametrize("name", ["model.weights.h5", "config.json", "variant.json"])
def test_missing_file(saved, name, anew):
    (saved / name).unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load(saved, anew)


@pytest.mark.parametrize("value", ["vnet", 3, ["tunet"], {"tunet": 1}])
def test_unknown_variant(saved, value):
    save_json(saved / "variant.json", value)
    with pytest.raises(DataError, match=r"variant\.json"):
        Model.load(saved)


class Recording:
    """Stand for a network: whole is the input, tumor its half; keep what was asked."""

    def __init__(self, channels=2):
        self.channels = channels
        self.batches = []

    def predict_on_batch(self, batch):
        self.batches.append(batch)
        return np.concatenate([batch, batch / 2][: self.channels], axis=-1)


def recording(name, config=None):
    variant = VARIANTS[name]
    network = Recording(len(variant.regions))
    return Model(network, variant, config or tiny_config())


@pytest.mark.parametrize("name", VARIANTS)
def test_the_volume_that_it_was_trained_on_is_what_it_sees(name):
    volumes = {median: np.full(SHAPE, 2.0 + median, np.float32) for median in (False, True)}
    model = recording(name)
    prob = model.predict(volumes)
    own = 3.0 if "median" in name else 2.0
    np.testing.assert_allclose(prob[..., 0], own, rtol=1e-6)
    assert all((batch == own).all() for batch in model.network.batches)
    # No other volume needs to be there.
    median = "median" in name
    np.testing.assert_array_equal(model.predict({median: volumes[median]}), prob)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_2d_is_slice_by_slice(batch_size):
    model = untrained("unet2d")
    volume = random_volumes(8, 16, 16)[False]
    result = model.predict({False: volume}, batch_size=batch_size)
    slices = [model.network.predict_on_batch(plane[None, ..., None])[0] for plane in volume]
    assert result.shape == (8, 16, 16, 2)
    np.testing.assert_allclose(result, np.stack(slices), atol=1e-6)


def test_batch_sizes_agree_for_tunet():
    volumes = {False: random_volumes(8, 16, 16)[False].astype(np.float16)}
    one = untrained("tunet").predict(volumes, batch_size=1)
    assert one.shape == (8, 16, 16, 2)
    assert one.min() > 0
    assert one.max() < 1
    four = untrained("tunet").predict(volumes, batch_size=4)
    np.testing.assert_allclose(one, four, atol=1e-6)


def test_progress_adds_up_to_one():
    for name in ("unet2d", "tunet", "lnet"):
        parts = []
        recording(name).predict(random_volumes(*SHAPE), batch_size=3, on_part=parts.append)
        assert sum(parts) == pytest.approx(1)


def test_windows_over_the_box_around_the_mask_are_fewer():
    config = tiny_config(
        grid_shape=(8, 64, 64),
        lnet_shape=(4, 32, 32),
        patch_shape=(8, 16, 16),
        patch_stride=(8, 4, 4),
        grid_fov_mm=(40.0, 512.0, 512.0),
    )
    volumes = random_volumes(8, 64, 64)
    mask = np.zeros((8, 64, 64), bool)
    mask[2:5, 30:40, 2:6] = True
    counts, maps = {}, {}
    for tight in (False, True):
        model = recording("tunet", config)
        maps[tight] = model.predict(volumes, where=mask, tight=tight)
        counts[tight] = sum(map(len, model.network.batches))
    # 25 mm are 4 voxels in plane: y 26 to 44 and x 0 to 10, which is less than a window.
    assert counts == {False: 12, True: 2}
    np.testing.assert_allclose(maps[True][mask], maps[False][mask], rtol=1e-6)
    assert maps[True][:, 26:44, :16].any()
    maps[True][:, 26:44, :16] = 0
    assert not maps[True].any()


def test_a_box_is_all_of_a_volume_smaller_than_a_window():
    config = tiny_config()
    volumes = random_volumes(*config.grid_shape)
    where = np.ones(config.grid_shape, bool)
    both = [
        recording("tunet").predict(volumes, where=where, tight=tight) for tight in (False, True)
    ]
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("tight", [False, True])
def test_l_net_always_predicts_everywhere(tight):
    volumes = random_volumes(*SHAPE)
    where = np.zeros(SHAPE, bool)
    where[:2, :2, :2] = True
    everywhere = recording("lnet").predict(volumes)
    np.testing.assert_array_equal(
        recording("lnet").predict(volumes, where=where, tight=tight), everywhere
    )


def test_a_mask_without_a_voxel_is_an_error():
    with pytest.raises(DataError, match="the mask is empty"):
        recording("tunet").predict(random_volumes(*SHAPE), where=np.zeros(SHAPE, bool))


def test_a_batch_of_slices_has_no_depth():
    model = recording("unet2d")
    prob = model.predict_batch(np.ones((3, 1, 8, 8, 1), np.float32))
    assert model.network.batches[0].shape == (3, 8, 8, 1)
    assert prob.shape == (3, 1, 8, 8, 2)


KIND_OF = {
    "unet2d": SimpleNamespace(sees="slice", regions=("whole", "tumor"), factor=(1, 1, 1)),
    "unet3d": SimpleNamespace(sees="patch", regions=("whole", "tumor"), factor=(1, 1, 1)),
    "tunet": SimpleNamespace(sees="patch", regions=("whole", "tumor"), factor=(1, 1, 1)),
    "lnet": SimpleNamespace(sees="volume", regions=("whole",), factor=(2, 2, 2)),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_what_each_kind_takes_in_and_gives(variant):
    kind = KIND_OF[variant.network]
    assert variant.sees == kind.sees
    assert variant.regions == kind.regions
    assert variant.downsampling(PAPER) == kind.factor
    assert (
        variant.patch_shape(PAPER)
        == {
            "slice": (1, 256, 256),
            "patch": (128, 128, 128),
            "volume": (64, 128, 128),
        }[kind.sees]
    )
    # A slice or a volume is one window; patches overlap.
    assert (
        variant.patch_stride(PAPER)
        == {
            "slice": (1, 256, 256),
            "patch": (32, 32, 32),
            "volume": (64, 128, 128),
        }[kind.sees]
    )


def test_lnet_downsamples_by_two_in_the_paper():
    assert PAPER.lnet_downsampling == (2, 2, 2)


def test_an_axis_that_lnet_takes_as_it_is():
    config = tiny_config(lnet_shape=(8, 4, 8))
    assert config.lnet_downsampling == (1, 4, 2)
    assert VARIANTS["lnet"].downsampling(config) == (1, 4, 2)


@pytest.mark.parametrize("name", KINDS)
def test_the_network_gives_as_many_maps_as_there_are_regions(name):
    assert untrained(name).network.output.shape[-1] == len(VARIANTS[name].regions)


@pytest.mark.parametrize("tight", [False, True])
def test_a_mask_of_other_voxels_is_refused(tight):
    config = tiny_config()
    volumes = random_volumes(*config.grid_shape)
    where = np.ones([2 * size for size in config.grid_shape], bool)
    with pytest.raises(DataError, match=r"where .* are expected"):
        recording("tunet").predict(volumes, where=where, tight=tight)


def test_the_volume_that_it_needs_and_a_batch_are_named():
    volumes = random_volumes(*SHAPE)
    with pytest.raises(DataError, match=r"TuNet needs volumes\[False\]"):
        recording("tunet").predict({True: volumes[True]})
    with pytest.raises(DataError, match="batch_size is 0"):
        recording("tunet").predict(volumes, batch_size=0)


def test_no_memory_and_a_fork_are_said_in_a_sentence(monkeypatch):
    class ResourceExhaustedError(Exception):
        pass

    def exhausted(batch):
        raise ResourceExhaustedError("OOM when allocating tensor")

    model = Model.untrained(VARIANTS["unet2d"], tiny_config())
    monkeypatch.setattr(model.network, "predict_on_batch", exhausted)
    with pytest.raises(MemoryError, match="a smaller batch size"):
        model.predict_batch(np.zeros((1, 1, 8, 8, 1), np.float32))
    monkeypatch.setattr("tunet_lib.quiet.PROCESS", -1)
    with pytest.raises(DataError, match="forked"):
        model.predict_batch(np.zeros((1, 1, 8, 8, 1), np.float32))
    with pytest.raises(DataError, match="forked"):
        Model.untrained(VARIANTS["unet2d"], tiny_config())
