import gzip

import nibabel as nib
import numpy as np
import pytest
from scans import AFFINE, LABEL, VOLUME

from tunet_lib import nifti
from tunet_lib.files import DataError
from tunet_lib.nifti import nifti_of, open_nifti, write_nifti
from tunet_lib.scans import load_label, load_label_map, load_scan, save_label


def encoded(array=VOLUME, affine=AFFINE, fields=None):
    image = nib.Nifti1Image(array, affine)
    raw = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in (fields or {}).items():
        header[name] = value
    raw[:348] = header.binaryblock
    return gzip.compress(bytes(raw))


def with_value(value, dtype=np.float32):
    array = VOLUME.astype(dtype)
    array[1, 2, 3] = value
    return encoded(array)


def with_pixdim(*spacing_mm, sform_code=0):
    return encoded(fields={"pixdim": [1, *spacing_mm, 1, 1, 1, 1], "sform_code": sform_code})


def with_wrong_checksum():
    raw = bytearray(encoded())
    raw[-8] ^= 1
    return bytes(raw)


# Kinds of files


def test_gzip_is_known_by_content_not_by_name(tmp_path):
    (tmp_path / "unpacked.nii.gz").write_bytes(gzip.decompress(encoded()))
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


def test_scaled_voxels_are_scaled_in_every_block(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "BLOCK_BYTES", 100)
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


# Written and read


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii"])
@pytest.mark.parametrize("compresslevel", [1, 4, None])
@pytest.mark.parametrize("block_bytes", [1, 1 << 24])
def test_what_is_written_is_read(tmp_path, monkeypatch, name, compresslevel, block_bytes):
    monkeypatch.setattr(nifti, "BLOCK_BYTES", block_bytes)
    header = nifti_of(VOLUME, AFFINE).header
    write_nifti(tmp_path / name, VOLUME, header, compresslevel=compresslevel)
    by_nibabel = nib.load(tmp_path / name)
    np.testing.assert_array_equal(np.asanyarray(by_nibabel.dataobj), VOLUME)
    np.testing.assert_allclose(by_nibabel.affine, AFFINE, atol=1e-6)
    file = open_nifti(tmp_path / name)
    assert (file.path, file.shape, file.dtype) == (tmp_path / name, VOLUME.shape, VOLUME.dtype)
    np.testing.assert_array_equal(file.read(), VOLUME)
    assert file.read().flags.f_contiguous


def test_an_array_is_described_as_the_file_that_it_would_be(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "BLOCK_BYTES", 100)
    described = nifti_of(VOLUME, AFFINE)
    write_nifti(tmp_path / "ct.nii.gz", VOLUME, described.header)
    file = open_nifti(tmp_path / "ct.nii.gz")
    assert (described.shape, described.dtype) == (file.shape, file.dtype)
    np.testing.assert_allclose(described.affine, file.affine, atol=1e-6)
    assert list(described.parts()) == list(file.parts()) == [slice(k, k + 2) for k in (0, 2, 4)]


def test_voxels_of_another_type_than_the_headers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="int16 voxels, and a header for another type"):
        write_nifti(tmp_path / "ct.nii.gz", VOLUME, nifti_of(LABEL, AFFINE).header)
    assert list(tmp_path.iterdir()) == []


# Bad files


BAD_IMAGES = {
    "empty": (b"", "is empty"),
    "truncated gzip": (encoded()[:-40], "is cut short or damaged"),
    "gzip header only": (encoded()[:12], "is cut short or damaged"),
    "last byte missing": (encoded()[:-1], "is cut short or damaged"),
    "damaged gzip": (with_wrong_checksum(), "is cut short or damaged"),
    "truncated inside": (gzip.compress(gzip.decompress(encoded())[:400]), "cut short"),
    "truncated header": (gzip.compress(gzip.decompress(encoded())[:100]), "is cut short"),
    "truncated plain": (gzip.decompress(encoded())[:400], "is cut short"),
    "web page": (b"<!DOCTYPE html><html>Not found</html>", r"is not a NIfTI image \(a web page\)"),
    "zipped web page": (gzip.compress(b"\n<html>"), r"is not a NIfTI image \(a web page\)"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1",
        "a pointer of Git LFS.*git lfs pull",
    ),
    "NRRD": (b"NRRD0005\ntype: short\n", r"is not a NIfTI image \(NRRD\); name it \.nrrd"),
    "MetaImage": (b"ObjectType = Image\nNDims = 3\n", r"\(MetaImage\); name it \.mha"),
    "archive": (b"PK\3\4" + bytes(90), r"\(an archive\); unpack it"),
    "bzip2": (b"BZh91AY&SY", r"\(packed by bzip2\); unpack it"),
    "packed twice": (gzip.compress(encoded()), r"\(packed twice\); unpack it"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(90), r"\(a picture\); export the CT"),
    "2-D": (encoded(VOLUME[0]), r"has shape \(5, 6\), expected three axes"),
    "4-D": (encoded(np.stack([VOLUME, VOLUME], -1)), r"has shape \(4, 5, 6, 2\)"),
    "NaN": (with_value(np.nan), "has NaN or infinite voxels"),
    "Inf": (with_value(np.inf), "has NaN or infinite voxels"),
    "minus Inf": (with_value(-np.inf), "has NaN or infinite voxels"),
    "Inf as float32": (with_value(1e300, np.float64), "has NaN or infinite voxels"),
    "zero spacing": (with_pixdim(3, 0, 1), "has no usable voxel size"),
    "negative spacing": (with_pixdim(3, 1, -1), "has no usable voxel size"),
    "NaN spacing": (with_pixdim(np.nan, 1, 1), "has no usable voxel size"),
    "singular affine": (encoded(fields={"srow_x": [0, 0, 0, 0]}), "singular or not finite"),
    "parallel axes": (encoded(fields={"srow_x": [0, -0.8, 0, 0]}), "singular or not finite"),
    "NaN affine": (encoded(fields={"srow_x": [0, 0, np.nan, 0]}), "singular or not finite"),
    "complex": (encoded(VOLUME.astype(np.complex64)), "holds complex64, expected numbers"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
@pytest.mark.parametrize("load", [load_scan, load_label_map])
def test_bad_image_is_a_data_error_that_names_the_file(tmp_path, name, load):
    content, message = BAD_IMAGES[name]
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.nii\.gz: .*{message}|bad\.nii\.gz: {message}"):
        load(path)


def test_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"no\.nii\.gz: does not exist"):
        load_scan(tmp_path / "no.nii.gz")
    with pytest.raises(DataError, match="holds no CT slices"):
        load_scan(tmp_path)


@pytest.mark.parametrize("name", ["pair.hdr", "pair.img"])
def test_a_pair_is_read_by_either_name(tmp_path, name):
    nib.save(nib.Nifti1Pair(VOLUME, AFFINE), tmp_path / "pair.img")
    scan = load_scan(tmp_path / name)
    np.testing.assert_array_equal(scan.volume_hu, VOLUME)
    save_label(LABEL, scan, tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(load_label(tmp_path / "label.nii.gz", scan), LABEL)


def test_half_of_a_pair_is_a_data_error(tmp_path):
    nib.save(nib.Nifti1Pair(VOLUME, AFFINE), tmp_path / "pair.img")
    (tmp_path / "pair.img").rename(tmp_path / "other.img")
    with pytest.raises(DataError, match=r"pair\.hdr: is one of a pair, and pair\.img is missing"):
        load_scan(tmp_path / "pair.hdr")
    with pytest.raises(DataError, match=r"other\.hdr: does not exist"):
        load_scan(tmp_path / "other.img")


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
    with pytest.raises(DataError, match="its header promises"):
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
    monkeypatch.setattr(nifti, "BLOCK_BYTES", 100)
    values = np.zeros((4, 5, 6), np.float32)
    values[0, 0, 5] = np.inf
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(gzip.compress(nib.Nifti1Image(values, np.eye(4)).to_bytes()))
    with pytest.raises(DataError, match="NaN or infinite"):
        load_scan(path)


@pytest.mark.parametrize(("slices", "is_taken"), [(1300, True), (1400, False)])
def test_what_is_longer_than_a_scanners_table_is_refused(tmp_path, slices, is_taken):
    image = nib.Nifti1Image(np.zeros((2, 2, slices), np.int16), np.diag([1.0, 1, 3, 1]))
    nib.save(image, tmp_path / "ct.nii")
    if is_taken:
        assert open_nifti(tmp_path / "ct.nii").shape == (2, 2, slices)
    else:
        with pytest.raises(DataError, match="measures 2 x 2 x 4200 mm"):
            open_nifti(tmp_path / "ct.nii")
