import json
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy import ndimage

from tunet_lib import nifti, preprocess
from tunet_lib.config import Config
from tunet_lib.files import DataError, save_array
from tunet_lib.grid import axis_matrices
from tunet_lib.kits19 import Case, find_cases, load_scan, open_scan, save_case
from tunet_lib.metrics import dice
from tunet_lib.preprocess import (
    Grid,
    from_grid,
    grid_for,
    label_from_grid,
    label_from_maps,
    label_to_grid,
    load_prepared,
    normalize,
    prepare_case,
    prepare_cases,
    prepare_scan,
    prepare_volume,
    scanned,
    to_grid,
)

# A grid of 8 x 16 x 16 voxels of 4 x 2 x 2 mm: 32 x 32 x 32 mm
SMALL = Config(
    resample_spacing_mm=(2.0, 1.0, 1.0),
    grid_fov_mm=(32.0, 32.0, 32.0),
    grid_shape=(8, 16, 16),
    lnet_shape=(4, 8, 8),
    levels=3,
    patch_shape=(8, 8, 8),
    patch_stride=(8, 8, 8),
)
GEOMETRIES = [
    ((8, 16, 16), (4.0, 2.0, 2.0)),  # the grid itself
    ((16, 32, 32), (2.0, 1.0, 1.0)),  # as resampled
    ((11, 23, 37), (2.7, 1.3, 0.81)),
    ((3, 40, 7), (5.0, 0.7, 3.0)),
    ((1, 1, 1), (5.0, 5.0, 5.0)),
]


def line(values, spacing_mm=1.0):
    """Lay a row of voxels along x, one voxel thick and as wide as the grid elsewhere."""
    return np.array(values, float)[None, None], (32.0, 32.0, spacing_mm)


# The grid


@pytest.mark.parametrize(
    ("scan_shape", "spacing_mm", "expected"),
    [
        ((10, 20, 20), (3.0, 1.0, 1.0), (8, 16, 16)),
        ((8, 32, 32), (4.0, 1.0, 1.0), (8, 16, 16)),  # exactly the field of view
        ((9, 32, 32), (4.0, 1.0, 1.0), (10, 16, 16)),  # to an even number
        ((8, 70, 32), (4.0, 1.0, 1.1), (8, 36, 18)),
    ],
)
def test_grid_grows_where_the_scan_exceeds_it(scan_shape, spacing_mm, expected):
    assert grid_for(scan_shape, spacing_mm, SMALL) == Grid(expected, (4.0, 2.0, 2.0))


def test_paper_grid():
    grid = grid_for((216, 512, 512), (3.0, 0.78, 0.78), Config.preset("paper"))
    assert grid.shape == (128, 256, 256)
    assert grid.spacing_mm == pytest.approx((5.898, 2.082, 2.082), abs=1e-3)


@pytest.mark.parametrize(("shape", "spacing_mm"), GEOMETRIES)
def test_scan_is_never_cropped(shape, spacing_mm):
    """Each scan voxel counts on the grid about as much as its volume."""
    config = replace(SMALL, resample_spacing_mm=spacing_mm)
    tall = (shape[0] * 3, shape[1] * 2, shape[2])
    grid = grid_for(tall, spacing_mm, config)
    for matrix, scan_mm, grid_mm in zip(
        axis_matrices(tall, spacing_mm, grid, config), spacing_mm, grid.spacing_mm, strict=True
    ):
        np.testing.assert_allclose(matrix.sum(axis=0) * grid_mm, scan_mm, rtol=1e-5)


# Known answers


def test_averaging_by_a_whole_factor():
    volume, spacing_mm = line(np.arange(32))
    grid = grid_for(volume.shape, spacing_mm, SMALL)
    assert grid.shape == (8, 16, 16)
    gridded = to_grid(volume, spacing_mm, grid, SMALL)
    np.testing.assert_allclose(gridded, np.broadcast_to(np.arange(0.5, 32, 2), (8, 16, 16)))


def test_padding_lies_evenly_on_both_sides():
    volume, spacing_mm = line([10, 20, 30, 40])
    row = to_grid(volume, spacing_mm, Grid((8, 16, 16), (4.0, 2.0, 2.0)), SMALL)[3, 5]
    np.testing.assert_allclose(row, [-1000] * 7 + [15, 35] + [-1000] * 7)


def test_voxel_half_in_the_scan_is_half_air():
    volume, spacing_mm = line([10, 20])  # 2 mm, in the middle of two grid voxels of 2 mm
    grid = Grid((8, 16, 16), (4.0, 2.0, 2.0))
    row = to_grid(volume, spacing_mm, grid, SMALL)[3, 5]
    np.testing.assert_allclose(row, [-1000] * 7 + [-495, -490] + [-1000] * 7)


def test_matrix_by_hand():
    """Three voxels of 2 mm, resampled at 1 mm, averaged into grid voxels of 2 mm.

    The scan voxels a, b, c lie at -2, 0, 2 mm, the samples at -2.5, -1.5, ..., 2.5 mm: a,
    (3a+b)/4, (a+3b)/4, (3b+c)/4, (b+3c)/4, c. The grid voxel from -2 to 0 mm is the mean
    of the second and the third; the one from -4 to -2 mm holds only the first, in one half.
    """
    grid = Grid((8, 16, 16), (4.0, 2.0, 2.0))
    matrix = axis_matrices((1, 1, 3), (32.0, 32.0, 2.0), grid, SMALL)[2]
    np.testing.assert_allclose(
        matrix[6:10], [[0.5, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 0.5]], atol=1e-7
    )
    assert not matrix[:6].any()
    assert not matrix[10:].any()


def test_interpolation_back_by_hand():
    """Grid voxels of 2 mm lie at -15, -13, ... mm; scan voxels of 1 mm at -1.5 ... 1.5 mm."""
    grid = Grid((1, 1, 16), (32.0, 32.0, 2.0))
    prob = np.zeros((1, 1, 16))
    prob[..., 7], prob[..., 8] = 0.4, 0.8  # at -1 and 1 mm
    back = from_grid(prob, grid, (1, 1, 4), (32.0, 32.0, 1.0))
    np.testing.assert_allclose(back[0, 0], [0.3, 0.5, 0.7, 0.6], atol=1e-6)


def test_beyond_the_outermost_centers_the_grid_is_constant():
    grid = Grid((1, 1, 2), (1.0, 1.0, 2.0))
    back = from_grid(np.array([[[0.2, 0.6]]]), grid, (1, 1, 8), (1.0, 1.0, 0.5))
    np.testing.assert_allclose(back[0, 0], [0.2, 0.2, 0.25, 0.35, 0.45, 0.55, 0.6, 0.6], atol=1e-6)


@pytest.mark.parametrize(("shape", "spacing_mm"), GEOMETRIES)
def test_constant_in_constant_out(shape, spacing_mm):
    grid = grid_for(shape, spacing_mm, SMALL)
    gridded = to_grid(np.full(shape, 50, np.int16), spacing_mm, grid, replace(SMALL, pad_hu=50))
    assert gridded.shape == grid.shape
    assert gridded.dtype == np.float32
    np.testing.assert_allclose(gridded, 50, rtol=1e-5)
    back = from_grid(np.full(grid.shape, 0.7), grid, shape, spacing_mm)
    assert back.shape == shape
    np.testing.assert_allclose(back, 0.7, rtol=1e-5)
    for label in (0, 1, 2):
        on_grid = np.full(grid.shape, label, np.uint8)
        np.testing.assert_array_equal(label_from_grid(on_grid, grid, shape, spacing_mm), label)


def ramp_mm(shape, spacing_mm, axis):
    position = (np.arange(shape[axis]) - (shape[axis] - 1) / 2) * spacing_mm[axis]
    return np.broadcast_to(np.expand_dims(position, [a for a in range(3) if a != axis]), shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ramp_in_mm_keeps_its_place_both_ways(axis):
    shape, spacing_mm = (11, 23, 37), (2.7, 1.3, 0.81)
    grid = grid_for(shape, spacing_mm, SMALL)
    there = to_grid(ramp_mm(shape, spacing_mm, axis), spacing_mm, grid, SMALL)
    ideal = ramp_mm(grid.shape, grid.spacing_mm, axis)
    reach_mm = [n * mm / 2 - 1.5 * g for n, mm, g in zip(shape, spacing_mm, (4, 2, 2), strict=True)]
    inner = np.all(
        [np.abs(ramp_mm(grid.shape, grid.spacing_mm, a)) < reach_mm[a] for a in range(3)], axis=0
    )
    assert inner.sum() > 100
    np.testing.assert_allclose(there[inner], ideal[inner], atol=1e-4)
    back = from_grid(ideal, grid, shape, spacing_mm)
    scan_inner = np.abs(ramp_mm(shape, spacing_mm, axis)) < 13
    np.testing.assert_allclose(
        back[scan_inner], ramp_mm(shape, spacing_mm, axis)[scan_inner], atol=1e-4
    )


# Labels


def test_labels_are_read_at_the_grid_centers():
    label = np.array([0, 1, 0, 0, 2, 0], np.uint8)[None, None]
    grid = Grid((1, 1, 4), (1.0, 1.0, 3.0))  # centers at -4.5, -1.5, 1.5, 4.5 mm
    np.testing.assert_array_equal(label_to_grid(label, (1.0, 1.0, 1.0), grid)[0, 0], [0, 1, 2, 0])


@pytest.mark.parametrize(("shape", "spacing_mm"), [((16, 32, 32), (2.0, 1.0, 1.0)), GEOMETRIES[2]])
def test_cube_off_center_stays_where_it_is(shape, spacing_mm):
    label = np.zeros(shape, np.uint8)
    label[2:7, 4:12, 20:30] = 1
    grid = grid_for(shape, spacing_mm, SMALL)

    def center_mm(mask, mm):
        middle = np.argwhere(mask).mean(axis=0) - (np.array(mask.shape) - 1) / 2
        return middle * mm

    on_grid = label_to_grid(label, spacing_mm, grid)
    there = center_mm(label, spacing_mm)
    assert np.all(np.abs(center_mm(on_grid, grid.spacing_mm) - there) <= (2.1, 1.1, 1.1))
    volume_there = to_grid(label, spacing_mm, grid, replace(SMALL, pad_hu=0))
    weights = volume_there / volume_there.sum()
    for axis in range(3):
        place_mm = (weights * ramp_mm(grid.shape, grid.spacing_mm, axis)).sum()
        assert place_mm == pytest.approx(there[axis], abs=0.25)
    back = label_from_grid(on_grid, grid, shape, spacing_mm)
    shift_mm = center_mm(back, spacing_mm) - center_mm(on_grid, grid.spacing_mm)
    assert np.all(np.abs(shift_mm) <= np.array(spacing_mm) / 2 + 0.01)


def sphere(shape, spacing_mm, center_mm, radius_mm):
    distance = sum((ramp_mm(shape, spacing_mm, a) - center_mm[a]) ** 2 for a in range(3))
    return distance <= radius_mm**2


def test_round_trip_of_a_kidney_sized_sphere_with_a_tumor():
    config = Config.preset(
        "paper",
        grid_fov_mm=(94.375, 66.625, 66.625),
        grid_shape=(16, 32, 32),
        lnet_shape=(8, 16, 16),
        patch_shape=(16, 32, 32),
        patch_stride=(16, 32, 32),
    )
    shape, spacing_mm = (30, 80, 80), (3.0, 0.8, 0.8)
    label = sphere(shape, spacing_mm, (3, 2, -4), 26).astype(np.uint8)
    label[sphere(shape, spacing_mm, (0, 8, -8), 13)] = 2
    grid = grid_for(shape, spacing_mm, config)
    back = label_from_grid(label_to_grid(label, spacing_mm, grid), grid, shape, spacing_mm)
    assert dice(back > 0, label > 0) > 0.95
    assert dice(back == 2, label == 2) > 0.9


def test_tumor_overwrites_kidney_and_slabs_do_not_matter(monkeypatch):
    rng = np.random.default_rng(1)
    grid, shape, spacing_mm = Grid((8, 16, 16), (4.0, 2.0, 2.0)), (13, 21, 19), (2.2, 1.4, 1.5)
    label = rng.integers(0, 3, grid.shape).astype(np.uint8)
    volume = rng.normal(size=shape)
    back = label_from_grid(label, grid, shape, spacing_mm)
    whole = from_grid(label > 0, grid, shape, spacing_mm) >= 0.5
    tumor = from_grid(label == 2, grid, shape, spacing_mm) >= 0.5
    np.testing.assert_array_equal(back, np.where(tumor, 2, whole))
    there = to_grid(volume, spacing_mm, grid, SMALL)
    monkeypatch.setattr("tunet_lib.grid.SLAB_VOXELS", 3 * 21 * 19)
    np.testing.assert_array_equal(label_from_grid(label, grid, shape, spacing_mm), back)
    np.testing.assert_allclose(to_grid(volume, spacing_mm, grid, SMALL), there, atol=1e-4)


# Normalization and median


def test_statistics_are_those_of_the_patient():
    shape, spacing_mm = (10, 20, 20), (2.0, 1.0, 1.0)
    volume_hu = np.random.default_rng(2).integers(-900, 900, shape).astype(np.int16)
    grid = grid_for(shape, spacing_mm, SMALL)
    inside = scanned(shape, spacing_mm, grid, SMALL)
    assert inside.sum() == 6 * 10 * 10  # 5 of 4 mm, shared by 6 as it is centered; 10 of 2 mm
    volume = prepare_volume(volume_hu, spacing_mm, SMALL)
    assert volume[inside].mean() == pytest.approx(0, abs=1e-5)
    assert volume[inside].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("median", [False, True])
def test_padding_is_normalized_air(median):
    shape, spacing_mm = (8, 20, 20), (2.0, 1.0, 1.0)
    volume_hu = np.random.default_rng(2).integers(-900, 900, shape).astype(np.int16)
    grid = grid_for(shape, spacing_mm, SMALL)
    grid_hu = to_grid(volume_hu, spacing_mm, grid, SMALL)
    outer = np.ones(grid.shape, bool)
    outer[1:-1, 2:-2, 2:-2] = False
    assert (grid_hu[outer] == -1000).all()
    if median:
        grid_hu = preprocess._median(grid_hu, SMALL)
    _, mean_hu, sd_hu = normalize(grid_hu, scanned(shape, spacing_mm, grid, SMALL))
    volume = prepare_volume(volume_hu, spacing_mm, SMALL, median)
    np.testing.assert_allclose(volume[outer], (-1000 - mean_hu) / sd_hu, rtol=1e-5)


def test_normalize_by_hand():
    grid_hu = np.array([[[-1000, 10, 30, -1000]]], np.float32)
    volume, mean_hu, sd_hu = normalize(grid_hu, grid_hu > -1000)
    assert (mean_hu, sd_hu) == (20, 10)
    np.testing.assert_allclose(volume, [[[-102, -1, 1, -102]]])


def test_constant_scan_is_zero_not_nan():
    volume = prepare_volume(np.full((8, 16, 16), 40, np.int16), (4.0, 2.0, 2.0), SMALL)
    np.testing.assert_array_equal(volume, 0)


def test_median_removes_salt_and_keeps_edges():
    grid_hu = np.full((8, 16, 16), 20, np.float32)
    grid_hu[:, :, 8:] = 60
    salted = grid_hu.copy()
    salted[3, 4, 5], salted[0, 0, 0], salted[7, 15, 15] = 3000, -3000, 3000
    np.testing.assert_array_equal(preprocess._median(salted, SMALL), grid_hu)


def test_median_leaves_the_padding_out_without_a_trace():
    grid_hu = np.full((12, 20, 20), -1000, np.float32)
    grid_hu[4:9, 6:15, 0:10] = np.random.default_rng(3).normal(size=(5, 9, 10))
    expected = ndimage.median_filter(grid_hu, 3, mode="nearest")
    np.testing.assert_array_equal(preprocess._median(grid_hu, SMALL), expected)
    air = np.full((4, 4, 4), -1000, np.float32)
    np.testing.assert_array_equal(preprocess._median(air, SMALL), air)


# Prepared cases


SHAPE, SPACING_MM = (10, 20, 24), (3.0, 1.3, 1.1)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(5)
    for index in range(3):
        volume_hu = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
        label = (rng.random(SHAPE) < 0.3).astype(np.uint8) * 2
        save_case(tmp_path / "data", f"case_{index:05d}", volume_hu, label, SPACING_MM)
    return tmp_path / "data"


def test_prepared_case_holds_what_prediction_sees(data, tmp_path):
    case = find_cases(data)[1]
    prepared = prepare_case(case, tmp_path / "out", SMALL)
    assert (prepared.case_id, prepared.folder) == ("case_00001", tmp_path / "out" / "case_00001")
    assert prepared.source_shape == SHAPE
    assert prepared.spacing_mm == SPACING_MM
    assert prepared.grid == Grid((8, 16, 16), (4.0, 2.0, 2.0))
    np.testing.assert_allclose(
        np.diag(np.fliplr(np.array(prepared.affine)[:3, :3])), [-1.1, -1.3, -3.0], rtol=1e-6
    )
    scan = load_scan(case.image_path)
    for median in (False, True):
        stored = prepared.volume(median)
        assert stored.dtype == np.float16
        expected = prepare_volume(scan.volume_hu, scan.spacing_mm, SMALL, median)
        np.testing.assert_allclose(stored, expected, atol=2e-3)  # float16, up to 4 SD
    label = preprocess.load_label(case.label_path, scan)
    np.testing.assert_array_equal(
        prepared.label(), label_to_grid(label, scan.spacing_mm, prepared.grid)
    )
    assert load_prepared(tmp_path / "out") == [prepared]


def blobs(seed, shape=(8, 16, 16)):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.5, 0.75, 0.97])
def test_maps_are_cut_after_interpolation_and_no_voxel_is_left_out(threshold):
    grid, shape, spacing_mm = Grid((8, 16, 16), (4.0, 2.0, 2.0)), (21, 23, 25), (1.5, 1.3, 1.1)
    whole, tumor = blobs(0), blobs(1)
    label = label_from_maps(whole, tumor, grid, shape, spacing_mm, threshold)
    expected = (from_grid(whole, grid, shape, spacing_mm) >= threshold).astype(np.uint8)
    expected[from_grid(tumor, grid, shape, spacing_mm) >= threshold] = 2
    assert (label != expected).mean() < 1e-4  # a sum in another order may round otherwise
    assert set(np.unique(label)) == {0, 1, 2}


def test_maps_that_reach_nothing_give_an_empty_label_map():
    grid, nothing = Grid((8, 16, 16), (4.0, 2.0, 2.0)), np.zeros((8, 16, 16), np.float32)
    label = label_from_maps(nothing, nothing, grid, (5, 6, 7), (2.0, 2.0, 2.0))
    assert (label.shape, label.dtype, label.max()) == ((5, 6, 7), np.uint8, 0)


def test_what_is_found_in_the_padding_alone_is_left_out():
    grid, prob = Grid((8, 16, 16), (4.0, 2.0, 2.0)), np.zeros((8, 16, 16), np.float32)
    prob[0, 0, 0] = 1
    label = label_from_maps(prob, prob, grid, (2, 6, 7), (2.0, 2.0, 2.0))
    assert (label.shape, label.max()) == ((2, 6, 7), 0)


def test_a_constant_map_gives_a_constant_label_map():
    grid, all_of_it = Grid((8, 16, 16), (4.0, 2.0, 2.0)), np.full((8, 16, 16), 0.7, np.float32)
    label = label_from_maps(all_of_it, all_of_it - 0.3, grid, (9, 30, 30), (4.0, 1.0, 1.0))
    assert (label == 1).all()


AXES = ["IPL", "RAS", "LPS", "SRA", "PIR", "ASL"]


@pytest.mark.parametrize("codes", AXES)
@pytest.mark.parametrize("block_bytes", [1, 2000, 1 << 24])
def test_read_block_by_block_it_is_the_same_in_any_orientation(
    tmp_path, monkeypatch, codes, block_bytes
):
    volume_hu = np.random.default_rng(0).normal(0, 200, (9, 14, 11)).astype(np.int16)
    save_case(tmp_path, "case_00000", volume_hu, None, (3.0, 1.3, 1.1))
    path = tmp_path / "case_00000" / "imaging.nii.gz"
    turned = nib.load(path).as_reoriented(
        orientations.ornt_transform(
            orientations.axcodes2ornt("IPL"), orientations.axcodes2ornt(codes)
        )
    )
    nib.save(turned, tmp_path / "turned.nii.gz")
    monkeypatch.setattr(nifti, "BLOCK_BYTES", block_bytes)
    scan = open_scan(tmp_path / "turned.nii.gz")
    assert (scan.shape, scan.spacing_mm) == ((9, 14, 11), (3.0, 1.3, 1.1))
    whole = np.zeros(scan.shape, np.int16)
    for axis, part, block in scan.blocks():
        np.moveaxis(whole, axis, 0)[part] = np.moveaxis(block, axis, 0)
    np.testing.assert_array_equal(whole, volume_hu)
    grid = grid_for(scan.shape, scan.spacing_mm, SMALL)
    from_file = to_grid(scan, scan.spacing_mm, grid, SMALL)
    from_array = to_grid(volume_hu, scan.spacing_mm, grid, SMALL)
    np.testing.assert_allclose(from_file, from_array, atol=1e-3)


def test_a_constant_scan_read_block_by_block_is_constant_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "BLOCK_BYTES", 500)
    save_case(tmp_path, "case_00000", np.full((9, 14, 11), 40, np.int16), None, (3.0, 1.3, 1.1))
    scan = open_scan(tmp_path / "case_00000" / "imaging.nii.gz")
    grid = grid_for(scan.shape, scan.spacing_mm, SMALL)
    grid_hu = to_grid(scan, scan.spacing_mm, grid, SMALL)
    inner = to_grid(np.ones(scan.shape), scan.spacing_mm, grid, replace(SMALL, pad_hu=0.0)) > 0.999
    assert inner.any()
    np.testing.assert_allclose(grid_hu[inner], 40, atol=1.1)  # 0.001 of it may be air
    np.testing.assert_allclose(grid_hu.min(), SMALL.pad_hu)


def test_a_scan_is_prepared_both_ways_in_one_reading(data):
    path = find_cases(data)[0].image_path
    scan = load_scan(path)
    both = prepare_scan(open_scan(path), SMALL, [True, False, True])
    assert set(both) == {True, False}
    for median, volume in both.items():
        expected = prepare_volume(scan.volume_hu, scan.spacing_mm, SMALL, median)
        np.testing.assert_allclose(volume, expected, atol=1e-4)
    again = prepare_scan(scan, SMALL, [False])
    np.testing.assert_allclose(again[False], both[False], atol=1e-4)


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
    save_case(data, "case_00000", None, np.ones(SHAPE), SPACING_MM)
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
        find_cases(data), tmp_path / "out", SMALL, seen.append, workers=workers
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
    with pytest.raises(DataError, match=r"case_00002/case\.json: is from another version"):
        load_prepared(out)
