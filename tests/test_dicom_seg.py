"""DICOM SEG, read back by two libraries that know nothing of each other's writing."""

import warnings

import dicoms
import numpy as np
import pytest
from dicoms import pydicom

from tunet_lib.files import DataError, notes_taken
from tunet_lib.formats import check_label_name
from tunet_lib.kits19 import save_case
from tunet_lib.scans import load_label, load_scan, open_scan, save_label

highdicom = pytest.importorskip("highdicom", reason="the extra formats is not installed")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return load_scan(dicoms.write(tmp_path_factory.mktemp("dicom") / "ct", dicoms.series()))


@pytest.fixture(scope="module")
def label(scan):
    label = np.zeros(scan.shape, np.uint8)
    label[1:4, 2:5, 1:6] = 1
    label[2:4, 3, 2:4] = 2
    return label


@pytest.fixture(scope="module")
def path(scan, label, tmp_path_factory):
    path = tmp_path_factory.mktemp("seg") / "label.dcm"
    save_label(label, scan, path)
    return path


def test_read_back_by_highdicom(path, scan, label):
    seg = highdicom.seg.segread(path)
    assert seg.number_of_segments == 2
    kidney, tumor = (seg.get_segment_description(number) for number in (1, 2))
    assert kidney.segmented_property_type.value == "64033007"
    assert kidney.segmented_property_category.value == "123037004"
    assert tumor.segmented_property_type.value == "108369006"
    assert tumor.segmented_property_category.value == "49755003"
    assert {c.scheme_designator for c in (kidney.segmented_property_type,)} == {"SCT"}
    assert [code.value for code in tumor.anatomic_regions] == ["64033007"]
    uids = [pydicom.dcmread(each.path).SOPInstanceUID for each in scan.file.slices]
    found = seg.get_pixels_by_source_instance(
        uids,
        combine_segments=True,
        ignore_spatial_locations=False,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(found[::-1], label)  # the series runs from feet to head


def test_read_back_by_pydicom(path, scan, label):
    seg, source = pydicom.dcmread(path), pydicom.dcmread(scan.file.slices[0].path)
    assert seg.SOPClassUID == pydicom.uid.SegmentationStorage
    assert (seg.Modality, seg.SegmentationType) == ("SEG", "BINARY")
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert seg[name].value == source[name].value
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Kidney", "Kidney tumor"]
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    counts = {1: 0, 2: 0}
    for plane, item in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        counts[item.SegmentIdentificationSequence[0].ReferencedSegmentNumber] += int(plane.sum())
    assert counts == {1: int((label == 1).sum()), 2: int((label == 2).sum())}


def test_an_empty_label_map_is_written_too(scan, label, tmp_path):
    save_label(np.zeros_like(label), scan, tmp_path / "none.dcm")
    assert not pydicom.dcmread(tmp_path / "none.dcm").pixel_array.any()


@pytest.mark.parametrize("names", ["\\ISO 2022 IR 87", "ISO 2022 IR 100", "ISO_IR 6", ""])
def test_whatever_letters_its_series_is_written_in(label, tmp_path, names):
    changes = {"SpecificCharacterSet": names.split("\\") if "\\" in names else names}
    if "87" in names:
        changes["PatientName"] = "Yamada^Tarou=山田^太郎"
    scan = load_scan(dicoms.write(tmp_path / "ct", dicoms.series(**changes)))
    save_label(label, scan, tmp_path / "label.dcm")
    back = pydicom.dcmread(tmp_path / "label.dcm")
    assert str(back.PatientName) == changes.get("PatientName", "Phantom^A")


def test_what_anonymizing_leaves_is_no_hindrance(label, tmp_path):
    changes = {"PatientBirthDate": "unknown", "StudyDate": "2020.01.01", "PatientSex": "Male"}
    changes |= {"StudyID": "x" * 40, "PatientName": "y" * 99}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's: of what is to be written
        folder = dicoms.write(tmp_path / "ct", dicoms.series(**changes))
    scan = load_scan(folder)
    with notes_taken() as notes:
        save_label(label, scan, tmp_path / "label.dcm")
    assert notes == []
    back = pydicom.dcmread(tmp_path / "label.dcm")
    assert not any(back.get(name) for name in changes)
    assert back.PatientID == "phantom"


@pytest.mark.parametrize("name", ["FrameOfReferenceUID", "StudyInstanceUID"])
def test_what_no_label_map_can_refer_to_is_told_before_there_is_one(tmp_path, name, scan, caplog):
    check_label_name(tmp_path / "label.dcm", scan.file)
    assert not caplog.records
    folder = dicoms.write(tmp_path / "ct", dicoms.series(**{name: None}))
    with pytest.raises(DataError, match=r"cannot refer to its series .*; write \.nii\.gz instead"):
        check_label_name(tmp_path / "label.dcm", open_scan(folder).file)
    check_label_name(tmp_path / "label.nii.gz", open_scan(folder).file)


def test_of_one_file_with_many_frames(tmp_path, label):
    folder = dicoms.write(tmp_path / "ct", [dicoms.enhanced([3, 0, 4, 1, 2])])
    scan = load_scan(folder)
    save_label(label, scan, tmp_path / "label.dcm")
    seg, source = highdicom.seg.segread(tmp_path / "label.dcm"), next(folder.iterdir())
    found = seg.get_pixels_by_source_frame(
        pydicom.dcmread(source).SOPInstanceUID,
        source_frame_numbers=[2, 4, 5, 1, 3],  # from feet to head
        combine_segments=True,
        assert_missing_frames_are_empty=True,
        ignore_spatial_locations=False,
    )
    np.testing.assert_array_equal(found[::-1], label)
    dicoms.write(folder, [dicoms.enhanced([5, 6])], name="more{}")
    scan = load_scan(folder)
    with pytest.raises(
        DataError, match=r"cannot refer to its series .its frames lie in several files"
    ):
        save_label(np.zeros(scan.shape, np.uint8), scan, tmp_path / "more.dcm")


def test_only_dicom_has_a_dicom_seg(label, tmp_path):
    case = save_case(tmp_path / "case_00000", label.astype(np.int16), spacing_mm=(3, 1, 1))
    with pytest.raises(DataError, match=r"refers to slices of DICOM, and .*imaging.* is none"):
        save_label(label, load_scan(case.image_path), tmp_path / "label.dcm")


@pytest.mark.parametrize("spacing_mm", [None, -3.0, 5.0])
@pytest.mark.parametrize("kind", ["single", "enhanced"])
def test_the_distance_of_slices_is_that_of_their_places(tmp_path, label, spacing_mm, kind):
    """What a header says of it may be the thickness, or below 0."""
    slices = dicoms.series(SliceThickness=5.0, SpacingBetweenSlices=spacing_mm)
    if kind == "enhanced":
        slices = [dicoms.enhanced(range(5))]
        if spacing_mm is not None:
            shared = slices[0].SharedFunctionalGroupsSequence[0]
            shared.PixelMeasuresSequence[0].SpacingBetweenSlices = spacing_mm
    scan = load_scan(dicoms.write(tmp_path / "ct", slices))
    save_label(label, scan, tmp_path / "label.dcm")
    seg = highdicom.seg.segread(tmp_path / "label.dcm")
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == 3
    assert seg.get_volume().spacing == (3, 0.9, 0.8)


def test_a_dicom_seg_is_not_read_and_that_is_said(path, scan):
    with pytest.raises(DataError, match=r"is a DICOM SEG, .* not read; name a label map in \.nii"):
        load_label(path, scan)
