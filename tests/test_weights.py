"""Weights on disk: whole, of this network, finite, or not read at all."""

import h5py
import numpy as np
import pytest
from tiny import tiny_config

from tunet_lib.config import VARIANTS
from tunet_lib.files import DIGEST_BYTES, DataError
from tunet_lib.model import Model
from tunet_lib.quiet import keras
from tunet_lib.training import compiled
from tunet_lib.weights import halve_weights, read_weights, write_weights


@pytest.fixture(scope="module")
def network():
    return Model.untrained(VARIANTS["lnet"], tiny_config(levels=1)).network


@pytest.fixture(scope="module")
def other():
    return Model.untrained(VARIANTS["lnet"], tiny_config(levels=1)).network


@pytest.fixture
def path(tmp_path, network):
    write_weights(tmp_path / "model.weights.h5", network)
    return tmp_path / "model.weights.h5"


def assert_read(path, other, network):
    other.set_weights([np.zeros_like(array) for array in other.get_weights()])
    read_weights(path, other)
    for one, two in zip(other.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_they_come_back(path, network, other):
    assert_read(path, other, network)


def test_halves_come_back_rounded_and_as_float32(path, tmp_path, network, other):
    halve_weights(path, tmp_path / "half.weights.h5")
    read_weights(tmp_path / "half.weights.h5", other)
    for one, two in zip(other.get_weights(), network.get_weights(), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, two.astype(np.float16))
    assert (tmp_path / "half.weights.h5").stat().st_size < path.stat().st_size
    content = bytearray((tmp_path / "half.weights.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "half.weights.h5").write_bytes(content)
    with pytest.raises(DataError, match="digest"):
        read_weights(tmp_path / "half.weights.h5", other)


def test_what_is_damaged_or_missing_is_not_halved(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.weights.h5").write_bytes(content)
    (tmp_path / "text.weights.h5").write_bytes(b"no weights")
    for name in ("damaged", "text", "missing"):
        with pytest.raises(DataError, match=f"{name}.weights.h5: cannot be read as weights"):
            halve_weights(tmp_path / f"{name}.weights.h5", tmp_path / "half.weights.h5")
    assert not (tmp_path / "half.weights.h5").exists()


def test_keras_reads_them_as_its_own_and_its_own_are_read(path, tmp_path, network, other):
    other.set_weights([np.zeros_like(array) for array in other.get_weights()])
    other.load_weights(path)
    np.testing.assert_array_equal(other.get_weights()[0], network.get_weights()[0])
    network.save_weights(tmp_path / "keras.weights.h5")
    assert_read(tmp_path / "keras.weights.h5", other, network)


def test_any_flipped_bit_is_noticed(path, other):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content) - DIGEST_BYTES, 100):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="digest is not that of its content"):
            read_weights(path, other)


def test_without_a_digest_what_is_damaged_is_a_data_error_or_loads(path, other):
    content = path.read_bytes()[:-DIGEST_BYTES]
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 20):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            read_weights(path, other)
        except DataError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, network, other, value):
    spoiled = keras.models.clone_model(network)
    arrays = network.get_weights()
    arrays[1] = np.full_like(arrays[1], value)
    spoiled.set_weights(arrays)
    write_weights(tmp_path / "model.weights.h5", spoiled)
    with pytest.raises(DataError, match="holds numbers that are not finite"):
        read_weights(tmp_path / "model.weights.h5", other)


def test_a_promise_of_a_terabyte_is_not_read(path, other):
    path.write_bytes(path.read_bytes()[:-DIGEST_BYTES])
    with h5py.File(path, "a") as file:
        names = []
        file.visititems(lambda name, found: names.append(name) if found.name[-1] == "0" else None)
        name = next(name for name in names if isinstance(file[name], h5py.Dataset))
        del file[name]
        file.create_dataset(name, (2**38,), np.float32, chunks=(1024,))
    with pytest.raises(DataError, match="other sizes than the network's"):
        read_weights(path, other)


def test_what_is_refused_leaves_the_old_file(path, network):
    before = path.read_bytes()

    def refuse():
        raise DataError("taken over")

    with pytest.raises(DataError, match="taken over"):
        write_weights(path, network, before=refuse)
    assert path.read_bytes() == before


def test_those_of_a_compiled_network_are_saved_without_adams_memory(path, tmp_path):
    trained = compiled(VARIANTS["lnet"], tiny_config(levels=1))
    trained.fit(np.zeros((1, 4, 8, 8, 1)), np.zeros((1, 4, 8, 8, 1)), verbose=0)
    write_weights(tmp_path / "compiled.weights.h5", trained)
    assert (tmp_path / "compiled.weights.h5").stat().st_size == path.stat().st_size
    again = Model.untrained(VARIANTS["lnet"], tiny_config(levels=1)).network
    read_weights(tmp_path / "compiled.weights.h5", again)
    for one, two in zip(again.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
