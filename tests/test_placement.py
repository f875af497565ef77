from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import pytest
from scans import ORIENTATIONS, SMALL, as_oriented
from scipy import ndimage

from tunet_lib import nifti, placement
from tunet_lib.config import Config
from tunet_lib.files import DataError
from tunet_lib.kits19 import save_case
from tunet_lib.metrics import dice
from tunet_lib.placement import Axis, Placement, box_average, linear_interpolation
from tunet_lib.preprocess import prepare_case
from tunet_lib.scans import ipl_affine, load_label_map, load_scan, open_scan, scan_of

GEOMETRIES = [
    ((8, 16, 16), (4.0, 2.0, 2.0)),  # the grid itself
    ((16, 32, 32), (2.0, 1.0, 1.0)),  # as resampled
    ((11, 23, 37), (2.7, 1.3, 0.81)),
    ((3, 40, 7), (5.0, 0.7, 3.0)),
    ((1, 1, 1), (5.0, 5.0, 5.0)),
]


@dataclass(frozen=True)
class Extent:
    """All that a placement looks at."""

    shape: tuple
    spacing_mm: tuple


def placed(shape, spacing_mm, config=SMALL):
    return Placement(Extent(shape, spacing_mm), config)


def gridded(volume_hu, spacing_mm, config=SMALL):
    """Bring an array to the grid."""
    scan = scan_of(volume_hu, spacing_mm)
    return Placement(scan, config).to_grid(scan)


def row_config(count, spacing_mm):
    """Configure a grid of one row of voxels."""
    shape = (1, 1, count)
    return replace(
        SMALL,
        grid_shape=shape,
        grid_fov_mm=(*spacing_mm[:2], count * spacing_mm[2]),
        lnet_shape=shape,
        patch_shape=shape,
        patch_stride=shape,
        levels=1,
    )


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
    place = placed(scan_shape, spacing_mm)
    assert (place.grid_shape, place.grid_spacing_mm) == (expected, (4.0, 2.0, 2.0))
    assert (place.scan_shape, place.scan_spacing_mm) == (scan_shape, spacing_mm)


def test_paper_grid():
    place = placed((216, 512, 512), (3.0, 0.78, 0.78), Config.preset("paper"))
    assert place.grid_shape == (128, 256, 256)
    assert place.grid_spacing_mm == pytest.approx((5.898, 2.082, 2.082), abs=1e-3)


@pytest.mark.parametrize(("shape", "spacing_mm"), GEOMETRIES)
def test_scan_is_never_cropped(shape, spacing_mm):
    """Each scan voxel counts on the grid about as much as its volume."""
    config = replace(SMALL, resample_spacing_mm=spacing_mm)
    tall = (shape[0] * 3, shape[1] * 2, shape[2])
    place = placed(tall, spacing_mm, config)
    for matrix, scan_mm, grid_mm in zip(
        place.onto_grid, spacing_mm, place.grid_spacing_mm, strict=True
    ):
        np.testing.assert_allclose(matrix.sum(axis=0) * grid_mm, scan_mm, rtol=1e-5)


def test_scan_file_label_map_and_prepared_case_have_one_place(tmp_path):
    shape, spacing_mm = (21, 24, 20), (2.3, 1.7, 1.1)  # larger than the field of view
    volume_hu = np.random.default_rng(0).integers(-900, 900, shape).astype(np.int16)
    case = save_case(tmp_path / "case_00000", volume_hu, (volume_hu > 0) * 2, spacing_mm=spacing_mm)
    for path, name in ((case.image_path, "ct"), (case.label_path, "label")):
        nib.save(as_oriented(nib.load(path), "RAS"), tmp_path / f"{name}.nii.gz")
    measured = {
        "scan": load_scan(case.image_path),
        "file": open_scan(case.image_path),
        "turned file": open_scan(tmp_path / "ct.nii.gz"),
        "label map": load_label_map(case.label_path),
        "turned label map": load_label_map(tmp_path / "label.nii.gz"),
        "array": scan_of(volume_hu, spacing_mm),
        "prepared case": prepare_case(case, tmp_path / "prepared", SMALL),
    }
    expected = placed(shape, spacing_mm)
    assert expected.grid_shape == (14, 22, 16)
    for name, scan in measured.items():
        place = Placement(scan, SMALL)
        assert (place.scan_shape, place.scan_spacing_mm) == (shape, spacing_mm), name
        assert place.grid_shape == expected.grid_shape, name
        for way in ("onto_grid", "onto_scan"):
            for matrix, other in zip(getattr(place, way), getattr(expected, way), strict=True):
                np.testing.assert_array_equal(matrix, other, err_msg=name)
    assert measured["prepared case"].volume(False).shape == expected.grid_shape


def test_matrices_are_computed_once_and_have_the_shapes_of_both_sides():
    place = placed(*GEOMETRIES[2])
    assert place.onto_grid is place.onto_grid
    assert place.onto_scan is place.onto_scan
    assert [m.shape for m in place.onto_grid] == [(8, 11), (16, 23), (16, 37)]
    assert [m.shape for m in place.onto_scan] == [(11, 8), (23, 16), (37, 16)]
    assert {m.dtype for m in (*place.onto_grid, *place.onto_scan)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("shape", "spacing_mm"), GEOMETRIES)
def test_a_grid_voxel_is_covered_if_half_of_it_lies_in_the_scan(shape, spacing_mm):
    # Each sample at the resampling's voxel size counts whole, so give it that of the scan.
    config = replace(SMALL, resample_spacing_mm=spacing_mm)
    place = placed(shape, spacing_mm, config)
    share = np.ones(1)
    for count, mm, size, grid_mm in zip(
        shape, spacing_mm, place.grid_shape, place.grid_spacing_mm, strict=True
    ):
        start_mm = (np.arange(size) - size / 2) * grid_mm
        end_mm, half_mm = start_mm + grid_mm, count * mm / 2
        inside_mm = np.minimum(end_mm, half_mm) - np.maximum(start_mm, -half_mm)
        share = share[..., None] * np.maximum(inside_mm, 0) / grid_mm
    clear = np.abs(share[0] - 0.5) > 1e-5  # where rounding decides
    np.testing.assert_array_equal(place.covered[clear], (share[0] >= 0.5)[clear])
    assert place.covered.shape == place.grid_shape


# Interpolation and averages


@pytest.mark.parametrize("source", [Axis(1, 3.0), Axis(5, 1.7), Axis(9, 0.4)])
@pytest.mark.parametrize("target", [Axis(1, 2.0), Axis(7, 1.1), Axis(20, 0.9)])
def test_interpolation_is_that_of_numpy(source, target):
    values = np.random.default_rng(0).normal(size=source.count)
    matrix = linear_interpolation(source, target)
    assert matrix.shape == (target.count, source.count)
    expected = np.interp(target.centers_mm, source.centers_mm, values)
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)


@pytest.mark.parametrize(("source", "target"), [((6, 1.0), (3, 2.0)), ((5, 0.7), (4, 1.9))])
def test_an_average_keeps_the_sum_of_what_is_covered(source, target):
    source, target = Axis(*source), Axis(*target)
    matrix = box_average(source, target)
    assert matrix.shape == (target.count, source.count)
    assert matrix.min() >= 0
    assert matrix.sum(axis=1).max() <= 1 + 1e-12
    np.testing.assert_allclose(matrix.sum(axis=0) * target.voxel_mm, source.voxel_mm)


def test_centers_lie_about_the_middle():
    assert Axis(4, 2.0).centers_mm.tolist() == [-3, -1, 1, 3]
    assert Axis(3, 2.0).centers_mm.tolist() == [-2, 0, 2]


# Known answers


def test_averaging_by_a_whole_factor():
    volume, spacing_mm = line(np.arange(32))
    assert placed(volume.shape, spacing_mm).grid_shape == (8, 16, 16)
    np.testing.assert_allclose(
        gridded(volume, spacing_mm), np.broadcast_to(np.arange(0.5, 32, 2), (8, 16, 16))
    )


def test_padding_lies_evenly_on_both_sides():
    row = gridded(*line([10, 20, 30, 40]))[3, 5]
    np.testing.assert_allclose(row, [-1000] * 7 + [15, 35] + [-1000] * 7)


def test_voxel_half_in_the_scan_is_half_air():
    volume, spacing_mm = line([10, 20])  # 2 mm, in the middle of two grid voxels of 2 mm
    row = gridded(volume, spacing_mm)[3, 5]
    np.testing.assert_allclose(row, [-1000] * 7 + [-495, -490] + [-1000] * 7)


def test_matrix_by_hand():
    """Three voxels of 2 mm, resampled at 1 mm, averaged into grid voxels of 2 mm.

    The scan voxels a, b, c lie at -2, 0, 2 mm, the samples at -2.5, -1.5, ..., 2.5 mm: a,
    (3a+b)/4, (a+3b)/4, (3b+c)/4, (b+3c)/4, c. The grid voxel from -2 to 0 mm is the mean
    of the second and the third; the one from -4 to -2 mm holds only the first, in one half.
    """
    matrix = placed((1, 1, 3), (32.0, 32.0, 2.0)).onto_grid[2]
    np.testing.assert_allclose(
        matrix[6:10], [[0.5, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 0.5]], atol=1e-7
    )
    assert not matrix[:6].any()
    assert not matrix[10:].any()


def test_interpolation_back_by_hand():
    """Grid voxels of 2 mm lie at -15, -13, ... mm; scan voxels of 1 mm at -1.5 ... 1.5 mm."""
    prob = np.zeros((1, 1, 16))
    prob[..., 7], prob[..., 8] = 0.4, 0.8  # at -1 and 1 mm
    place = placed((1, 1, 4), (32.0, 32.0, 1.0), row_config(16, (32.0, 32.0, 2.0)))
    assert place.grid_shape == prob.shape
    np.testing.assert_allclose(place.from_grid(prob)[0, 0], [0.3, 0.5, 0.7, 0.6], atol=1e-6)


def test_beyond_the_outermost_centers_the_grid_is_constant():
    place = placed((1, 1, 8), (1.0, 1.0, 0.5), row_config(2, (1.0, 1.0, 2.0)))
    back = place.from_grid(np.array([[[0.2, 0.6]]]))
    np.testing.assert_allclose(back[0, 0], [0.2, 0.2, 0.25, 0.35, 0.45, 0.55, 0.6, 0.6], atol=1e-6)


@pytest.mark.parametrize(("shape", "spacing_mm"), GEOMETRIES)
def test_constant_in_constant_out(shape, spacing_mm):
    place = placed(shape, spacing_mm)
    there = gridded(np.full(shape, 50, np.int16), spacing_mm, replace(SMALL, pad_hu=50))
    assert there.shape == place.grid_shape
    assert there.dtype == np.float32
    np.testing.assert_allclose(there, 50, rtol=1e-5)
    back = place.from_grid(np.full(place.grid_shape, 0.7))
    assert back.shape == shape
    np.testing.assert_allclose(back, 0.7, rtol=1e-5)
    for label in (0, 1, 2):
        on_grid = np.full(place.grid_shape, label, np.uint8)
        np.testing.assert_array_equal(place.label_from_grid(on_grid), label)


def ramp_mm(shape, spacing_mm, axis):
    position = (np.arange(shape[axis]) - (shape[axis] - 1) / 2) * spacing_mm[axis]
    return np.broadcast_to(np.expand_dims(position, [a for a in range(3) if a != axis]), shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ramp_in_mm_keeps_its_place_both_ways(axis):
    shape, spacing_mm = (11, 23, 37), (2.7, 1.3, 0.81)
    place = placed(shape, spacing_mm)
    grid = place.grid_shape, place.grid_spacing_mm
    there = gridded(ramp_mm(shape, spacing_mm, axis), spacing_mm)
    ideal = ramp_mm(*grid, axis)
    reach_mm = [n * mm / 2 - 1.5 * g for n, mm, g in zip(shape, spacing_mm, (4, 2, 2), strict=True)]
    inner = np.all([np.abs(ramp_mm(*grid, a)) < reach_mm[a] for a in range(3)], axis=0)
    assert inner.sum() > 100
    np.testing.assert_allclose(there[inner], ideal[inner], atol=1e-4)
    back = place.from_grid(ideal)
    scan_inner = np.abs(ramp_mm(shape, spacing_mm, axis)) < 13
    np.testing.assert_allclose(
        back[scan_inner], ramp_mm(shape, spacing_mm, axis)[scan_inner], atol=1e-4
    )


# Labels


def test_labels_are_read_at_the_grid_centers():
    label = np.array([0, 1, 0, 0, 2, 0], np.uint8)[None, None]
    # centers at -4.5, -1.5, 1.5, 4.5 mm
    place = placed(label.shape, (1.0, 1.0, 1.0), row_config(4, (1.0, 1.0, 3.0)))
    np.testing.assert_array_equal(place.label_to_grid(label)[0, 0], [0, 1, 2, 0])


@pytest.mark.parametrize(("shape", "spacing_mm"), [((16, 32, 32), (2.0, 1.0, 1.0)), GEOMETRIES[2]])
def test_cube_off_center_stays_where_it_is(shape, spacing_mm):
    label = np.zeros(shape, np.uint8)
    label[2:7, 4:12, 20:30] = 1
    place = placed(shape, spacing_mm)

    def center_mm(mask, mm):
        middle = np.argwhere(mask).mean(axis=0) - (np.array(mask.shape) - 1) / 2
        return middle * mm

    on_grid = place.label_to_grid(label)
    there = center_mm(label, spacing_mm)
    assert np.all(np.abs(center_mm(on_grid, place.grid_spacing_mm) - there) <= (2.1, 1.1, 1.1))
    volume_there = gridded(label, spacing_mm, replace(SMALL, pad_hu=0))
    weights = volume_there / volume_there.sum()
    for axis in range(3):
        place_mm = (weights * ramp_mm(place.grid_shape, place.grid_spacing_mm, axis)).sum()
        assert place_mm == pytest.approx(there[axis], abs=0.25)
    back = place.label_from_grid(on_grid)
    shift_mm = center_mm(back, spacing_mm) - center_mm(on_grid, place.grid_spacing_mm)
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
    place = placed(shape, spacing_mm, config)
    back = place.label_from_grid(place.label_to_grid(label))
    assert dice(back > 0, label > 0) > 0.95
    assert dice(back == 2, label == 2) > 0.9


def test_tumor_overwrites_kidney_and_slabs_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(1)
    shape, spacing_mm = (13, 21, 19), (2.2, 1.4, 1.5)
    place = placed(shape, spacing_mm)
    assert place.grid_shape == (8, 16, 16)
    label = rng.integers(0, 3, place.grid_shape).astype(np.uint8)
    volume = rng.normal(size=shape)
    back = place.label_from_grid(label)
    whole = place.from_grid(label > 0) >= 0.5
    tumor = place.from_grid(label == 2) >= 0.5
    np.testing.assert_array_equal(back, np.where(tumor, 2, whole))
    there = gridded(volume, spacing_mm)
    monkeypatch.setattr(placement, "SLAB_VOXELS", 3 * 21 * 19)
    np.testing.assert_array_equal(place.label_from_grid(label), back)
    monkeypatch.setattr(nifti, "BLOCK_BYTES", 3 * 13 * 21 * 4)
    np.testing.assert_allclose(gridded(volume, spacing_mm), there, atol=1e-4)


# Maps


def blobs(seed, shape=(8, 16, 16)):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.5, 0.75, 0.97])
def test_maps_are_cut_after_interpolation_and_no_voxel_is_left_out(threshold):
    place = placed((21, 23, 25), (1.5, 1.3, 1.1))
    whole, tumor = blobs(0), blobs(1)
    label = place.label_from_maps(whole, tumor, threshold)
    expected = (place.from_grid(whole) >= threshold).astype(np.uint8)
    expected[place.from_grid(tumor) >= threshold] = 2
    assert (label != expected).mean() < 1e-4  # a sum in another order may round otherwise
    assert set(np.unique(label)) == {0, 1, 2}


def test_maps_that_reach_nothing_give_an_empty_label_map():
    nothing = np.zeros((8, 16, 16), np.float32)
    label = placed((5, 6, 7), (2.0, 2.0, 2.0)).label_from_maps(nothing, nothing)
    assert (label.shape, label.dtype, label.max()) == ((5, 6, 7), np.uint8, 0)


def test_what_is_found_in_the_padding_alone_is_left_out():
    prob = np.zeros((8, 16, 16), np.float32)
    prob[0, 0, 0] = 1
    label = placed((2, 6, 7), (2.0, 2.0, 2.0)).label_from_maps(prob, prob)
    assert (label.shape, label.max()) == ((2, 6, 7), 0)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"), [((9, 30, 30), (4.0, 1.0, 1.0)), ((16, 32, 32), (2.0, 1.0, 1.0))]
)
def test_a_constant_map_gives_a_constant_label_map(shape, spacing_mm):
    place = placed(shape, spacing_mm)
    all_of_it = np.full(place.grid_shape, 0.7, np.float32)
    assert (place.label_from_maps(all_of_it, all_of_it - 0.3) == 1).all()


# Block by block


AXES = ["IPL", "RAS", "LPS", "SRA", "PIR", "ASL"]


@pytest.mark.parametrize("codes", AXES)
@pytest.mark.parametrize("block_bytes", [1, 2000, 1 << 24])
def test_read_block_by_block_it_is_the_same_in_any_orientation(
    tmp_path, monkeypatch, codes, block_bytes
):
    volume_hu = np.random.default_rng(0).normal(0, 200, (9, 14, 11)).astype(np.int16)
    spacing_mm = (3.0, 1.3, 1.1)
    path = save_case(tmp_path / "case_00000", volume_hu, spacing_mm=spacing_mm).image_path
    nib.save(as_oriented(nib.load(path), codes), tmp_path / "turned.nii.gz")
    monkeypatch.setattr(nifti, "BLOCK_BYTES", block_bytes)
    scan = open_scan(tmp_path / "turned.nii.gz")
    assert (scan.shape, scan.spacing_mm) == ((9, 14, 11), (3.0, 1.3, 1.1))
    whole = np.zeros(scan.shape, np.int16)
    for axis, part, block in scan.blocks():
        np.moveaxis(whole, axis, 0)[part] = np.moveaxis(block, axis, 0)
    np.testing.assert_array_equal(whole, volume_hu)
    from_file = Placement(scan, SMALL).to_grid(scan)
    np.testing.assert_allclose(from_file, gridded(volume_hu, spacing_mm), atol=1e-3)


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 5, 4), (5, 1, 4), (5, 4, 1), (1, 1, 3)])
def test_blocks_of_one_plane_from_memory_give_the_bits_of_those_from_disk(
    tmp_path, monkeypatch, shape
):
    """NumPy keeps no order of axes where one has a single voxel, nor does a change of type."""
    monkeypatch.setattr(nifti, "BLOCK_BYTES", 1)
    volume = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    image = nib.Nifti1Image(volume, ipl_affine((3.0, 1.3, 1.1)))
    for codes in ORIENTATIONS[::7]:  # each order of the axes, flipped in another way
        path = tmp_path / f"{codes}.nii"
        path.write_bytes(as_oriented(image, codes).to_bytes())
        on_disk, in_memory = open_scan(path), load_scan(path)
        place = Placement(on_disk, SMALL)
        assert np.array_equal(place.to_grid(on_disk), place.to_grid(in_memory)), codes


def test_a_constant_scan_read_block_by_block_is_constant_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "BLOCK_BYTES", 500)
    constant = np.full((9, 14, 11), 40, np.int16)
    case = save_case(tmp_path / "case_00000", constant, spacing_mm=(3.0, 1.3, 1.1))
    scan = open_scan(case.image_path)
    grid_hu = Placement(scan, SMALL).to_grid(scan)
    inner = gridded(np.ones(scan.shape), scan.spacing_mm, replace(SMALL, pad_hu=0.0)) > 0.999
    assert inner.any()
    np.testing.assert_allclose(grid_hu[inner], 40, atol=1.1)  # 0.001 of it may be air
    np.testing.assert_allclose(grid_hu.min(), SMALL.pad_hu)


def test_what_is_of_another_scan_or_grid_is_a_data_error():
    here = placed((8, 16, 16), (4.0, 2.0, 2.0))
    label, prob = np.zeros((8, 16, 17), np.uint8), np.zeros((9, 16, 16), np.float32)
    with pytest.raises(DataError, match=r"\(8, 16, 17\)"):
        here.label_to_grid(label)
    for back in (here.from_grid, here.label_from_grid):
        with pytest.raises(DataError, match=r"\(9, 16, 16\)"):
            back(prob)


def test_a_field_of_view_in_cm_is_refused():
    config = Config.preset("course", grid_fov_mm=(33.6, 43.2, 43.2))
    scan = scan_of(np.zeros((100, 8, 8), np.int16), (3.0, 50.0, 50.0))
    with pytest.raises(DataError, match=r"a grid of \(572, .*grid_fov_mm=\(33\.6, .* in mm\?"):
        Placement(scan, config)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"), [((8, 16, 12), (4.0, 2.0, 2.0)), ((8, 16, 16), (4.0, 1.0, 1.0))]
)
def test_another_scan_is_not_taken_for_the_one_that_was_placed(shape, spacing_mm):
    other = scan_of(np.zeros(shape, np.int16), spacing_mm)
    with pytest.raises(DataError, match=r"where .* are expected"):
        placed((8, 16, 16), (4.0, 2.0, 2.0)).to_grid(other)
