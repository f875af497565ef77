"""Small series of DICOM, as scanners and archives write them."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra formats is not installed")
pytest.importorskip("SimpleITK", reason="the extra formats is not installed")
pytest.importorskip("highdicom", reason="the extra formats is not installed")

ROWS, COLUMNS = 6, 8
AXIAL = (1, 0, 0, 0, 1, 0)
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
STUDY, FRAME = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"


def stored(slices=5, rows=ROWS, columns=COLUMNS):
    """Give voxels of which no two neighbors are alike: (slices, rows, columns), 12 bits each."""
    count = slices * rows * columns
    return (np.arange(count) % 4096).astype(np.uint16).reshape(slices, rows, columns)


def slice_of(pixels, position_mm, **changes):
    """Make one CT slice; `changes` are DICOM keywords, None removes one."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    values = {
        "SOPClassUID": CT_STORAGE,
        "SOPInstanceUID": pydicom.uid.generate_uid(),
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": STUDY + ".1",
        "FrameOfReferenceUID": FRAME,
        "PatientID": "phantom",
        "PatientName": "Phantom^A",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyID": "1",
        "StudyDate": "20200101",
        "StudyTime": "120000",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SeriesNumber": 2,
        "SeriesDescription": "venous",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "PixelSpacing": [0.9, 0.8],
        "ImageOrientationPatient": list(AXIAL),
        "ImagePositionPatient": [float(value) for value in position_mm],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": pixels.astype("<u2").tobytes(),
    }
    for name, value in {**values, **changes}.items():
        if value is not None:
            setattr(data, name, value)
    data["PixelData"].VR = "OW"
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return data


def series(count=5, pixels=None, *, step_mm=(0, 0, 3.0), origin_mm=(-10, -20, 30), **changes):
    """Make the slices of one series, from feet to head."""
    pixels = stored(count) if pixels is None else pixels
    positions = np.array(origin_mm) + np.outer(np.arange(count), step_mm)
    return [slice_of(pixels[k], positions[k], **changes) for k in range(count)]


def write(folder, slices, name="IM{:03d}"):
    """Write slices under names that say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(slices))
    for number, index in enumerate(order):
        slices[index].save_as(folder / name.format(number), enforce_file_format=True)
    return folder


def sequence(**values):
    item = pydicom.Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return pydicom.Sequence([item])


def enhanced(order, intercepts=(-1024,), **changes):
    """Make one file of many frames of what `series` makes single files, in another order.

    What all frames have alike is said once; `intercepts` are one for all, or one for each.
    """
    pixels = stored(max(order) + 1)[list(order)]
    single = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    absent = dict.fromkeys((*single, "RescaleSlope", "RescaleIntercept"))
    data = slice_of(pixels[0], (0, 0, 0), **{"SOPClassUID": ENHANCED_CT, **absent, **changes})
    data.NumberOfFrames = len(order)
    data.PixelData = pixels.astype("<u2").tobytes()
    rescales = [
        sequence(RescaleSlope=1, RescaleIntercept=value, RescaleType="HU") for value in intercepts
    ]
    data.SharedFunctionalGroupsSequence = sequence(
        PixelMeasuresSequence=sequence(PixelSpacing=[0.9, 0.8], SliceThickness=3.0),
        PlaneOrientationSequence=sequence(ImageOrientationPatient=list(AXIAL)),
        **({"PixelValueTransformationSequence": rescales[0]} if len(rescales) == 1 else {}),
    )
    frames = [
        sequence(
            PlanePositionSequence=sequence(ImagePositionPatient=[-10.0, -20.0, 30.0 + 3 * place]),
            FrameContentSequence=sequence(DimensionIndexValues=[1, place + 1]),
        )[0]
        for place in order
    ]
    if len(rescales) > 1:
        for frame, rescale in zip(frames, rescales, strict=True):
            frame.PixelValueTransformationSequence = rescale
    data.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    return data


def with_raw(name, value, at=None):
    """Give a series in which slices have bytes for a value as no program should write them."""
    slices = series()
    tag = pydicom.tag.Tag(name)
    for each in slices if at is None else [slices[at]]:
        element = (tag, pydicom.datadict.dictionary_VR(tag), len(value), value, 0, False, True)
        each[tag] = pydicom.dataelem.RawDataElement(*element)
    return slices


DAMAGED = {
    "a position of two numbers": ("ImagePositionPatient", b"1\\2 ", 2),
    "a position of words": ("ImagePositionPatient", b"a\\b\\c ", 2),
    "a position of decimal commas": ("ImagePositionPatient", b"1,5\\2,0\\3,0 ", None),
    "a position nowhere": ("ImagePositionPatient", b"0\\0\\inf ", 2),
    "a direction that is none": ("ImageOrientationPatient", b"0\\0\\0\\0\\0\\0 ", None),
    "one direction twice": ("ImageOrientationPatient", b"1\\0\\0\\1\\0\\0 ", None),
    "directions that are too long": ("ImageOrientationPatient", b"2\\0\\0\\0\\2\\0 ", None),
    "pixels of no size": ("PixelSpacing", b"0\\0 ", None),
    "pixels below nothing": ("PixelSpacing", b"-1\\-1 ", None),
    "one pixel size": ("PixelSpacing", b"1 ", None),
    "an intercept of one slice": ("RescaleIntercept", b"nan ", 2),
    "an infinite slope": ("RescaleSlope", b"inf ", None),
    "two slopes": ("RescaleSlope", b"1\\2 ", None),
    "no rows": ("Rows", b"\0\0", None),
    "more rows than there are": ("Rows", b"\x3c\0", None),
    "fewer rows than there are": ("Rows", b"\3\0", None),
    "no bits": ("BitsStored", b"\0\0", None),
    "too many bits": ("BitsStored", b"\xff\xff", None),
    "bytes for pairs of bytes": ("BitsAllocated", b"\x08\0", None),
    "a sign that is none": ("PixelRepresentation", b"\2\0", None),
    "bits that count elsewhere": ("HighBit", b"\x0f\0", None),
    "pixels of an unknown kind": ("PhotometricInterpretation", b"HSV ", 1),
    "several frames": ("NumberOfFrames", b"2 ", None),
}


def write_jpeg_lossless(folder, slices):
    """Write slices as scanners compress them (1.2.840.10008.1.2.4.70), which pydicom cannot."""
    import SimpleITK as sitk

    plain = write(folder / "plain", slices)
    written = folder / "jpeg"
    written.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    for path in plain.iterdir():
        writer.SetFileName(str(written / f"{path.name}.dcm"))
        writer.Execute(sitk.ReadImage(str(path)))
    for path in written.iterdir():
        data = pydicom.dcmread(path)
        assert data.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
        data.Modality = "CT"
        data.save_as(path)
    return written
