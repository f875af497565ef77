"""Folders of DICOM, as they come from scanners, archives and discs."""

import os
import resource
import shutil
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicoms import (
    AXIAL,
    DAMAGED,
    ENHANCED_CT,
    STUDY,
    enhanced,
    pydicom,
    series,
    slice_of,
    stored,
    with_raw,
    write,
    write_jpeg_lossless,
)

from tunet_lib.dicom import find_series
from tunet_lib.files import DataError
from tunet_lib.formats import open_image
from tunet_lib.scans import load_scan, open_scan, save_label

sitk = pytest.importorskip("SimpleITK", reason="the extra formats is not installed")


def expected_hu(count=5):
    """From head to feet, as IPL wants it."""
    return stored(count)[::-1].astype(int) - 1024


def test_a_series_is_read_in_the_order_of_its_positions(tmp_path):
    scan = load_scan(write(tmp_path / "ct", series()))
    np.testing.assert_array_equal(scan.volume_hu, expected_hu())
    assert scan.volume_hu.dtype == np.int16
    assert scan.spacing_mm == (3.0, 0.9, 0.8)
    assert nib.aff2axcodes(scan.file.affine) == ("L", "P", "S")
    np.testing.assert_allclose(scan.file.affine[:3, 3], (10, 20, 30))


def test_it_lies_where_simpleitk_puts_it(tmp_path):
    folder = write(tmp_path / "ct", series())
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    sitk.WriteImage(sitk.ReadImage(names), str(tmp_path / "ct.nrrd"))
    ours, theirs = load_scan(folder), load_scan(tmp_path / "ct.nrrd")
    np.testing.assert_allclose(ours.file.affine, theirs.file.affine, atol=1e-4)
    np.testing.assert_array_equal(ours.volume_hu, theirs.volume_hu)


def test_files_of_other_kinds_and_folders_within_are_no_hindrance(tmp_path):
    write(tmp_path / "disc" / "DICOM" / "PA0" / "SE0", series())
    (tmp_path / "disc" / "DICOMDIR").write_bytes(b"no matter")
    (tmp_path / "disc" / "AUTORUN.INF").write_text("[autorun]")
    assert open_scan(tmp_path / "disc").shape == (5, 6, 8)


def test_each_slice_has_its_own_rescaling(tmp_path):
    slices = series(3)
    for index, slope in enumerate((1, 2, 0.5)):
        slices[index].RescaleSlope, slices[index].RescaleIntercept = slope, -1000 + index
    scan = load_scan(write(tmp_path / "ct", slices))
    hu = [stored(3)[k].astype(float) * s - 1000 + k for k, s in enumerate((1, 2, 0.5))]
    np.testing.assert_allclose(scan.volume_hu, hu[::-1])
    assert scan.volume_hu.dtype == np.float32


@pytest.mark.parametrize("bits", [12, 16])
def test_values_that_may_not_fit_in_int16_are_floats(tmp_path, bits):
    slices = series(2, BitsStored=bits, HighBit=bits - 1)
    scan = load_scan(write(tmp_path / "ct", slices))
    assert scan.volume_hu.dtype == (np.int16 if bits == 12 else np.float32)
    np.testing.assert_array_equal(scan.volume_hu, expected_hu(2))


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless"])
def test_compressed_transfer_syntaxes(tmp_path, syntax):
    pixels = stored(3, 64, 64)  # JPEG 2000 does not work on much less
    slices = series(3, pixels)
    for each in slices:
        each.compress(getattr(pydicom.uid, syntax))
    scan = load_scan(write(tmp_path / "ct", slices))
    np.testing.assert_array_equal(scan.volume_hu, pixels[::-1].astype(int) - 1024)


@pytest.mark.parametrize("name", ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "Deflated"])
def test_transfer_syntaxes_of_other_orders(tmp_path, name):
    slices = series()
    for each in slices:
        syntax = "DeflatedExplicitVRLittleEndian" if name == "Deflated" else name
        each.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        if "Big" in name:
            each.PixelData = np.frombuffer(each.PixelData, "<u2").astype(">u2").tobytes()
    scan = load_scan(write(tmp_path / "ct", slices))
    np.testing.assert_array_equal(scan.volume_hu, expected_hu())


@pytest.mark.parametrize("allocated", [8, 16, 32])
@pytest.mark.parametrize("is_signed", [0, 1])
def test_bits_that_do_not_count_are_left_out_as_by_simpleitk(tmp_path, allocated, is_signed):
    """Old scanners kept overlays in them."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2**allocated, (2, 6, 8), dtype=np.uint64).astype(f"<u{allocated // 8}")
    bits = 12 if allocated == 16 else allocated
    for each in (slices := series(2)):
        each.BitsAllocated, each.BitsStored, each.HighBit = allocated, bits, bits - 1
        each.PixelRepresentation, each.RescaleIntercept = is_signed, 0
    for each, plane in zip(slices, noise, strict=True):
        each.PixelData = plane.tobytes()
    folder = write(tmp_path / "ct", slices)
    ours = load_scan(folder).volume_hu
    for path in folder.iterdir():
        position = pydicom.dcmread(path).ImagePositionPatient[2]
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
        np.testing.assert_allclose(ours[int(position < 31)], theirs, rtol=1e-6)


def test_the_jpeg_lossless_that_scanners_write(tmp_path):
    written = write_jpeg_lossless(tmp_path, series())
    np.testing.assert_array_equal(load_scan(written).volume_hu, expected_hu())


def test_compressed_frames_of_one_file(tmp_path):
    pixels = stored(4, 64, 64)
    order = [2, 0, 3, 1]
    one = enhanced(range(4))
    one.Rows, one.Columns, one.PixelData = 64, 64, pixels[order].astype("<u2").tobytes()
    for frame, place in zip(one.PerFrameFunctionalGroupsSequence, order, strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient[2] = 30.0 + 3 * place
    one.compress(pydicom.uid.JPEGLSLossless)
    folder = write(tmp_path / "ct", [one])
    np.testing.assert_array_equal(load_scan(folder).volume_hu, pixels[::-1].astype(int) - 1024)


# Pixels that are other than the header says


EMPTY = b"\xfe\xff\x00\xe0\0\0\0\0" * 2 + b"\xfe\xff\xdd\xe0\0\0\0\0"


def compressed(syntax, size=64):
    slices = series(3, stored(3, size, size))
    for each in slices:
        each.compress(getattr(pydicom.uid, syntax))
    return slices


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless"])
@pytest.mark.parametrize("rows", [40, 80, 65535])
def test_compressed_pixels_of_another_size_are_neither_cut_nor_filled(tmp_path, syntax, rows):
    """Of an RLE with more rows than its header says those were left out in silence."""
    slices = compressed(syntax)
    for each in slices:
        each.Rows = rows
    said = r"IM00\d: its pixels are damaged \(" if rows < 1000 else r"measures .* mm"
    with pytest.raises(DataError, match=said):
        load_scan(write(tmp_path / "ct", slices))


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless"])
@pytest.mark.parametrize("what", ["cut", "no JPEG", "none"])
def test_compressed_pixels_that_are_damaged(tmp_path, syntax, what):
    slices = compressed(syntax)
    (coded,) = pydicom.encaps.generate_frames(slices[1].PixelData, number_of_frames=1)
    bad = {
        "cut": coded[: len(coded) // 3],
        "no JPEG": b"\0" * 2000,
        "none": b"",
    }[what]
    slices[1].PixelData = EMPTY if not bad else pydicom.encaps.encapsulate([bad])
    folder = write(tmp_path / "ct", slices)
    with pytest.raises(DataError, match=r"IM00\d: (its pixels are damaged|SimpleITK cannot)"):
        load_scan(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS limits no memory")
@pytest.mark.parametrize("syntax", ["", "RLELossless", "JPEGLSLossless"])
def test_random_bytes_behind_pixels_take_no_memory(tmp_path, syntax):
    """SimpleITK takes them for lengths: 3 to 4 GB were claimed before it gave up."""
    slices = compressed(syntax) if syntax else series(3, stored(3, 64, 64))
    folder = write(tmp_path / "ct", slices)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes() + b"\xe1\x7f\x10\0OB\0\0\xf0\xff\xff\xdf" + b"x" * 64)
    kept = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, kept[1]))
    try:
        np.testing.assert_array_equal(
            load_scan(folder).volume_hu, stored(3, 64, 64)[::-1].astype(int) - 1024
        )
    finally:
        resource.setrlimit(resource.RLIMIT_AS, kept)


def test_more_bits_than_the_header_says_do_not_turn_bone_into_air(tmp_path):
    slices = series(3, np.full((3, 64, 64), 50000, np.uint16), BitsStored=16, HighBit=15)
    for each in slices:
        each.compress(pydicom.uid.JPEG2000Lossless)
        each.BitsStored, each.HighBit = 12, 11
    with pytest.raises(DataError, match=r"IM00\d: has pixels of more than the 12 bits"):
        load_scan(write(tmp_path / "ct", slices))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(28, "No space left on device"), "device.; free space in the temporary folder"),
        (FileNotFoundError(2, "No usable temporary directory"), "free space in the temporary"),
        (FileNotFoundError(2, "No such file", "/gone/tmp1"), "name another by TMPDIR"),
        (OSError(5, "Input/output error"), "error.; make sure that the file is still there"),
        (MemoryError(), "they take more memory than there is"),
    ],
)
def test_a_full_disk_is_no_damage(tmp_path, monkeypatch, error, advice):
    folder = write(tmp_path / "ct", compressed("JPEG2000Lossless"))
    monkeypatch.setattr(pydicom.Dataset, "save_as", failing(None, error))
    with pytest.raises(DataError, match=rf"its pixels cannot be read \(.*{advice}"):
        load_scan(folder)


@pytest.mark.parametrize("syntax", ["", "JPEG2000Lossless"])
def test_a_slice_that_is_gone_when_its_pixels_are_read(tmp_path, syntax):
    folder = write(tmp_path / "ct", compressed(syntax) if syntax else series())
    scan = open_scan(folder)
    (folder / "IM001").unlink()
    with pytest.raises(DataError, match=r"IM001: .*make sure that the file is still there"):
        scan.load()


def test_a_bomb_of_rle(tmp_path):
    """Two bytes stand for 128: of 16 MB pydicom would make 1 GB, pixel by pixel."""
    slices = compressed("RLELossless")
    header = np.array([2, 64, 64 + (1 << 23), *[0] * 13], "<u4").tobytes()
    slices[1].PixelData = pydicom.encaps.encapsulate([header + b"\x81\0" * (1 << 23)])
    folder = write(tmp_path / "ct", slices)
    start_s = time.process_time()
    with pytest.raises(DataError, match="its RLE is of more than 8192 bytes"):
        load_scan(folder)
    assert time.process_time() - start_s < 2


def test_big_endian_without_a_word_of_it(tmp_path):
    slices = series(3)
    for each in slices:
        each.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        each.PixelData = np.frombuffer(each.PixelData, "<u2").astype(">u2").tobytes()
    folder = write(tmp_path / "ct", slices)
    for path in folder.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:132] + content[content.index(b"\0\x08\0\x08CS") :])
    np.testing.assert_array_equal(load_scan(folder).volume_hu, expected_hu(3))


def test_a_value_that_is_longer_than_its_file(tmp_path):
    folder = write(tmp_path / "ct", series())
    path = sorted(folder.iterdir())[0]
    content = path.read_bytes()
    at = content.index(b"\x08\0\x3e\x10LO")
    path.write_bytes(content[:at] + b"\x09\0\x10\x10UN\0\0\xf0\xff\xff\xff" + content[at:])
    with pytest.raises(DataError, match="a value is longer than the file"):
        open_scan(folder)


def test_a_deflated_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("tunet_lib.dicom_pixels.MOST_INFLATED", 1 << 20)
    slices = series(2)
    for each in slices:
        each.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        each.private_block(0x0009, "tunet", create=True).add_new(1, "OB", bytes(1 << 21))
    folder = write(tmp_path / "ct", slices[:1])
    with pytest.raises(DataError, match="deflated part is cut short, or much too large"):
        open_scan(folder)


def test_a_header_without_pixels(tmp_path):
    slices = series()
    del slices[2].PixelData
    folder = write(tmp_path / "ct", slices)
    with pytest.raises(DataError, match="it ends before its pixels"):
        open_scan(folder)


# Several series


def test_several_series_are_listed_and_one_is_chosen(tmp_path):
    write(tmp_path / "ct" / "a", series(5))
    uid = STUDY + ".7"
    other = series(4, SeriesInstanceUID=uid, SeriesNumber=7, SeriesDescription="bone [sharp]")
    write(tmp_path / "ct" / "b", other)
    with pytest.raises(DataError, match="holds several series; choose one") as raised:
        open_scan(tmp_path / "ct")
    assert str(raised.value).splitlines()[1:] == [
        "  --series 1: 5 slices of 8x6, venous",
        "  --series 2: 4 slices of 8x6, bone [sharp]",
    ]
    for name in ("2", uid):
        assert open_scan(tmp_path / "ct", name).shape == (4, 6, 8)
    assert open_scan(tmp_path / "ct", "1").shape == (5, 6, 8)
    with pytest.raises(DataError, match="has no series 3; choose"):
        open_scan(tmp_path / "ct", "3")
    assert [s.description for s in find_series(tmp_path / "ct")[0]] == ["venous", "bone [sharp]"]


def test_localizers_and_what_is_no_ct_are_left_out_and_named(tmp_path):
    scout = slice_of(stored()[0], (0, 0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    report = slice_of(stored()[0], (0, 0, 0), Modality="SR")
    dose = slice_of(stored()[0], (0, 0, 0), ImagePositionPatient=None)
    palette = slice_of(stored()[0], (0, 0, 0), PhotometricInterpretation="PALETTE COLOR")
    iodine = slice_of(stored()[0], (0, 0, 0), RescaleType="MGML")
    write(tmp_path / "ct", [*series(RescaleType="HU"), scout, report, dose, palette, iodine])
    with pytest.warns(UserWarning, match="left out: ") as caught:
        assert open_scan(tmp_path / "ct").shape == (5, 6, 8)
    said = str(caught[0].message)
    assert all(f"1 of {r}" in said for r in ("localizer", "modality SR", "image without", "color"))
    assert "1 of map in MGML, not HU" in said


def test_an_empty_file_that_may_have_been_the_last_slice_is_told(tmp_path):
    folder = write(tmp_path / "ct", series())
    (folder / "IM009").touch()
    with pytest.warns(UserWarning, match="left out: 1 of empty file"):
        assert open_scan(folder).shape == (5, 6, 8)


def test_links_that_lead_nowhere_or_to_folders_are_told(tmp_path):
    folder = write(tmp_path / "ct", series())
    (folder / "IM009").symlink_to(tmp_path / "not mounted")
    (folder / "more").symlink_to(write(tmp_path / "other", series(SeriesInstanceUID=STUDY + ".9")))
    with pytest.warns(UserWarning, match="left out: 1 of folder that is a link.*1 of link that"):
        assert open_scan(folder).shape == (5, 6, 8)


@pytest.mark.parametrize("is_signed", [False, True])
def test_pixels_without_a_value_are_air(tmp_path, is_signed):
    """GE writes -2000 around a round field of view, some as 63536 in files without a sign."""
    pixels = stored().astype(np.int64) % 3000 - (1024 if is_signed else 0)
    pixels[:, 0, :2] = -2000
    bits = {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": int(is_signed)}
    bits |= {"RescaleIntercept": 0 if is_signed else -1024}
    value = -2000 if is_signed else 63536
    slices = series(pixels=pixels.astype("<i2").view("<u2"), **bits)
    for each in slices:
        each.add_new("PixelPaddingValue", "SS" if is_signed else "US", value)
    hu = load_scan(write(tmp_path / "ct", slices)).volume_hu
    assert (hu[:, 0, :2] == -1024).all()
    expected = pixels[::-1] - (0 if is_signed else 1024)
    np.testing.assert_array_equal(hu[:, 1:], expected[:, 1:])


def test_a_padding_that_tissue_has_as_well_is_none(tmp_path):
    """Water stays water, and a value that 12 bits cannot hold is that of no pixel."""
    for number, value in enumerate((1024, 63536)):
        slices = series()
        for each in slices:
            each.add_new("PixelPaddingValue", "US", value)
        scan = load_scan(write(tmp_path / str(number), slices))
        np.testing.assert_array_equal(scan.volume_hu, expected_hu())


def test_cts_of_another_format_beside_a_series_are_not_passed_over_in_silence(tmp_path):
    folder = write(tmp_path / "ct", series())
    for name in ("A.nii.gz", "b.NRRD", "notes.txt"):
        (folder / name).write_bytes(b"no matter")
    with pytest.warns(UserWarning, match="left out: 2 of image of another format"):
        assert open_scan(folder).shape == (5, 6, 8)


def test_a_folder_of_localizers_only(tmp_path):
    write(tmp_path / "ct", series(2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    with pytest.raises(DataError, match="holds no CT slices: 2 of localizer"):
        open_scan(tmp_path / "ct")


@pytest.mark.parametrize("order", [range(5), [3, 0, 4, 1, 2]])
@pytest.mark.parametrize("named", ["the folder", "the file"])
def test_an_enhanced_ct_holds_many_frames(tmp_path, order, named):
    """rordenlab/dcm2niix#431 and its kind: newer scanners write one file, in any order."""
    folder = write(tmp_path / "ct", [enhanced(order)])
    scan = load_scan(folder if named == "the folder" else folder / "IM000")
    np.testing.assert_array_equal(scan.volume_hu, expected_hu())
    assert scan.spacing_mm == (3.0, 0.9, 0.8)
    np.testing.assert_allclose(
        scan.file.affine, load_scan(write(tmp_path / "b", series())).file.affine
    )


def test_frames_that_are_missing_or_rescaled_each_in_its_own_way(tmp_path):
    gap = write(tmp_path / "gap", [enhanced([0, 1, 2, 4, 5])])
    with pytest.raises(DataError, match="missing: 1 between frame 3 of IM000 and frame 4 of IM000"):
        load_scan(gap)
    rescaled = write(tmp_path / "own", [enhanced(range(3), intercepts=(-1024, -1000, -900))])
    own = stored(3).astype(int) + np.array([-1024, -1000, -900])[:, None, None]
    np.testing.assert_array_equal(load_scan(rescaled).volume_hu, own[::-1])
    iodine = enhanced(range(3))
    iodine.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[
        0
    ].RescaleType = "MGML"
    with pytest.raises(DataError, match="its values are MGML, and so no HU"):
        load_scan(write(tmp_path / "iodine", [iodine]))
    none = write(tmp_path / "none", [slice_of(stored()[0], (0, 0, 0), SOPClassUID=ENHANCED_CT)])
    with pytest.raises(DataError, match="holds no CT slices: 1 of file without frames"):
        load_scan(none)


def test_frames_of_several_files_are_named_by_these(tmp_path):
    frames = []
    for place in (0, 1, 2, 4):
        one = enhanced([0])
        (position,) = one.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
        position.ImagePositionPatient[2] = 30.0 + 3 * place
        frames.append(one)
    with pytest.raises(DataError, match=r"between frame 1 of IM00\d and frame 1 of IM00\d"):
        open_scan(write(tmp_path / "ct", frames))


def test_private_sequences_of_frames_overrule_nothing(tmp_path):
    one = enhanced(range(5))
    for frame in one.PerFrameFunctionalGroupsSequence:
        private = pydicom.Dataset()
        private.RescaleSlope, private.RescaleIntercept, private.PixelSpacing = 2, 0, [1.0, 1.0]
        block = frame.private_block(0x2005, "tunet", create=True)
        block.add_new(1, "SQ", pydicom.Sequence([private]))
    scan = load_scan(write(tmp_path / "ct", [one]))
    np.testing.assert_array_equal(scan.volume_hu, expected_hu())
    assert scan.spacing_mm == (3.0, 0.9, 0.8)


def test_values_that_are_inverted(tmp_path):
    """MONOCHROME1: the reader would turn them around, and what was bone would be air."""
    folder = write(tmp_path / "ct", series(PhotometricInterpretation="MONOCHROME1"))
    with pytest.raises(DataError, match="are inverted"):
        load_scan(folder)


def test_files_without_the_bytes_by_which_one_knows_dicom(tmp_path):
    """pydicom/pydicom#340 and its kind: "File is missing DICOM File Meta Information"."""
    folder = write(tmp_path / "ct", series())
    for path in folder.iterdir():
        content = path.read_bytes()
        assert content[128:132] == b"DICM"
        path.write_bytes(content[132:])
    np.testing.assert_array_equal(load_scan(folder).volume_hu, expected_hu())


def test_a_disc_that_holds_a_series_twice(tmp_path):
    folder = write(tmp_path / "ct", series())
    shutil.copytree(folder, folder / "BACKUP")
    with pytest.warns(UserWarning, match="left out: 5 of slice that another file holds as well"):
        scan = load_scan(folder)
    np.testing.assert_array_equal(scan.volume_hu, expected_hu())


def test_all_slices_have_one_number(tmp_path):
    """Some tools that anonymize give all instances the same UID; their places tell them apart."""
    folder = write(tmp_path / "ct", series(SOPInstanceUID="1.2.3"))
    np.testing.assert_array_equal(load_scan(folder).volume_hu, expected_hu())


def test_two_series_whose_slices_have_one_number(tmp_path):
    """The second one was taken for a copy of the first, and vanished or was cut short."""
    arterial = series(5, SOPInstanceUID="1.2.3")
    changes = {"SeriesInstanceUID": STUDY + ".9", "SOPInstanceUID": "1.2.3"}
    venous = series(9, stored(9)[:, ::-1], **changes)
    folder = tmp_path / "ct"
    write(folder / "a", arterial)
    write(folder / "b", venous)
    with pytest.raises(DataError, match="holds several series"):
        open_scan(folder)
    np.testing.assert_array_equal(load_scan(folder, STUDY + ".1").volume_hu, expected_hu())
    np.testing.assert_array_equal(
        load_scan(folder, STUDY + ".9").volume_hu, expected_hu(9)[:, ::-1]
    )


def test_two_phases_of_one_series_whose_slices_have_one_number(tmp_path):
    """Which of the two was read hung on the names of the files, slice by slice."""
    one = {"SOPInstanceUID": "1.2.3"}
    write(tmp_path / "ct", [*series(**one), *series(pixels=stored()[:, ::-1], **one)])
    with pytest.raises(DataError, match="slices are doubled"):
        open_scan(tmp_path / "ct")


def test_each_slice_is_of_a_series_of_its_own(tmp_path):
    slices = series()
    for each in slices:
        each.SeriesInstanceUID = pydicom.uid.generate_uid()
    with pytest.raises(DataError, match="each of its 5 slices has a SeriesInstanceUID") as told:
        open_scan(write(tmp_path / "ct", slices))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["single", "enhanced"])
def test_a_ct_is_known_without_its_modality(tmp_path, kind):
    slices = series(Modality=None) if kind == "single" else [enhanced(range(5), Modality=None)]
    scan = load_scan(write(tmp_path / "ct", slices))
    np.testing.assert_array_equal(scan.volume_hu, expected_hu())
    save_label(np.zeros(scan.shape, np.uint8), scan, tmp_path / "label.dcm")


@pytest.mark.parametrize("modality", ["SR", "CT", None])
def test_a_damaged_file_that_is_no_ct_stops_no_series(tmp_path, modality):
    report = slice_of(stored()[0], (0, 0, 0), Modality=modality, SOPClassUID="1.2.3")
    del report.PixelData
    report.TextValue = "x" * 400
    folder = write(tmp_path / "ct", series())
    path = folder / "report"
    report.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes()[:-100])
    if modality == "SR":
        with pytest.warns(UserWarning, match="left out: 1 of damaged file of modality SR"):
            assert open_scan(folder).shape == (5, 6, 8)
    else:
        with pytest.raises(DataError, match="report: its DICOM header is damaged"):
            open_scan(folder)


@pytest.mark.parametrize("name", ["PixelSpacing", "Rows", "BitsStored"])
def test_what_a_header_lacks_is_named(tmp_path, name):
    slices = series()
    delattr(slices[2], name)
    with pytest.raises(DataError, match=f"lacks {name}"):
        open_scan(write(tmp_path / "ct", slices))


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_numbers_that_cannot_be_are_never_believed(tmp_path, name):
    """Of rows that are not there SimpleITK reads what memory happens to hold."""
    folder = write(tmp_path / "ct", with_raw(*DAMAGED[name]))
    with pytest.raises(DataError, match=r"IM00\d: its DICOM header is damaged \("):
        open_scan(folder)


@pytest.mark.parametrize("place", [b"\x28\0\x10\0US", b"\x20\0\x32\0DS", b"\x08\0\x60\0CS"])
def test_kinds_of_values_that_there_are_not(tmp_path, place):
    """To pydicom a damaged one is not implemented yet."""
    folder = write(tmp_path / "ct", series())
    path = sorted(folder.iterdir())[2]
    content = path.read_bytes()
    assert place in content
    path.write_bytes(content.replace(place, place[:4] + b"Qx", 1))
    with pytest.raises(DataError, match="IM002: its DICOM header is damaged"):
        open_scan(folder)


def test_frames_without_pixels(tmp_path):
    short = enhanced(range(5))
    short.PixelData = short.PixelData[: len(short.PixelData) * 3 // 5]
    with pytest.raises(DataError, match="5 x 6 x 8 pixels take 480 bytes, and it has 288"):
        open_scan(write(tmp_path / "short", [short]))
    more = enhanced(range(5))
    more.NumberOfFrames = 7
    with pytest.raises(DataError, match="7 frames, and it tells of what lies in 5 places"):
        open_scan(write(tmp_path / "more", [more]))


def test_values_beyond_any_number(tmp_path):
    folder = write(tmp_path / "ct", with_raw("RescaleSlope", b"1e300 "))
    with pytest.raises(DataError, match="has NaN or infinite voxels"):
        load_scan(folder)


@pytest.mark.parametrize("number", [b"abc ", b"1\\2 ", b"1.5 ", b"", b"9" * 30])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_series_whose_numbers_are_none(tmp_path, number, recwarn):
    other = series(SeriesInstanceUID=STUDY + ".9", SeriesDescription="a\x1b[31m\nb")
    folder = write(tmp_path / "ct", [*with_raw("SeriesNumber", number), *other])
    recwarn.clear()
    with pytest.raises(DataError, match="holds several series") as told:
        open_scan(folder)
    assert "5 slices of 8x6, a [31m b" in str(told.value)
    assert not recwarn.list
    assert open_scan(folder, STUDY + ".1").shape == (5, 6, 8)


def test_a_bad_series_stops_no_other(tmp_path):
    inverted = series(SeriesInstanceUID=STUDY + ".5", PhotometricInterpretation="MONOCHROME1")
    folder = write(tmp_path / "ct", [*inverted, *series()])
    with pytest.raises(DataError, match=r"--series 2: venous, which cannot be read: .*inverted"):
        open_scan(folder)
    assert open_scan(folder, "1").shape == (5, 6, 8)
    with pytest.raises(DataError, match="are inverted"):
        open_scan(folder, "2")


def test_a_scout_that_is_not_called_so_is_no_series_to_choose(tmp_path):
    scout = {"SeriesInstanceUID": STUDY + ".5", "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    folder = write(tmp_path / "ct", [slice_of(stored()[0], (0, 0, 0), **scout), *series()])
    with pytest.warns(UserWarning, match="left out: 1 of slice alone in its series"):
        assert open_scan(folder).shape == (5, 6, 8)


def test_what_may_not_be_read_is_told(tmp_path, monkeypatch):
    folder = write(tmp_path / "ct", series())
    top = max(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    for error in (PermissionError(13, "Permission denied"), OSError(5, "Input/output error")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", failing(Path.open, error, top))
            with pytest.warns(UserWarning, match="left out: 1 of file that cannot be read"):
                assert open_scan(folder).shape == (4, 6, 8)


def failing(call, error, bad=None):
    """Give a function that does what `call` does, and fails for one path, or for all."""

    def call_or_fail(path, *args, **kwargs):
        if bad in (None, path):
            raise error
        return call(path, *args, **kwargs)

    return call_or_fail


@pytest.mark.parametrize("name", ["IM009.dcm.gz", "more.ZIP", "more.tar.gz"])
def test_packed_files_beside_slices_are_told(tmp_path, name):
    folder = write(tmp_path / "ct", series())
    (folder / name).write_bytes(b"\x1f\x8b no matter")
    with pytest.warns(UserWarning, match="left out: 1 of packed file, which is to be unpacked"):
        assert open_scan(folder).shape == (5, 6, 8)


@pytest.mark.parametrize("size", [100, 1000])
def test_a_file_of_zeros_that_may_have_been_the_last_slice_is_told(tmp_path, size):
    folder = write(tmp_path / "ct", series())
    (folder / "IM009").write_bytes(bytes(size))
    with pytest.warns(UserWarning, match="left out: 1 of file of zeros"):
        assert open_scan(folder).shape == (5, 6, 8)


def test_a_disk_that_fails_within_a_header(tmp_path, monkeypatch):
    folder = write(tmp_path / "ct", series())
    error = OSError(5, "Input/output error")
    monkeypatch.setattr("tunet_lib.dicom_slice.open_inflated", failing(None, error))
    with pytest.raises(DataError, match=r"IM000: cannot be read \(Input/output error\); get it"):
        open_scan(folder)


def test_links_that_lead_in_a_circle_and_pipes(tmp_path):
    folder = write(tmp_path / "ct", series())
    (folder / "self").symlink_to(folder)
    (folder / "gone").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    np.testing.assert_array_equal(load_scan(folder).volume_hu, expected_hu())


def test_one_file_of_a_series(tmp_path):
    path = next(write(tmp_path / "ct", series()).iterdir())
    with pytest.raises(DataError, match="is one file of DICOM; name the folder"):
        open_scan(path)


# Stacks


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path):
    slices = series(6)
    del slices[3]
    folder = write(tmp_path / "ct", slices)
    with pytest.raises(DataError, match=r"missing: 1 between IM00\d and IM00\d \(36.0 to 42.0 mm"):
        open_scan(folder)


def test_doubled_slices_are_named(tmp_path):
    slices = series(5)
    twin = slice_of(stored()[2], slices[2].ImagePositionPatient)
    folder = write(tmp_path / "ct", [*slices, twin])
    with pytest.raises(DataError, match=r"doubled: IM00\d and IM00\d lie in one place"):
        open_scan(folder)


def test_uneven_slices_are_named_but_rounded_positions_are_none(tmp_path):
    slices = series(6, step_mm=(0, 0, 0.625))
    for each in slices:
        each.ImagePositionPatient = [round(value, 2) for value in each.ImagePositionPatient]
    assert open_scan(write(tmp_path / "even", slices)).spacing_mm[0] == pytest.approx(0.624)
    slices[3].ImagePositionPatient[2] += 0.2
    with pytest.raises(DataError, match=r"unevenly spaced: IM00\d lies 0\.\d+ mm off its place"):
        open_scan(write(tmp_path / "uneven", slices))


@pytest.mark.parametrize("name", ["AcquisitionNumber", "ConvolutionKernel"])
@pytest.mark.parametrize("two", [(1, 2), (None, 2)])
def test_two_acquisitions_or_kernels_half_a_step_apart(tmp_path, name, two):
    """They were one CT of half the step, whose slices were by turns of either."""
    values = [value if value is None or name[0] == "A" else f"B{value}0f" for value in two]
    first, second = (
        series(step_mm=(0, 0, 5.0), origin_mm=(-10, -20, start), **{name: value})
        for value, start in zip(values, (30.0, 32.5), strict=True)
    )
    with pytest.raises(DataError, match=r"mixes 2 acquisitions or kernels .* IM00\d is of .*2"):
        open_scan(write(tmp_path / "mixed", first + second))
    shift = 25.0
    for each in second:
        each.ImagePositionPatient[2] += shift - 2.5
    folder = write(tmp_path / "behind", first + second)
    assert open_scan(folder).shape == (10, 6, 8)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_acquisition_number_that_is_none_is_no_hindrance(tmp_path):
    folder = write(tmp_path / "ct", with_raw("AcquisitionNumber", b"abc "))
    assert open_scan(folder).shape == (5, 6, 8)
    slices = series()
    for number, each in enumerate(slices):
        each.AcquisitionNumber = number  # as of a table that stops at each slice
    assert open_scan(write(tmp_path / "steps", slices)).shape == (5, 6, 8)


@pytest.mark.parametrize(
    ("orientation", "right"),
    [
        ((1.009, 0, 0, 0, 1.009, 0), (1, 0, 0)),
        ((0.71, 0.71, 0, -0.71, 0.71, 0), (0.5**0.5, 0.5**0.5, 0)),
        ((1, 0, 0, 0.01, 1, 0), (1, 0, 0)),
    ],
)
def test_directions_that_are_rounded_do_not_change_the_size_of_a_voxel(
    tmp_path, orientation, right
):
    file = open_image(write(tmp_path / "ct", series(ImageOrientationPatient=list(orientation))))
    columns = file.affine[:3, :2]
    np.testing.assert_allclose(columns.T @ columns, np.diag([0.64, 0.81]), atol=1e-9)
    np.testing.assert_allclose(columns[:, 0], np.multiply(right, (-0.8, -0.8, 0.8)), atol=1e-9)


def test_a_slice_of_another_size_or_direction_is_named(tmp_path):
    odd = slice_of(stored(1, 4, 4)[0], (-10, -20, 45))
    with pytest.raises(DataError, match="differ in size"):
        open_scan(write(tmp_path / "size", [*series(), odd]))
    turned = slice_of(stored()[0], (-10, -20, 45), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    with pytest.raises(DataError, match="differ in orientation"):
        open_scan(write(tmp_path / "turned", [*series(), turned]))


def test_a_single_slice_is_no_volume(tmp_path):
    with pytest.raises(DataError, match="is a single slice"):
        open_scan(write(tmp_path / "ct", series(1)))


def test_a_tilted_gantry_gives_an_affine_with_shear(tmp_path):
    tilt = np.deg2rad(20)
    orientation = [1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)]
    folder = write(tmp_path / "ct", series(5, ImageOrientationPatient=orientation))
    affine = open_image(folder).affine
    np.testing.assert_allclose(affine[:3, 2], (0, 0, 3), atol=1e-6)
    assert abs(affine[:3, 1] @ affine[:3, 2]) > 0.5
    volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
    assert volume_mm3 == pytest.approx(0.8 * 0.9 * 3 * np.cos(tilt))


# Damage


def test_a_slice_that_is_cut_short(tmp_path):
    folder = write(tmp_path / "ct", series())
    path = sorted(folder.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="IM000"):
        load_scan(folder)


def test_a_header_that_is_damaged(tmp_path):
    folder = write(tmp_path / "ct", [*series(), slice_of(stored()[0], (0, 0, 0), PixelSpacing=[1])])
    with pytest.raises(DataError, match="its DICOM header is damaged"):
        open_scan(folder)


def test_a_file_of_zeros_is_no_long_header(tmp_path):
    start_s = time.process_time()
    (tmp_path / "ct.nii").write_bytes(b"\x08\0" + bytes(1 << 26))
    with pytest.raises(DataError, match="more than 10000 elements"):
        open_scan(tmp_path / "ct.nii")
    assert time.process_time() - start_s < 2


def test_without_the_extra_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    folder = write(tmp_path / "ct", series())
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(
        DataError, match=r'needs pydicom.*pip install "tunet-book\[formats\]"'
    ) as told:
        open_scan(folder)
    assert "damaged" not in str(told.value)


# Label maps


def test_the_label_map_lies_on_the_series_as_nifti_and_nrrd(tmp_path):
    folder = write(tmp_path / "ct", series(ImageOrientationPatient=list(AXIAL)))
    scan = load_scan(folder)
    label = (np.arange(scan.volume_hu.size) % 3).astype(np.uint8).reshape(scan.shape)
    for name in ("label.nii.gz", "label.nii", "label.nrrd"):
        save_label(label, scan, tmp_path / name)
        again = load_scan(tmp_path / name)
        np.testing.assert_array_equal(again.volume_hu, label)
        np.testing.assert_allclose(again.file.affine, scan.file.affine, atol=1e-4)


def test_a_label_map_over_a_tilted_ct_lies_on_it_in_programs_of_itk(tmp_path):
    """These know no shear: of DICOM they take the normal, and of NIfTI the qform."""
    tilt = np.deg2rad(20)
    orientation = [1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)]
    folder = write(tmp_path / "ct", series(12, ImageOrientationPatient=orientation))
    scan = open_scan(folder)
    save_label(np.zeros(scan.shape, np.uint8), scan, tmp_path / "label.nii.gz")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    ct, label = sitk.ReadImage(names), sitk.ReadImage(str(tmp_path / "label.nii.gz"))
    for index in ((0, 0, 0), (7, 5, 0), (7, 5, 11)):
        np.testing.assert_allclose(
            label.TransformIndexToPhysicalPoint(index),
            ct.TransformIndexToPhysicalPoint(index),
            atol=1e-3,
        )
    affine = nib.load(tmp_path / "label.nii.gz").affine  # of the sform
    np.testing.assert_allclose(affine, open_image(folder).affine, atol=1e-4)
