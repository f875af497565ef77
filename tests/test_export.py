"""Networks as ONNX graphs: what they answer, beside the Keras networks that they were made of."""

import builtins
import json
from dataclasses import asdict

import numpy as np
import pytest
from tiny import random_model
from typer.testing import CliRunner

from tunet_lib.cli import app
from tunet_lib.config import VARIANTS, Config
from tunet_lib.export import export_onnx, onnx_graph
from tunet_lib.files import DataError, save_json
from tunet_lib.model import Model
from tunet_lib.phantom import make_phantom
from tunet_lib.predict import COURSE_WEIGHTS, WIDE_WEIGHTS
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import scan_of
from tunet_lib.windows import cut_patch

onnxruntime = pytest.importorskip("onnxruntime")
CLOSE = 1e-4


def answer(graph, image):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["probability"], {"image": image.astype(np.float32)})[0]


@pytest.mark.parametrize("name", ["unet2d", "unet3d", "lnet", "tunet", "tunet_seb_median"])
def test_a_graph_answers_as_its_network_on_any_shape(name):
    model = random_model(name, levels=3)
    graph = onnx_graph(model).SerializeToString()
    rng = np.random.default_rng(1)
    for shape in ((2, 8, 8, 8, 1), (1, 12, 8, 4, 1)):
        image = rng.normal(0, 1, shape[1:] if name == "unet2d" else shape).astype(np.float32)
        expected = model.network.predict_on_batch(image)
        assert expected.std() > 0.01
        np.testing.assert_allclose(answer(graph, image), expected, rtol=0, atol=CLOSE)


def test_a_patch_of_air_is_normalized_to_the_last_digit():
    model = random_model("tunet", levels=3)
    image = np.full((1, 8, 8, 8, 1), -300.0, np.float32)
    image += np.random.default_rng(0).normal(0, 0.01, image.shape).astype(np.float32)
    expected = model.network.predict_on_batch(image)
    found = answer(onnx_graph(model).SerializeToString(), image)
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    return folder, export_onnx(COURSE_WEIGHTS, folder, variants=["lnet", "tunet"])


@pytest.mark.parametrize("name", ["lnet", "tunet"])
def test_the_course_networks_agree_on_a_phantom(exported, name):
    model = Model.load(COURSE_WEIGHTS / name)
    volume_hu, _, spacing_mm = make_phantom(np.random.default_rng(2019))
    volume = prepare_scan(scan_of(volume_hu, spacing_mm), model.config, [False])[False]
    patch = model.config.patch_shape
    if name == "lnet":
        patch = model.config.lnet_shape
    start = [(size - width) // 2 for size, width in zip(volume.shape, patch, strict=True)]
    image = cut_patch(volume, tuple(start), patch)[None, ..., None]
    expected = model.network.predict_on_batch(image)
    assert expected.max() > 0.5
    graph = (exported[0] / f"{name}.onnx").read_bytes()
    difference = np.abs(answer(graph, image) - expected)
    # These networks are steep: float64 moves their answers as far from Keras's (0.002) as ONNX does
    assert np.quantile(difference, 0.99) < CLOSE
    assert difference.max() < 50 * CLOSE
    half = onnx_graph(model, half=True).SerializeToString()
    assert len(half) < 0.55 * len(graph)
    np.testing.assert_allclose(answer(half, image), expected, rtol=0, atol=0.02)


def test_the_list_names_what_was_written(exported):
    folder, paths = exported
    values = json.loads((folder / "networks.json").read_text())
    assert [path.name for path in paths] == ["lnet.onnx", "tunet.onnx"]
    save_json(folder / "config.json", values["config"])
    assert Config.load(folder / "config.json") == Config.load(COURSE_WEIGHTS / "tunet/config.json")
    for path, entry in zip(paths, values["networks"], strict=True):
        assert entry["file"] == path.name
        assert entry["bytes"] == path.stat().st_size
        assert asdict(VARIANTS[entry["name"]]).items() >= {"median": entry["median"]}.items()


def test_the_command_exports_what_it_is_asked_for(exported, tmp_path):
    options = ["export", "--onnx", str(tmp_path), "--variant", "lnet", "--half"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lnet.onnx", "networks.json"]
    full = exported[0] / "lnet.onnx"  # of other weights, and as many
    assert (tmp_path / "lnet.onnx").stat().st_size < 0.55 * full.stat().st_size


def test_a_variant_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no trained unet3d"):
        export_onnx(WIDE_WEIGHTS, tmp_path / "out", variants=["unet3d"])
    assert not (tmp_path / "out").exists()


def test_without_onnx_it_says_how_to_get_it(monkeypatch):
    real = builtins.__import__
    monkeypatch.setattr("tunet_lib.extras.import_module", lambda name: real(f"no_{name}"))
    with pytest.raises(DataError, match=r"pip install \"tunet-book\[onnx\]\""):
        onnx_graph(random_model("lnet", levels=3))


@pytest.mark.parametrize("name", ["lnet", "unet3d"])
def test_a_network_that_is_named_needs_no_tunet_beside_it(tmp_path, name):
    random_model(name).save(tmp_path / "models" / name)
    (path,) = export_onnx(tmp_path / "models", tmp_path / "out", variants=name)
    assert path.name == f"{name}.onnx"
    with pytest.raises(DataError, match="holds no trained TuNet"):
        export_onnx(tmp_path / "models", tmp_path / "out")
