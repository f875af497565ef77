"""One CT from its voxels to its label map, with untrained, pretended or the course's networks."""

import dataclasses
import shutil

import nibabel as nib
import numpy as np
import pytest
from scans import (
    SHAPE,
    SPACING_MM,
    as_oriented,
    one_map_at_a_time,
    save_network,
    scan_config,
    write_scans,
)
from tiny import tiny_config

from tunet_lib import model as model_module
from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS, Config
from tunet_lib.files import DataError
from tunet_lib.kits19 import save_case
from tunet_lib.metrics import kits19_score
from tunet_lib.model import Model
from tunet_lib.model_folder import ModelFolder
from tunet_lib.phantom import make_phantom
from tunet_lib.postprocess import postprocess
from tunet_lib.predict import COURSE_WEIGHTS, WIDE_WEIGHTS, find_models, in_turn, predict_scan
from tunet_lib.scans import load_scan, open_scan, scan_of
from tunet_lib.windows import predict_windows, starts_at, window_starts

CONFIG = scan_config(levels=1)


def described(folder, name, config=CONFIG):
    """Make the files by which a trained network is known, with weights that are none."""
    files = ModelFolder(folder)
    files.describe(VARIANTS[name], config)
    files.weights.touch()


def names_in(folder):
    return [[found.variant().name for found in kind] for kind in find_models(folder)]


def test_models_are_searched_in_depth_and_baselines_left_out(tmp_path):
    for fold in ("fold_0", "fold_1"):
        for name in ("unet2d", "tunet", "lnet"):
            described(tmp_path / "models" / fold / name, name)
    assert names_in(tmp_path) == [["lnet"] * 2, ["tunet"] * 2]
    localizers, voters = find_models(str(tmp_path / "models"))
    assert [found.path.parent.name for found in (*localizers, *voters)] == ["fold_0", "fold_1"] * 2


def test_what_is_not_trained_to_its_end_is_no_model(tmp_path):
    described(tmp_path / "tunet", "tunet")
    described(tmp_path / "tunet_seb", "tunet_seb")
    (tmp_path / "tunet_seb" / "model.weights.h5").unlink()
    assert names_in(tmp_path) == [[], ["tunet"]]


@pytest.mark.parametrize("folder", ["models", "absent"])
def test_a_folder_without_a_tunet(tmp_path, folder):
    described(tmp_path / "models", "lnet")
    with pytest.raises(DataError, match=f"{folder}: holds no trained TuNet"):
        find_models(tmp_path / folder)


def test_models_of_two_configurations(tmp_path):
    described(tmp_path / "a", "tunet")
    described(tmp_path / "b", "lnet", scan_config(levels=1, pad_hu=-900.0))
    with pytest.raises(DataError, match=r"b: has another configuration.*pad_hu differ"):
        find_models(tmp_path)


def test_course_weights_are_a_model_of_each_kind():
    localizers, voters = names_in(COURSE_WEIGHTS)
    assert (set(localizers), set(voters)) == (set(LOCALIZERS), set(ENSEMBLE))


def test_wide_weights_are_a_localizer_and_a_tunet_that_may_find_no_tumor():
    assert names_in(WIDE_WEIGHTS) == [["lnet"], ["tunet"]]
    assert not Config.load(WIDE_WEIGHTS / "tunet" / "config.json").tumor_is_whole_if_none


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained networks of all that vote and localize."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate((*LOCALIZERS, *ENSEMBLE)):
        save_network(folder / name, name, CONFIG, seed)
    return folder


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return write_scans(tmp_path_factory.mktemp("data"), 1)[0]


@pytest.mark.filterwarnings("ignore:.*L-Net")
def test_prediction_holds_one_map_at_a_time(models, case, monkeypatch):
    made = []
    monkeypatch.setattr(Model, "predict", one_map_at_a_time(made))
    predict_scan(load_scan(case.image_path), models)
    assert len(made) == 6


def test_one_network_of_each_kind_is_built_and_predicts_as_if_it_were_alone(models, monkeypatch):
    alone = {name: Model.load(models / name) for name in (*LOCALIZERS, *ENSEMBLE)}
    build, built = model_module.build, []

    def counted(variant, config):
        built.append(variant.name)
        return build(variant, config)

    monkeypatch.setattr(model_module, "build", counted)
    rng = np.random.default_rng(0)
    shape = CONFIG.grid_shape
    volumes = {median: rng.normal(size=shape).astype(np.float32) for median in (False, True)}
    seen, networks = [], set()
    for found in find_models(models):
        for model in in_turn(found):
            name = model.variant.name
            np.testing.assert_array_equal(model.predict(volumes), alone[name].predict(volumes))
            seen.append(name)
            networks.add(id(model.network))
    assert seen == [*LOCALIZERS, *ENSEMBLE]
    assert built == ["lnet", "tunet", "tunet_seb"]
    assert len(networks) == 3


def test_networks_are_loaded_one_at_a_time(models, monkeypatch):
    loaded, load = [], Model.load

    def noted(path, **options):
        loaded.append(path.name)
        return load(path, **options)

    monkeypatch.setattr(Model, "load", noted)
    for number, model in enumerate(in_turn(find_models(models)[1]), start=1):
        assert loaded[-1] == model.variant.name
        assert len(loaded) == number


@pytest.mark.parametrize("axes", ["RAS", "PIR"])
def test_a_scan_on_disk_gives_the_label_map_of_one_in_memory(models, case, tmp_path, axes):
    path = tmp_path / "scan.nii.gz"
    as_oriented(nib.load(case.image_path), axes).to_filename(path)
    from_file = predict_scan(open_scan(path), models)
    from_memory = predict_scan(load_scan(path), str(models))
    assert from_file.dtype == np.uint8
    assert from_file.shape == SHAPE
    assert len(np.unique(from_file)) > 1, "a constant map would prove little"
    np.testing.assert_array_equal(from_file, from_memory)


def test_all_windows_are_predicted_unless_a_mask_leaves_some_out(models, case, monkeypatch):
    asked = []

    def answer(self, volumes, *, where=None, tight=False, batch_size=1, on_part=None):
        asked.append((self.variant.name, None if where is None else int(where.sum()), tight))
        shape = volumes[self.variant.median].shape
        prob = np.zeros((*shape, len(self.variant.regions)), np.float32)
        prob[2:4, 2:4, 2:4] = 1
        return prob

    monkeypatch.setattr(Model, "predict", answer)
    for windows, expected in (
        ("all", (None, False)),
        ("mask", (8, False)),
        ("box", (8, True)),
    ):
        asked.clear()
        predict_scan(load_scan(case.image_path), models, windows=windows)
        assert [name for name, *_ in asked] == [*LOCALIZERS, *ENSEMBLE]
        assert {tuple(how) for name, *how in asked if name in LOCALIZERS} == {(None, False)}
        assert {tuple(how) for name, *how in asked if name in ENSEMBLE} == {expected}
    with pytest.raises(DataError, match="windows is 'Box', must be one of all, mask, box"):
        predict_scan(load_scan(case.image_path), models, windows="Box")


@pytest.mark.parametrize("factor", [1, 2])
def test_a_ct_larger_than_the_field_of_view_is_not_cropped(tmp_path, monkeypatch, factor):
    """A lesion at the very corner of a CT twice as large is found there."""
    save_network(tmp_path / "models", "tunet", CONFIG)
    shape = tuple(size * factor for size in SHAPE)
    label = np.zeros(shape, np.uint8)
    label[-6:, -12:, -12:] = 2
    case = save_case(tmp_path / "case_00000", label.astype(np.int16) * 1000, spacing_mm=SPACING_MM)

    def find_bright(self, volumes, *, on_part, **_):
        volume = volumes[False]
        on_part(1.0)
        return np.stack([volume > volume.max() / 2] * 2, axis=-1).astype(np.float32)

    monkeypatch.setattr(Model, "predict", find_bright)
    parts = []
    found = predict_scan(load_scan(case.image_path), tmp_path / "models", on_part=parts.append)
    assert parts == [1.0]
    assert found.shape == shape
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[-5:, -10:, -10:], 2)
    assert not found[:-8, :-16, :-16].any()


def test_a_tall_ct_is_the_same_whole_and_in_blocks(tmp_path):
    """The course's networks on a phantom twice as tall as their field of view."""
    config = Config.load(COURSE_WEIGHTS / "tunet" / "config.json")
    depth, rows, columns = config.patch_shape
    # Windows side by side, four in a plane instead of 25
    config = dataclasses.replace(config, patch_stride=(depth, rows, columns))
    depth, *plane = config.grid_shape
    height_mm, *plane_mm = config.grid_fov_mm
    twice = dataclasses.replace(
        config,
        grid_shape=(2 * depth, *plane),
        grid_fov_mm=(2 * height_mm, *plane_mm),
        lnet_shape=(2 * config.lnet_shape[0], *config.lnet_shape[1:]),
    )
    for name in ("lnet", "tunet"):
        shutil.copytree(COURSE_WEIGHTS / name, tmp_path / "blocks" / name)
        shutil.copytree(COURSE_WEIGHTS / name, tmp_path / "whole" / name)
        config.save(tmp_path / "blocks" / name / "config.json")
        twice.save(tmp_path / "whole" / name / "config.json")
    slices = int(2 * height_mm / 5)
    volume_hu, label, spacing_mm = make_phantom(
        np.random.default_rng(1), (slices, 96, 96), (5.0, 4.0, 4.0)
    )
    scan = scan_of(volume_hu, spacing_mm)
    in_blocks = predict_scan(scan, tmp_path / "blocks", batch_size=4)
    whole = predict_scan(scan, tmp_path / "whole", batch_size=4)
    agree = kits19_score(in_blocks, whole)
    assert min(agree["whole"], agree["tumor"]) >= 0.99
    assert kits19_score(in_blocks, label)["whole"] > 0.5  # and there is something to agree on


def blob_maps(*blobs):
    """Give a volume that is a probability map: boxes (corner, size, probability)."""
    volume = np.zeros((4, 24, 24), np.float32)
    for corner, size, prob in blobs:
        volume[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = prob
    return volume


def whole_and_tumor(batch):
    """Whole where the volume is above 0, tumor with the volume's own value."""
    return np.concatenate([(batch > 0).astype(np.float32), batch], axis=-1)


def labels_both_ways(volume, mask, **changes):
    """Give the label maps with all windows, and with those that reach the mask."""
    config = tiny_config(small_tumor_voxels=10, **changes)
    labels, counts = [], []
    for where in (None, mask):
        windows = []

        def predict(batch, windows=windows):
            windows.append(len(batch))
            return whole_and_tumor(batch)

        starts = window_starts(volume.shape, (4, 8, 8), (4, 4, 4))
        if where is not None:
            starts = starts_at(where, starts, (4, 8, 8))
        maps = predict_windows(predict, volume, starts, window=(4, 8, 8))
        if where is not None:
            maps[~where] = 0  # as `predict_scan` does
        labels.append(
            postprocess(maps[..., 0], maps[..., 1], config, lnet_mask=mask, voxel_volume_mm3=25.0)
        )
        counts.append(sum(windows))
    assert counts[1] < counts[0]
    return labels


MASK = np.zeros((4, 24, 24), bool)
MASK[:, 2:9, 2:9] = True
INSIDE = ((1, 3, 3), (2, 4, 4))


@pytest.mark.parametrize("prob", [0.9, 0.35, 0.15])
@pytest.mark.parametrize("outside", [[], [((0, 18, 18), (2, 3, 3), 0.05)]])
def test_the_label_map_is_the_same_if_nothing_outside_matters(prob, outside):
    full, limited = labels_both_ways(blob_maps((*INSIDE, prob), *outside), MASK)
    np.testing.assert_array_equal(full, limited)
    assert (full == 2).sum() == 32


def test_a_sure_tumor_outside_ends_the_search_for_an_unsure_one_inside():
    full, limited = labels_both_ways(
        blob_maps((*INSIDE, 0.35), ((0, 18, 18), (2, 3, 3), 0.9)), MASK
    )
    assert not (full == 2).any()  # line 11 did not apply: something reached T, out there
    assert (limited == 2).sum() == 32


def test_an_unsure_tumor_outside_keeps_the_kidney_from_being_called_one():
    volume = blob_maps((*INSIDE, 0.05), ((0, 18, 18), (2, 3, 3), 0.15))
    full, limited = labels_both_ways(volume, MASK)
    assert (full == 1).sum() == 32  # line 13 did not apply: something reached 0.1, out there
    assert (limited == 2).sum() == 32


def test_voxels_outside_make_a_small_tumor_a_large_one():
    # Of a small tumor the rim down to 0.2 counts (line 21), of a large one down to 0.3.
    inside = [(*INSIDE, 0.25), ((1, 3, 3), (1, 2, 2), 0.9)]
    full, limited = labels_both_ways(blob_maps(*inside, ((0, 16, 16), (4, 8, 8), 0.9)), MASK)
    assert (full == 2).sum() == 4
    assert (limited == 2).sum() == 32


def test_models_in_folders_that_are_links_are_found(tmp_path):
    for name in ("tunet", "lnet"):
        shutil.copytree(COURSE_WEIGHTS / name, tmp_path / "far" / name)
    (tmp_path / "models" / "fold_0").mkdir(parents=True)
    (tmp_path / "models" / "fold_1").symlink_to(tmp_path / "far", target_is_directory=True)
    (tmp_path / "far" / "back").symlink_to(tmp_path / "models", target_is_directory=True)
    localizers, voters = find_models(tmp_path / "models")
    assert [len(localizers), len(voters)] == [1, 1]
