import gzip
import itertools
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from isal import igzip
from nibabel import orientations

from tunet_lib.files import DataError
from tunet_lib.kits19 import (
    Case,
    find_cases,
    load_label,
    load_label_scan,
    load_scan,
    require_image,
    require_label,
    save_case,
    save_label,
)

SHAPE, SPACING_MM = (4, 5, 6), (3.0, 0.8, 0.7)
AFFINE = np.array([[0, 0, -0.7, 0], [0, -0.8, 0, 0], [-3, 0, 0, 0], [0, 0, 0, 1]])
VOLUME = np.arange(-60, 60, dtype=np.int16).reshape(SHAPE)
LABEL = (np.arange(120, dtype=np.uint8) % 3).reshape(SHAPE)
ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]


@pytest.fixture
def case(tmp_path):
    return save_case(tmp_path, "case_00007", VOLUME, LABEL, SPACING_MM)


def as_oriented(image, codes):
    turn = orientations.ornt_transform(
        orientations.io_orientation(image.affine), orientations.axcodes2ornt(codes)
    )
    return image.as_reoriented(turn)


# Finding


def test_find_cases_is_sorted_and_knows_what_is_missing(tmp_path):
    save_case(tmp_path, "case_00010", VOLUME, None, SPACING_MM)
    save_case(tmp_path, "case_00002", None, LABEL, SPACING_MM)
    (tmp_path / "case_00003").mkdir()
    (tmp_path / "kits.json").write_text("[]")
    image = tmp_path / "case_00010" / "imaging.nii.gz"
    label = tmp_path / "case_00002" / "segmentation.nii.gz"
    assert find_cases(tmp_path) == [
        Case("case_00002", None, label),
        Case("case_00010", image, None),
    ]


def test_folder_without_cases_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}: holds no case"):
        find_cases(tmp_path)


@pytest.mark.parametrize("kind", ["missing", "a file", "unreadable"])
def test_unreadable_folder_is_a_data_error(tmp_path, monkeypatch, kind):
    folder = tmp_path / "data"
    if kind == "a file":
        folder.write_text("")
    if kind == "unreadable":  # chmod does not keep an administrator out

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        folder.mkdir()
        monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="data: cannot be read"):
        find_cases(folder)


def test_missing_files_are_named(tmp_path):
    case = Case("case_00001", None, None)
    with pytest.raises(DataError, match=r"case_00001: has no imaging\.nii\.gz"):
        require_image(case)
    with pytest.raises(DataError, match=r"case_00001: has no segmentation\.nii\.gz"):
        require_label(case)
    full = Case("case_00001", tmp_path / "a", tmp_path / "b")
    assert (require_image(full), require_label(full)) == (tmp_path / "a", tmp_path / "b")


# The layout


def test_saved_case_is_as_in_kits19(case):
    image, label = nib.load(case.image_path), nib.load(case.label_path)
    assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    for each in (image, label):
        assert nib.aff2axcodes(each.affine) == ("I", "P", "L")
        np.testing.assert_allclose(each.affine, AFFINE, atol=1e-6)
        assert each.header["sform_code"] == 2
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), VOLUME)
    np.testing.assert_array_equal(np.asanyarray(label.dataobj), LABEL)


def test_saved_case_is_reproducible_to_the_byte(case, tmp_path):
    again = save_case(tmp_path / "again", "case_00007", VOLUME, LABEL, SPACING_MM)
    for one, other in ((case.image_path, again.image_path), (case.label_path, again.label_path)):
        assert one.read_bytes() == other.read_bytes()
        assert one.read_bytes()[3:8] == bytes(5)  # neither a name nor a time


def test_case_comes_back(case):
    scan = load_scan(case.image_path)
    np.testing.assert_array_equal(scan.volume_hu, VOLUME)
    assert scan.volume_hu.dtype == np.int16
    assert scan.spacing_mm == SPACING_MM
    assert scan.source_shape == SHAPE
    np.testing.assert_array_equal(load_label(case.label_path, scan), LABEL)


def test_kits19_odd_label_files_load_like_the_rest(case, tmp_path):
    """Nine of the 210 are uint16, with a qform only."""
    image = nib.Nifti1Image(LABEL.astype(np.uint16), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "odd.nii.gz")
    odd = nib.load(tmp_path / "odd.nii.gz")
    assert (odd.get_data_dtype(), int(odd.header["sform_code"])) == (np.uint16, 0)
    label = load_label(tmp_path / "odd.nii.gz", load_scan(case.image_path))
    np.testing.assert_array_equal(label, LABEL)
    assert label.dtype == np.uint8


def test_case_160_has_796_columns(tmp_path):
    volume = np.arange(3 * 5 * 796, dtype=np.int16).reshape(3, 5, 796)
    case = save_case(tmp_path, "case_00160", volume, None, (2.5, 0.8, 0.8))
    np.testing.assert_array_equal(load_scan(case.image_path).volume_hu, volume)


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


# Orientations, both ways


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_any_orientation_loads_alike_and_labels_go_back(case, tmp_path, codes):
    straight = load_scan(case.image_path)
    turned = as_oriented(nib.load(case.image_path), codes)
    nib.save(turned, tmp_path / "turned.nii.gz")
    scan = load_scan(tmp_path / "turned.nii.gz")
    np.testing.assert_array_equal(scan.volume_hu, straight.volume_hu)
    assert scan.volume_hu.flags.c_contiguous
    assert scan.spacing_mm == straight.spacing_mm
    np.testing.assert_allclose(scan.affine, straight.affine, atol=1e-5)

    save_label(LABEL, scan, tmp_path / "label.nii.gz")
    written = nib.load(tmp_path / "label.nii.gz")
    assert written.shape == turned.shape
    np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "turned.nii.gz").affine)
    expected = as_oriented(nib.load(case.label_path), codes)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.asanyarray(expected.dataobj))
    np.testing.assert_array_equal(load_label(tmp_path / "label.nii.gz", scan), LABEL)


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
    with pytest.raises(DataError, match=r"x\.nii\.gz: label \(2, 5, 6\) does not match"):
        save_label(LABEL[:2], load_scan(case.image_path), tmp_path / "x.nii.gz")


# Kinds of files


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


def test_gzip_is_known_by_content_not_by_name(case, tmp_path):
    (tmp_path / "unpacked.nii.gz").write_bytes(gzip.decompress(case.image_path.read_bytes()))
    np.testing.assert_array_equal(load_scan(tmp_path / "unpacked.nii.gz").volume_hu, VOLUME)


def test_nifti_2_and_big_endian(tmp_path):
    nib.save(nib.Nifti2Image(VOLUME, AFFINE), tmp_path / "two.nii.gz")
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(VOLUME, AFFINE, header), tmp_path / "big.nii.gz")
    for name in ("two", "big"):
        scan = load_scan(tmp_path / f"{name}.nii.gz")
        np.testing.assert_array_equal(scan.volume_hu, VOLUME)
        save_label(LABEL, scan, tmp_path / "label.nii.gz")
        np.testing.assert_array_equal(load_label(tmp_path / "label.nii.gz", scan), LABEL)


def test_unknown_orientation_warns(tmp_path):
    image = nib.Nifti1Image(VOLUME, None)
    image.header.set_zooms((1, 1, 1))
    nib.save(image, tmp_path / "ct.nii.gz")
    with pytest.warns(UserWarning, match=r"ct\.nii\.gz: does not say how the patient lies"):
        load_scan(tmp_path / "ct.nii.gz")


# Bad files


def nifti(array=VOLUME, affine=AFFINE, fields=None):
    image = nib.Nifti1Image(array, affine)
    raw = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in (fields or {}).items():
        header[name] = value
    raw[:348] = header.binaryblock
    return gzip.compress(bytes(raw))


def with_value(value):
    array = VOLUME.astype(np.float32)
    array[1, 2, 3] = value
    return nifti(array)


def with_pixdim(*spacing_mm):
    return nifti(fields={"pixdim": [1, *spacing_mm, 1, 1, 1, 1]})


def with_wrong_checksum():
    raw = bytearray(nifti())
    raw[-8] ^= 1
    return bytes(raw)


BAD_IMAGES = {
    "empty": (b"", "is empty"),
    "truncated gzip": (nifti()[:-40], "is cut short or damaged"),
    "gzip header only": (nifti()[:12], "is cut short or damaged"),
    "last byte missing": (nifti()[:-1], "is cut short or damaged"),
    "damaged gzip": (with_wrong_checksum(), "is cut short or damaged"),
    "truncated inside": (gzip.compress(gzip.decompress(nifti())[:400]), "cut short"),
    "truncated header": (gzip.compress(gzip.decompress(nifti())[:100]), "is cut short"),
    "truncated plain": (gzip.decompress(nifti())[:400], "is cut short"),
    "web page": (b"<!DOCTYPE html><html>Not found</html>", r"is not a NIfTI image \(a web page\)"),
    "zipped web page": (gzip.compress(b"\n<html>"), r"is not a NIfTI image \(a web page\)"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1", "is not a NIfTI image"),
    "2-D": (nifti(VOLUME[0]), r"has shape \(5, 6\), expected three axes"),
    "4-D": (nifti(np.stack([VOLUME, VOLUME], -1)), r"has shape \(4, 5, 6, 2\)"),
    "4-D of one": (nifti(VOLUME[..., None]), r"has shape \(4, 5, 6, 1\)"),
    "NaN": (with_value(np.nan), "has NaN or infinite voxels"),
    "Inf": (with_value(np.inf), "has NaN or infinite voxels"),
    "minus Inf": (with_value(-np.inf), "has NaN or infinite voxels"),
    "zero spacing": (with_pixdim(3, 0, 1), r"has voxel size \[3.0, 0.0, 1.0\] mm"),
    "negative spacing": (with_pixdim(3, 1, -1), r"has voxel size \[3.0, 1.0, -1.0\] mm"),
    "NaN spacing": (with_pixdim(np.nan, 1, 1), "has voxel size"),
    "singular affine": (nifti(fields={"srow_x": [0, 0, 0, 0]}), "singular or not finite"),
    "parallel axes": (nifti(fields={"srow_x": [0, -0.8, 0, 0]}), "singular or not finite"),
    "NaN affine": (nifti(fields={"srow_x": [0, 0, np.nan, 0]}), "singular or not finite"),
    "complex": (nifti(VOLUME.astype(np.complex64)), "holds complex64, expected numbers"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
@pytest.mark.parametrize("load", [load_scan, load_label_scan])
def test_bad_image_is_a_data_error_that_names_the_file(tmp_path, name, load):
    content, message = BAD_IMAGES[name]
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.nii\.gz: .*{message}|bad\.nii\.gz: {message}"):
        load(path)


def test_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"no\.nii\.gz: does not exist"):
        load_scan(tmp_path / "no.nii.gz")
    with pytest.raises(DataError, match="cannot be read"):
        load_scan(tmp_path)


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [(3, np.uint8, "3"), (-1, np.int16, "-1"), (0.5, np.float32, "0.5")],
)
def test_other_label_values_are_a_data_error(tmp_path, value, dtype, shown):
    label = LABEL.astype(dtype)
    label[0, 0, 0] = value
    nib.save(nib.Nifti1Image(label, AFFINE), tmp_path / "bad.nii.gz")
    with pytest.raises(DataError, match=rf"bad\.nii\.gz: has label values {shown}, expected"):
        load_label(tmp_path / "bad.nii.gz")


def test_label_of_another_shape_is_a_data_error(case, tmp_path):
    other = save_case(tmp_path / "other", "case_00001", None, LABEL[:3], SPACING_MM)
    with pytest.raises(DataError, match=r"segmentation\.nii\.gz: has shape \(3, 5, 6\), its CT"):
        load_label(other.label_path, load_scan(case.image_path))


@pytest.mark.parametrize(("shift_mm", "fits"), [(0.009, True), (0.02, False)])
def test_label_affine_may_differ_by_rounding_only(case, tmp_path, shift_mm, fits):
    affine = AFFINE.copy()
    affine[2, 3] += shift_mm
    nib.save(nib.Nifti1Image(LABEL, affine), tmp_path / "shifted.nii.gz")
    scan = load_scan(case.image_path)
    if fits:
        np.testing.assert_array_equal(load_label(tmp_path / "shifted.nii.gz", scan), LABEL)
        return
    with pytest.raises(DataError, match=r"shifted\.nii\.gz: its affine differs from .*imaging"):
        load_label(tmp_path / "shifted.nii.gz", scan)


def test_the_header_of_a_pair_is_refused(tmp_path):
    nib.save(nib.Nifti1Pair(np.ones((4, 5, 6), np.int16), np.eye(4)), tmp_path / "pair.img")
    with pytest.raises(DataError, match=r"one of a pair of \.hdr and \.img"):
        load_scan(tmp_path / "pair.hdr")


@pytest.mark.parametrize(("dim", "message"), [(-4, "has shape"), (0, "has shape")])
def test_a_header_with_an_impossible_size_is_a_data_error(tmp_path, dim, message):
    header = nib.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)).header
    header["dim"][1] = dim
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "bad.nii"
    path.write_bytes(header.binaryblock + bytes(4 + 240))
    with pytest.raises(DataError, match=message):
        load_scan(path)


def test_a_header_of_a_size_that_no_memory_holds_is_a_data_error(tmp_path):
    header = nib.Nifti2Image(np.ones((4, 5, 6), np.int16), np.eye(4)).header
    header["dim"][1:4] = 2**40
    header["vox_offset"], header["magic"] = 544, b"n+2"
    path = tmp_path / "bad.nii"
    path.write_bytes(header.binaryblock + bytes(4 + 240))
    with pytest.raises(DataError, match="cannot be read"):
        load_scan(path)


def test_a_scale_that_overflows_is_found(tmp_path):
    header = nib.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)).header
    header.set_slope_inter(1e38, 0)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "bad.nii"
    voxels = np.full(120, 30000, np.int16)
    path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes())
    with pytest.raises(DataError, match="NaN or infinite"):
        load_scan(path)


def test_a_bad_voxel_in_the_last_block_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tunet_lib.nifti.BLOCK_BYTES", 100)
    values = np.zeros((4, 5, 6), np.float32)
    values[0, 0, 5] = np.inf
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(gzip.compress(nib.Nifti1Image(values, np.eye(4)).to_bytes()))
    with pytest.raises(DataError, match="NaN or infinite"):
        load_scan(path)


def test_scaled_voxels_are_scaled_in_every_block(tmp_path, monkeypatch):
    monkeypatch.setattr("tunet_lib.nifti.BLOCK_BYTES", 100)
    stored = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, -1000)
    image.header["vox_offset"], image.header["magic"] = 352, b"n+1"
    path = tmp_path / "scaled.nii"
    with path.open("wb") as stream:  # nibabel would choose a scale of its own
        stream.write(image.header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    scan = load_scan(path)
    assert scan.volume_hu.dtype == np.float32
    values = np.sort(scan.volume_hu.ravel())
    np.testing.assert_allclose(values, np.arange(120) / 2 - 1000)


def test_full_disk_is_a_data_error_and_keeps_the_old_file(case, tmp_path, monkeypatch):
    before = case.label_path.read_bytes()
    write = igzip.IGzipFile.write

    def fill_up(stream, data):
        if len(data) > 50:
            raise OSError(28, "No space left on device")
        return write(stream, data)

    monkeypatch.setattr(igzip.IGzipFile, "write", fill_up)
    with pytest.raises(DataError, match=r"segmentation\.nii\.gz: the disk is full"):
        save_label(LABEL, load_scan(case.image_path), case.label_path)
    assert case.label_path.read_bytes() == before
    assert len(list(case.label_path.parent.iterdir())) == 2


def test_data_modules_do_not_load_tensorflow():
    code = (
        "import sys, tunet_lib.kits19, tunet_lib.preprocess; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
