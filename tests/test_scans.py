import nibabel as nib
import numpy as np
import pytest
from isal import igzip
from nibabel import orientations
from scans import AFFINE, LABEL, ORIENTATIONS, VOLUME, VOLUME_MM, as_oriented

from tunet_lib import nifti
from tunet_lib.files import DataError
from tunet_lib.kits19 import save_case
from tunet_lib.scans import (
    ipl_affine,
    ipl_orientation,
    load_label,
    load_label_map,
    load_scan,
    open_scan,
    reorient,
    save_label,
    scan_of,
)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return save_case(
        tmp_path_factory.mktemp("data") / "case_00007", VOLUME, LABEL, spacing_mm=VOLUME_MM
    )


@pytest.fixture
def own_case(tmp_path):
    return save_case(tmp_path / "case_00007", VOLUME, LABEL, spacing_mm=VOLUME_MM)


# Orientations, both ways


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_any_orientation_loads_alike_and_labels_go_back(case, tmp_path, codes):
    straight = load_scan(case.image_path)
    turned = as_oriented(nib.load(case.image_path), codes)
    nib.save(turned, tmp_path / "turned.nii.gz")
    scan = load_scan(tmp_path / "turned.nii.gz")
    np.testing.assert_array_equal(scan.volume_hu, straight.volume_hu)
    # In memory it lies as in the file, without gaps.
    in_file = as_oriented(nib.Nifti1Image(scan.volume_hu, AFFINE), codes).dataobj
    assert np.shares_memory(in_file, scan.volume_hu)
    assert in_file.flags.f_contiguous
    assert scan.spacing_mm == straight.spacing_mm
    assert scan.shape == straight.shape
    np.testing.assert_allclose(scan.affine, straight.affine, atol=1e-5)

    save_label(LABEL, scan, tmp_path / "label.nii.gz")
    written = nib.load(tmp_path / "label.nii.gz")
    assert written.shape == turned.shape
    np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "turned.nii.gz").affine)
    expected = as_oriented(nib.load(case.label_path), codes)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.asanyarray(expected.dataobj))
    np.testing.assert_array_equal(load_label(tmp_path / "label.nii.gz", scan), LABEL)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_each_axis_finds_its_place_and_direction(codes):
    image = as_oriented(nib.Nifti1Image(VOLUME, AFFINE), codes)
    places = {**dict.fromkeys("IS", 0), **dict.fromkeys("PA", 1), **dict.fromkeys("LR", 2)}
    expected = [(places[code], 1 if code in "IPL" else -1) for code in codes]
    turn = ipl_orientation(image.affine)
    np.testing.assert_array_equal(turn, expected)
    back = image.affine @ orientations.inv_ornt_aff(turn, image.shape)
    assert nib.aff2axcodes(back) == ("I", "P", "L")

    stored = np.asanyarray(image.dataobj)
    turned = reorient(stored, image.affine)
    np.testing.assert_array_equal(turned, VOLUME)
    assert np.shares_memory(turned, stored)


def test_an_oblique_scan_is_turned_to_the_nearest_axes():
    c, s = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
    rotation = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    for codes in ("IPL", "RAS", "PIR"):
        affine = as_oriented(nib.Nifti1Image(VOLUME, AFFINE), codes).affine
        np.testing.assert_array_equal(ipl_orientation(rotation @ affine), ipl_orientation(affine))


@pytest.mark.parametrize("mm", [0.5859375, 0.703125, 0.9765625, 0.782, 1 / 3])
def test_spacing_is_the_same_from_sform_and_from_qform(tmp_path, mm):
    affine = np.array([[0, 0, -mm, 9], [0, -mm, 0, 5], [-2.5, 0, 0, 1], [0, 0, 0, 1]])
    image = nib.Nifti1Image(VOLUME, affine)
    nib.save(image, tmp_path / "sform.nii")
    image.set_qform(affine, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "qform.nii")
    one, other = load_scan(tmp_path / "sform.nii"), load_scan(tmp_path / "qform.nii")
    assert one.spacing_mm == other.spacing_mm
    assert one.spacing_mm == pytest.approx((2.5, mm, mm), abs=1e-6)


# Scans in memory, on disk, and made of an array


@pytest.mark.parametrize(
    ("dtype", "slope", "expected"),
    [
        (np.int16, None, np.int16),
        (np.uint8, None, np.int16),
        (np.int32, None, np.float32),
        (np.float32, None, np.float32),
        (np.float64, None, np.float32),
        (np.int16, (0.5, -10.0), np.float32),
        (np.int16, (1.0, 0.0), np.int16),
    ],
)
def test_number_types(tmp_path, dtype, slope, expected):
    stored = np.abs(VOLUME).astype(dtype)
    image = nib.Nifti1Image(stored, AFFINE)
    raw = bytearray(image.to_bytes())
    if slope:
        raw[112:120] = np.array(slope, "<f4").tobytes()
    path = tmp_path / "ct.nii"
    path.write_bytes(raw)
    volume_hu = load_scan(path).volume_hu
    assert volume_hu.dtype == expected
    factor, offset = slope or (1, 0)
    np.testing.assert_allclose(volume_hu, stored * factor + offset)


@pytest.mark.parametrize("codes", ["IPL", "RAS", "LPS", "SRA", "PIR", "ASL"])
@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 24])
def test_in_memory_and_on_disk_a_scan_has_the_same_blocks(
    case, tmp_path, monkeypatch, codes, block_bytes
):
    nib.save(as_oriented(nib.load(case.image_path), codes), tmp_path / "turned.nii.gz")
    monkeypatch.setattr(nifti, "BLOCK_BYTES", block_bytes)
    on_disk, in_memory = (f(tmp_path / "turned.nii.gz") for f in (open_scan, load_scan))
    whole, blocks = np.zeros(VOLUME.shape, np.int16), in_memory.blocks()
    for axis, part, block in on_disk.blocks():
        other_axis, other_part, other = next(blocks)
        assert (axis, part) == (other_axis, other_part)
        np.testing.assert_array_equal(block, other)
        assert block.strides == other.strides
        np.moveaxis(whole, axis, 0)[part] = np.moveaxis(block, axis, 0)
    assert next(blocks, None) is None
    np.testing.assert_array_equal(whole, VOLUME)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_scan_of_an_array_is_as_if_read_from_a_file(case, tmp_path, order):
    scan, read = scan_of(np.array(VOLUME, order=order), list(VOLUME_MM)), load_scan(case.image_path)
    np.testing.assert_array_equal(scan.volume_hu, VOLUME)
    assert scan.volume_hu.dtype == read.volume_hu.dtype
    assert scan.volume_hu.strides == read.volume_hu.strides
    assert (scan.shape, scan.spacing_mm) == (read.shape, read.spacing_mm)
    assert (scan.file.shape, scan.file.dtype) == (read.file.shape, read.file.dtype)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-6)
    np.testing.assert_array_equal(scan.affine, ipl_affine(VOLUME_MM))
    save_label(LABEL, scan, tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(load_label(tmp_path / "label.nii.gz", read), LABEL)


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64]
)
def test_a_scan_of_any_numbers_has_the_types_of_one_from_a_file(dtype):
    array = np.abs(VOLUME).astype(dtype)
    scan = scan_of(array, VOLUME_MM)
    np.testing.assert_array_equal(scan.volume_hu, array)
    assert scan.volume_hu.dtype == (np.int16 if np.can_cast(dtype, np.int16) else np.float32)
    assert sum(block.astype(int).sum() for _, _, block in scan.blocks()) == array.sum(dtype=int)


def test_loading_gives_a_scan_itself_and_a_label_map_as_a_scan(case):
    made = scan_of(VOLUME, VOLUME_MM)
    assert made.load() is made
    np.testing.assert_array_equal(load_label_map(case.label_path).load().volume_hu, LABEL)


# Label maps


def test_a_label_map_has_the_place_of_its_own_file(case, tmp_path):
    nib.save(as_oriented(nib.load(case.label_path), "RAS"), tmp_path / "turned.nii.gz")
    for path, file_shape in ((case.label_path, (4, 5, 6)), (tmp_path / "turned.nii.gz", (6, 5, 4))):
        label_map = load_label_map(path)
        np.testing.assert_array_equal(label_map.label, LABEL)
        assert label_map.label.dtype == np.uint8
        assert (label_map.shape, label_map.spacing_mm) == (LABEL.shape, VOLUME_MM)
        np.testing.assert_allclose(label_map.affine, AFFINE, atol=1e-5)
        assert (label_map.file.path, label_map.file.shape) == (path, file_shape)
        assert not hasattr(label_map, "volume_hu")
        np.testing.assert_array_equal(load_label(path), LABEL)
        np.testing.assert_array_equal(load_label_map(path, open_scan(case.image_path)).label, LABEL)


def test_saved_label_keeps_the_geometry_of_the_header_and_drops_the_rest(tmp_path):
    image = nib.Nifti1Image(VOLUME.astype(np.float64), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 4)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(2, -1024)
    image.header["cal_max"] = 200
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(image, tmp_path / "ct.nii.gz")
    save_label(LABEL, load_scan(tmp_path / "ct.nii.gz"), tmp_path / "label.nii.gz")
    ct, label = nib.load(tmp_path / "ct.nii.gz").header, nib.load(tmp_path / "label.nii.gz").header
    for field in ("qform_code", "sform_code", "pixdim", "xyzt_units", "srow_x", "quatern_b"):
        np.testing.assert_array_equal(label[field], ct[field], err_msg=field)
    assert label.get_data_dtype() == np.uint8
    assert label.get_slope_inter() == (None, None)
    assert label["cal_max"] == 0
    assert not label.extensions
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "label.nii.gz").dataobj), LABEL)


def test_saving_a_label_of_another_shape_is_a_data_error(case, tmp_path):
    with pytest.raises(DataError, match=r"x\.nii\.gz: takes 0, 1 and 2 only"):
        save_label(LABEL[:2], load_scan(case.image_path), tmp_path / "x.nii.gz")


@pytest.mark.parametrize("value", [3, 257, -1, 0.9, np.nan])
def test_saving_what_is_no_label_map_is_a_data_error(case, tmp_path, value):
    label = LABEL.astype(float)
    label[1, 2, 3] = value
    with pytest.raises(DataError, match="takes 0, 1 and 2 only"):
        save_label(label, load_scan(case.image_path), tmp_path / "x.nii.gz")
    assert not (tmp_path / "x.nii.gz").exists()


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [
        (3, np.uint8, "3"),
        (-1, np.int16, "-1"),
        (0.5, np.float32, "0.5"),
        (1e20, np.float32, r"1e\+20"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_other_label_values_are_a_data_error(tmp_path, value, dtype, shown):
    label = LABEL.astype(dtype)
    label[0, 0, 0] = value
    nib.save(nib.Nifti1Image(label, AFFINE), tmp_path / "bad.nii.gz")
    with pytest.raises(DataError, match=rf"bad\.nii\.gz: has label values {shown}, expected"):
        load_label(tmp_path / "bad.nii.gz")


def test_label_of_another_shape_is_a_data_error(case, tmp_path):
    other = save_case(tmp_path / "case_00001", label=LABEL[:3], spacing_mm=VOLUME_MM)
    with pytest.raises(DataError, match=r"segmentation\.nii\.gz: has shape \(3, 5, 6\), its CT"):
        load_label(other.label_path, load_scan(case.image_path))


@pytest.mark.parametrize(("shift_mm", "fits"), [(0.02, True), (0.17, True), (0.18, False)])
def test_a_label_map_may_lie_off_its_ct_by_a_quarter_voxel(case, tmp_path, shift_mm, fits):
    affine = AFFINE.copy()
    affine[2, 3] += shift_mm
    nib.save(nib.Nifti1Image(LABEL, affine), tmp_path / "shifted.nii.gz")
    scan = load_scan(case.image_path)
    if fits:
        np.testing.assert_array_equal(load_label(tmp_path / "shifted.nii.gz", scan), LABEL)
        return
    with pytest.raises(DataError, match=r"shifted\.nii\.gz: lies up to .* mm off its CT"):
        load_label(tmp_path / "shifted.nii.gz", scan)


@pytest.mark.parametrize("off", [1e-7, 0.004, 0.02])
def test_labels_that_a_slope_has_rounded_are_taken(case, tmp_path, off):
    nib.save(nib.Nifti1Image(LABEL * np.float32(1 - off / 2), AFFINE), tmp_path / "off.nii.gz")
    np.testing.assert_array_equal(load_label(tmp_path / "off.nii.gz"), LABEL)


def test_full_disk_is_a_data_error_and_keeps_the_old_file(own_case, monkeypatch):
    before = own_case.label_path.read_bytes()
    write = igzip.IGzipFile.write

    def fill_up(stream, data):
        if len(data) > 50:
            raise OSError(28, "No space left on device")
        return write(stream, data)

    monkeypatch.setattr(igzip.IGzipFile, "write", fill_up)
    with pytest.raises(DataError, match=r"segmentation\.nii\.gz: the disk is full"):
        save_label(LABEL, load_scan(own_case.image_path), own_case.label_path)
    assert own_case.label_path.read_bytes() == before
    assert len(list(own_case.label_path.parent.iterdir())) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_array_with_a_value_that_is_none_is_refused(value):
    volume_hu = np.zeros((4, 5, 6), np.float32)
    volume_hu[0, 0, 0] = value
    with pytest.raises(DataError, match="the array: has NaN or infinite voxels"):
        scan_of(volume_hu, (1, 1, 1))


@pytest.mark.parametrize("name", ["label.NII.GZ", "label.nii.Gz"])
def test_a_label_is_packed_by_its_name_in_any_case(case, tmp_path, name):
    scan = load_scan(case.image_path)
    save_label(np.zeros(scan.shape, np.uint8), scan, tmp_path / name)
    assert (tmp_path / name).read_bytes()[:2] == b"\x1f\x8b"


SIZES = [(0, 1, 1), (np.nan, 1, 1), (-3, 2, 1), (60, 2, 2), (0.001, 1, 1), (5, 2)]


@pytest.mark.parametrize("spacing_mm", SIZES)
def test_an_array_has_the_voxels_of_a_ct(tmp_path, spacing_mm):
    with pytest.raises(DataError):
        scan_of(VOLUME, spacing_mm)
    with pytest.raises(DataError):
        save_case(tmp_path / "case_00000", VOLUME, spacing_mm=spacing_mm)


def test_an_array_has_three_axes():
    with pytest.raises(DataError, match="2 axes"):
        scan_of(VOLUME[0], VOLUME_MM)
