import json
import os
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scans import SMALL, as_oriented
from scipy import ndimage

from tunet_lib import nifti, preprocess
from tunet_lib.config import Config
from tunet_lib.files import DataError, save_array
from tunet_lib.kits19 import Case, find_cases, save_case
from tunet_lib.placement import Placement
from tunet_lib.preprocess import (
    filter_and_normalize,
    load_prepared,
    normalize,
    prepare_case,
    prepare_cases,
    prepare_scan,
)
from tunet_lib.scans import ipl_affine, load_label, load_scan, open_scan, scan_of

# Normalization and median


def test_statistics_are_those_of_the_patient():
    shape, spacing_mm = (10, 20, 20), (2.0, 1.0, 1.0)
    volume_hu = np.random.default_rng(2).integers(-900, 900, shape).astype(np.int16)
    scan = scan_of(volume_hu, spacing_mm)
    inside = Placement(scan, SMALL).covered
    assert inside.sum() == 6 * 10 * 10  # 5 of 4 mm, shared by 6 as it is centered; 10 of 2 mm
    volume = prepare_scan(scan, SMALL)[False]
    assert volume[inside].mean() == pytest.approx(0, abs=1e-5)
    assert volume[inside].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("median", [False, True])
def test_padding_is_normalized_air(median):
    shape, spacing_mm = (8, 20, 20), (2.0, 1.0, 1.0)
    volume_hu = np.random.default_rng(2).integers(-900, 900, shape).astype(np.int16)
    scan = scan_of(volume_hu, spacing_mm)
    placement = Placement(scan, SMALL)
    grid_hu = placement.to_grid(scan)
    outer = np.ones(placement.grid_shape, bool)
    outer[1:-1, 2:-2, 2:-2] = False
    assert (grid_hu[outer] == -1000).all()
    if median:
        grid_hu = preprocess.median_filter(grid_hu, SMALL)
    _, mean_hu, sd_hu = normalize(grid_hu, placement.covered)
    volume = prepare_scan(scan, SMALL, [median])[median]
    np.testing.assert_allclose(volume[outer], (-1000 - mean_hu) / sd_hu, rtol=1e-5)


def test_normalize_by_hand():
    grid_hu = np.array([[[-1000, 10, 30, -1000]]], np.float32)
    volume, mean_hu, sd_hu = normalize(grid_hu, grid_hu > -1000)
    assert (mean_hu, sd_hu) == (20, 10)
    np.testing.assert_allclose(volume, [[[-102, -1, 1, -102]]])
    with pytest.raises(TypeError, match="bool"):  # 0 and 1 are no places
        normalize(grid_hu, (grid_hu > -1000).astype(np.uint8))


def test_constant_scan_is_zero_not_nan():
    scan = scan_of(np.full((8, 16, 16), 40, np.int16), (4.0, 2.0, 2.0))
    np.testing.assert_array_equal(prepare_scan(scan, SMALL)[False], 0)


def test_a_constant_that_resampling_rounds_is_nearly_zero_and_fits_16_bits():
    config = Config.preset("course")
    scan = scan_of(np.full((40, 200, 200), 41, np.int16), (3.0, 0.7, 0.7))
    volume = prepare_scan(scan, config)[False]
    assert np.abs(volume[32, 56, 56]) < 1e-3
    assert np.isfinite(volume.astype(np.float16)).all()


def test_median_removes_salt_and_keeps_edges():
    grid_hu = np.full((8, 16, 16), 20, np.float32)
    grid_hu[:, :, 8:] = 60
    salted = grid_hu.copy()
    salted[3, 4, 5], salted[0, 0, 0], salted[7, 15, 15] = 3000, -3000, 3000
    np.testing.assert_array_equal(preprocess.median_filter(salted, SMALL), grid_hu)


def test_median_leaves_the_padding_out_without_a_trace():
    grid_hu = np.full((12, 20, 20), -1000, np.float32)
    grid_hu[4:9, 6:15, 0:10] = np.random.default_rng(3).normal(size=(5, 9, 10))
    expected = ndimage.median_filter(grid_hu, 3, mode="nearest")
    np.testing.assert_array_equal(preprocess.median_filter(grid_hu, SMALL), expected)
    air = np.full((4, 4, 4), -1000, np.float32)
    np.testing.assert_array_equal(preprocess.median_filter(air, SMALL), air)


@pytest.mark.parametrize("median", [False, True])
def test_the_window_of_hu_is_cut_out_after_the_median(median):
    config = replace(SMALL, clip_hu=(-200.0, 300.0))
    grid_hu = np.random.default_rng(4).normal(100, 400, (8, 16, 16)).astype(np.float32)
    inside = grid_hu > -500
    filtered = ndimage.median_filter(grid_hu, 3, mode="nearest") if median else grid_hu
    expected, *_ = normalize(filtered.clip(-200, 300), inside)
    volume = filter_and_normalize(grid_hu, inside, config, median=median)
    np.testing.assert_array_equal(volume, expected)
    assert len(np.unique(volume)) > 100


# Prepared cases


SHAPE, SPACING_MM = (10, 20, 24), (3.0, 1.3, 1.1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("written"), np.random.default_rng(5)
    for index in range(3):
        volume_hu = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
        label = (rng.random(SHAPE) < 0.3).astype(np.uint8) * 2
        save_case(folder / f"case_{index:05d}", volume_hu, label, spacing_mm=SPACING_MM)
    return folder


@pytest.fixture
def data(written, tmp_path):
    return shutil.copytree(written, tmp_path / "data")


def test_prepared_case_holds_what_prediction_sees(data, tmp_path):
    case = find_cases(data)[1]
    prepared = prepare_case(case, tmp_path / "out", SMALL)
    assert (prepared.case_id, prepared.folder) == ("case_00001", tmp_path / "out" / "case_00001")
    assert prepared.shape == SHAPE
    assert prepared.spacing_mm == SPACING_MM
    assert prepared.grid_shape == (8, 16, 16)
    scan = load_scan(case.image_path)
    placement = Placement(scan, SMALL)
    assert placement.grid_spacing_mm == (4.0, 2.0, 2.0)
    for median, expected in prepare_scan(scan, SMALL).items():
        stored = prepared.volume(median)
        assert stored.dtype == np.float16
        np.testing.assert_allclose(stored, expected, atol=2e-3)  # float16, up to 4 SD
    label = load_label(case.label_path, scan)
    np.testing.assert_array_equal(prepared.label(), placement.label_to_grid(label))
    assert load_prepared(tmp_path / "out") == [prepared]


def test_a_scan_is_prepared_both_ways_in_one_reading(data):
    path = find_cases(data)[0].image_path
    scan = load_scan(path)
    both = prepare_scan(open_scan(path), SMALL, [True, False, True])
    assert set(both) == {True, False}
    for median, volume in both.items():
        expected = prepare_scan(scan, SMALL, [median])
        assert set(expected) == {median}
        np.testing.assert_array_equal(volume, expected[median])


# Of a file: voxel type, and factor and offset of its header
STORED = {
    "int16": (np.int16, None),
    "uint8": (np.uint8, None),
    "float32": (np.float32, None),
    "scaled": (np.int16, (0.37, -12.3)),
}


def stored_file(path, kind, codes):
    """Write noise as voxels of one kind, in a file of one orientation."""
    dtype, slope = STORED[kind]
    noise = np.random.default_rng(3).normal(100, 300, SHAPE)
    stored = (noise.clip(0, 255) if dtype == np.uint8 else noise).astype(dtype)
    image = as_oriented(nib.Nifti1Image(stored, ipl_affine(SPACING_MM)), codes)
    raw = bytearray(image.to_bytes())
    if slope:
        raw[112:120] = np.array(slope, "<f4").tobytes()
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("codes", ["IPL", "RAS", "LPS", "ASL"])
@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("block_bytes", [1, 3000])
def test_preparation_gives_the_same_bits_everywhere(
    tmp_path, monkeypatch, codes, kind, block_bytes
):
    path = stored_file(tmp_path / "imaging.nii", kind, codes)
    monkeypatch.setattr(nifti, "BLOCK_BYTES", block_bytes)
    assert len(list(open_scan(path).blocks())) > 1
    on_disk = prepare_scan(open_scan(path), SMALL)
    in_memory = prepare_scan(load_scan(path), SMALL)
    prepared = prepare_case(Case("case_00000", path, None), tmp_path / "out", SMALL)
    for median in (False, True):
        assert np.array_equal(on_disk[median], in_memory[median])
        assert np.array_equal(on_disk[median].astype(np.float16), prepared.volume(median))
    assert not np.array_equal(on_disk[False], on_disk[True])


@pytest.mark.parametrize("dtype", [np.int16, np.float64])
@pytest.mark.parametrize("block_bytes", [1, 3000, 1 << 24])
def test_an_array_is_prepared_to_the_bits_of_its_file(tmp_path, monkeypatch, dtype, block_bytes):
    volume_hu = np.random.default_rng(3).integers(-1000, 1000, SHAPE).astype(dtype)
    case = save_case(tmp_path / "case_00000", volume_hu, spacing_mm=SPACING_MM)
    if dtype != np.int16:  # a file of the same type; KiTS19's layout knows int16 only
        image = nib.Nifti1Image(volume_hu.astype(np.float32), ipl_affine(SPACING_MM))
        nib.save(image, case.image_path)
    monkeypatch.setattr(nifti, "BLOCK_BYTES", block_bytes)
    of_array = prepare_scan(scan_of(volume_hu, SPACING_MM), SMALL)
    of_file = prepare_scan(open_scan(case.image_path), SMALL)
    for median in (False, True):
        assert np.array_equal(of_array[median], of_file[median])


def test_case_without_a_label(data, tmp_path):
    case = replace(find_cases(data)[0], label_path=None)
    prepared = prepare_case(case, tmp_path / "out", SMALL)
    with pytest.raises(DataError, match="case_00000: has no label map; training and scoring need"):
        prepared.label()


def modified(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_prepared_case_is_kept_until_something_changes(data, tmp_path):
    case, out = find_cases(data)[0], tmp_path / "out"
    folder = prepare_case(case, out, SMALL).folder
    before = modified(folder)
    prepare_case(case, out, replace(SMALL, learning_rate=1.0))
    assert modified(folder) == before
    prepare_case(case, out, replace(SMALL, pad_hu=-1024.0))
    assert modified(folder)["case.json"] != before["case.json"]

    before = modified(folder)
    save_case(data / "case_00000", label=np.ones(SHAPE), spacing_mm=SPACING_MM)
    assert (prepare_case(find_cases(data)[0], out, SMALL).label() > 0).sum() > 500
    assert modified(folder)["label.npy"] != before["label.npy"]


@pytest.mark.parametrize("lost", ["case.json", "volume.npy", "volume_median.npy", "label.npy"])
@pytest.mark.parametrize("cut", [False, True])
def test_incomplete_case_is_prepared_again(data, tmp_path, lost, cut):
    case, out = find_cases(data)[0], tmp_path / "out"
    path = prepare_case(case, out, SMALL).folder / lost
    whole = path.read_bytes()
    if cut:
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.unlink()
    prepare_case(case, out, SMALL)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["volume.npy", "volume_median.npy", "label.npy"])
def test_a_flipped_bit_is_found_and_mended_by_preparing_again(data, tmp_path, name):
    prepare_case(find_cases(data)[0], tmp_path, SMALL)
    path = tmp_path / "case_00000" / name
    content = path.read_bytes()
    path.write_bytes(content[:-200] + bytes([content[-200] ^ 1]) + content[-199:])
    with pytest.raises(DataError, match=rf"{name}: .*digest.*; prepare it again"):
        load_prepared(tmp_path, SMALL)
    prepare_case(find_cases(data)[0], tmp_path, SMALL)
    assert path.read_bytes() == content
    load_prepared(tmp_path, SMALL)


def test_interrupted_preparation_leaves_no_prepared_case(data, tmp_path, monkeypatch):
    case, out = find_cases(data)[0], tmp_path / "out"
    prepare_case(case, out, SMALL)

    def stop(path, array):
        if path.name == "volume_median.npy":
            raise KeyboardInterrupt
        save_array(path, array)

    monkeypatch.setattr(preprocess, "save_array", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_case(case, out, replace(SMALL, pad_hu=-1024.0))
    with pytest.raises(DataError, match="holds no prepared case"):
        load_prepared(out)


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_case_does_not_stop_the_others(data, tmp_path, workers):
    (data / "case_00001" / "imaging.nii.gz").write_text("<html>")
    (data / "case_00003").mkdir()
    (data / "case_00003" / "segmentation.nii.gz").write_bytes(b"")
    seen = []
    prepared, failures = prepare_cases(
        find_cases(data), tmp_path / "out", SMALL, workers=workers, on_case=seen.append
    )
    assert [case.case_id for case in prepared] == ["case_00000", "case_00002"]
    assert list(failures) == ["case_00001", "case_00003"]
    assert "imaging.nii.gz: is not a NIfTI image (a web page)" in failures["case_00001"]
    assert "case_00003: has no imaging.nii.gz" in failures["case_00003"]
    assert sorted(seen) == [f"case_{index:05d}" for index in range(4)]
    assert load_prepared(tmp_path / "out") == prepared


def test_full_disk_is_reported_and_work_goes_on_when_there_is_room(data, tmp_path, monkeypatch):
    replace_file = os.replace

    def fill_up(source, target):
        if str(target).endswith("volume_median.npy"):
            raise OSError(28, "No space left on device")
        replace_file(source, target)

    cases, out = find_cases(data), tmp_path / "out"
    monkeypatch.setattr(os, "replace", fill_up)
    prepared, failures = prepare_cases(cases, out, SMALL)
    assert prepared == []
    assert all("volume_median.npy: the disk is full" in reason for reason in failures.values())
    assert len(failures) == 3
    assert {path.name for path in out.rglob("*.*")} == {"volume.npy"}
    monkeypatch.setattr(os, "replace", replace_file)
    prepared, failures = prepare_cases(cases, out, SMALL)
    assert (len(prepared), failures) == (3, {})


def test_missing_image_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"case_00009: has no imaging\.nii\.gz"):
        prepare_case(Case("case_00009", None, None), tmp_path, SMALL)
    gone = Case("case_00009", tmp_path / "imaging.nii.gz", None)
    with pytest.raises(DataError, match=r"imaging\.nii\.gz: does not exist"):
        prepare_case(gone, tmp_path, SMALL)


def test_output_folder_that_is_a_file_is_a_data_error(data, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match=r"volume\.npy: cannot write here"):
        prepare_case(find_cases(data)[0], tmp_path / "out", SMALL)


def test_load_prepared_refuses_other_numbers_and_broken_cases(data, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="out: holds no prepared case; run `tunet prepare`"):
        load_prepared(out)
    prepared, _ = prepare_cases(find_cases(data), out, SMALL)
    assert load_prepared(out, SMALL) == prepared
    with pytest.raises(DataError, match="case_00000: was prepared with another pad_hu"):
        load_prepared(out, replace(SMALL, pad_hu=0.0))
    path = out / "case_00002" / "case.json"
    path.write_text(json.dumps({"case_id": "case_00002"}))
    with pytest.raises(DataError, match=r"case_00002/case\.json: is damaged"):
        load_prepared(out)
