"""Folders of DICOM in the page that segments a CT, beside the library: the same voxels."""

import base64
import re
import warnings

import nibabel as nib
import numpy as np
import pytest
from dicoms import (
    DAMAGED,
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
from tunet_lib.phantom import make_phantom
from tunet_lib.predict import predict_scan
from tunet_lib.scans import load_label, load_scan

from .conftest import keep_screenshot
from .test_segment import LEAST_DSC, PACKING, PAGE, dsc, open_with, quick, wait_until_done  # noqa: F401

pytestmark = pytest.mark.browser

FOLDER = ".segment-here input.folder"
PROGRAMS = "vendor/dcm2niix", "vendor/dicom-parser"
# Reads all series of the files that an input of the test's own holds.
READ = """async () => {PACKING
  const segment = new URL("../_static/segment/", location.href);
  const { findSeries, findStack } = await import(new URL("series.js", segment));
  const { readStack } = await import(new URL("dicom.js", segment));
  await window.ctViewer.script("vendor/dicom-parser/dicomParser.min.js");
  const { series } = await findSeries([...document.querySelector("#mine").files]);
  const found = [];
  for (const one of series) {
    const { slices, ...where } = findStack(one);
    const ct = await readStack({
      files: slices.map(({ file }) => file), pixels: slices.map(({ pixels }) => pixels), ...where,
    });
    const voxels = await packed(Float32Array.from(ct.voxels));
    found.push({ text: one.text, affine: ct.affine, shape: ct.shape, voxels });
  }
  return found;
}""".replace("PACKING", PACKING)
MINE = """document.body.insertAdjacentHTML(
  "beforeend", "<input type=file id=mine webkitdirectory aria-label=mine>")"""


def pixels(count=6):
    return stored(count, 64, 64)


def alike(**changes):
    return series(6, pixels(), **changes)


def compressed(name):
    slices = alike()
    for each in slices:
        each.compress(getattr(pydicom.uid, name))
    return slices


def in_syntax(name):
    slices = alike()
    for each in slices:
        each.file_meta.TransferSyntaxUID = getattr(pydicom.uid, name)
    return slices


def each_with(slices=None, **values):
    """Give the slices of a series values of their own."""
    slices = slices or alike()
    for name, own in values.items():
        for each, value in zip(slices, own, strict=True):
            setattr(each, name, value)
    return slices


def rounded(step_mm, digits, *, count=100, first_mm=0.0):
    """Give positions as some scanners write them; the first gap may be longer than all others."""
    heights = [k * step_mm + first_mm * (k > 0) for k in range(count)]
    positions = [[-10, -20, round(height, digits)] for height in heights]
    return each_with(series(count, pixels(count)), ImagePositionPatient=positions)


def bare(folder):
    """Cut the preamble off each file."""
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    return folder


def with_long_headers():
    """Put more before the pixels than the part of a file that is read first."""
    slices = alike()
    for each in slices:
        block = each.private_block(0x0009, "tunet", create=True)
        block.add_new(1, "OB", bytes(100_000))
    return slices


def signed():
    values = (pixels().astype(int) - 1024).astype("<i2").view("<u2")
    bits = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": 0}
    return series(6, values, **bits)


OWN_PADDINGS = [65535, 63536, 4095, 0, 65535, 9000]  # of which 4095 is bone, and 0 air


def padded(paddings, slopes=(1,) * 6, **changes):
    """Give slices whose first rows hold what each names for pixels without a value."""
    values = pixels()
    values[:, :9] = np.array(paddings)[:, None, None]
    slices = series(6, values, BitsStored=16, HighBit=15, **changes)
    return each_with(slices, PixelPaddingValue=paddings, RescaleSlope=slopes)


def padded_below_0():
    slices = signed()
    for each in slices:
        rows = np.frombuffer(each.PixelData, "<i2").copy()
        rows[:999] = -2000
        each.PixelData, each.PixelPaddingValue = rows.tobytes(), -2000
    return slices


def scaled_by_philips():
    slices = alike(Manufacturer="Philips Medical Systems")
    for each in slices:
        block = each.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0D, "FL", 0.0)
        block.add_new(0x0E, "FL", 2.5)
    return slices


def numbers_of_another_series():
    """Give two series whose slices have the same numbers and places, and other pixels."""
    numbers = [f"{STUDY}.9.{k}" for k in range(6)]
    lung = series(6, pixels()[:, ::-1], SeriesInstanceUID=STUDY + ".7", SeriesNumber=7)
    return [*each_with(SOPInstanceUID=numbers), *each_with(lung, SOPInstanceUID=numbers)]


def two_and_a_scout():
    other = {"SeriesInstanceUID": STUDY + ".7", "SeriesNumber": 7, "SeriesDescription": "bone <b>"}
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    return [
        *alike(),
        *series(5, pixels(5)[:, :48], **other),
        slice_of(pixels(1)[0], (0, 0, 0), **scout),
    ]


TAKEN = {
    "plain": alike,
    "implicit": lambda: in_syntax("ImplicitVRLittleEndian"),
    "RLE": lambda: compressed("RLELossless"),
    "JPEG-LS": lambda: compressed("JPEGLSLossless"),
    "JPEG 2000": lambda: compressed("JPEG2000Lossless"),
    "head first": lambda: alike(step_mm=(0, 0, -3.0)),
    "prone": lambda: alike(ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]),
    "coronal": lambda: alike(step_mm=(0, 3, 0), ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
    "slope": lambda: alike(RescaleSlope=0.5, RescaleIntercept=-1000.25),
    "own slopes": lambda: each_with(RescaleSlope=[1, 2, 0.5, 1, 1, 3]),
    "own acquisitions": lambda: each_with(
        AcquisitionNumber=range(1, 7), ContentTime=[f"12000{k}" for k in range(6)]
    ),
    "16 bits": lambda: series(6, pixels() * 16, BitsStored=16, HighBit=15),
    "signed": signed,
    "long headers": with_long_headers,
    "rounded": lambda: rounded(0.625, 2),
    "thirds": lambda: rounded(1 / 3, 3),
    "tenths": lambda: rounded(1.25, 1, count=12),
    "first gap": lambda: rounded(1, 3, first_mm=0.005),
    "padding": lambda: padded([65535] * 6),
    "padding below 0": padded_below_0,
    "own paddings": lambda: padded(OWN_PADDINGS, slopes=[1, 1, 1, 1, 2, 0.5]),
    "own paddings, feet up": lambda: padded(
        OWN_PADDINGS, ImageOrientationPatient=[1, 0, 0, 0, -1, 0]
    ),
    "own paddings, coronal": lambda: padded(
        OWN_PADDINGS, step_mm=(0, 3, 0), ImageOrientationPatient=[1, 0, 0, 0, 0, -1]
    ),
    "UTF-8": lambda: alike(SpecificCharacterSet="ISO_IR 192", SeriesDescription="Bauch venös 腹"),
    "two series": two_and_a_scout,
    "no modality": lambda: alike(Modality=None),
    "turned a little": lambda: alike(ImageOrientationPatient=[1.0, 0.03, 0, -0.03, 1.0, 0]),
    "scaled by Philips": scaled_by_philips,
    "numbers of another series": lambda: numbers_of_another_series(),
    "no numbers": lambda: [
        *alike(SeriesNumber=None),
        *alike(SeriesNumber=None, SeriesInstanceUID=STUDY + ".7"),
    ],
}


@pytest.mark.filterwarnings("ignore:.*left out")
def test_voxels_and_their_places_are_those_of_the_library(visitor, tmp_path):
    open_with_an_input_of_our_own(visitor)
    for name, make in TAKEN.items():
        check_voxels(visitor, write(tmp_path / name, make()))


def test_the_jpeg_lossless_that_scanners_write(visitor, tmp_path):
    pytest.importorskip("SimpleITK", reason="the extra formats is not installed")
    written = write_jpeg_lossless(tmp_path, alike())
    open_with_an_input_of_our_own(visitor)
    check_voxels(visitor, written)


def open_with_an_input_of_our_own(visitor):
    visitor.open(PAGE)
    visitor.tab.evaluate(MINE)


def check_voxels(visitor, folder):
    """Read a folder both ways: as many series, of the same voxels in the same places."""
    visitor.tab.set_input_files("#mine", folder)
    found = visitor.tab.evaluate(READ)
    expected = find_series(folder)[0]
    assert [one["text"] for one in found] == [str(one).split(": ")[1] for one in expected]
    for one, listed in zip(found, expected, strict=True):
        voxels = np.frombuffer(base64.b64decode(one["voxels"]), np.float32)
        image = nib.Nifti1Image(
            voxels.reshape(one["shape"], order="F"), np.array([*one["affine"], [0, 0, 0, 1]])
        )
        nib.save(image, folder.parent / "read.nii")
        mine, theirs = load_scan(folder.parent / "read.nii"), load_scan(folder, listed.uid)
        np.testing.assert_array_equal(mine.volume_hu, theirs.volume_hu, err_msg=folder.name)
        np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-4, err_msg=folder.name)


def without(slices, index):
    return slices[:index] + slices[index + 1 :]


def shifted():
    slices = alike()
    slices[3].ImagePositionPatient[2] += 1.2
    return slices


def tilted(degrees):
    angle = np.deg2rad(degrees)
    return alike(ImageOrientationPatient=[1, 0, 0, 0, np.cos(angle), -np.sin(angle)])


def twin():
    slices = alike()
    return [*slices, slice_of(pixels()[0], slices[2].ImagePositionPatient)]


def other_pixels():
    """Give a slice twice, under one number, as it was computed by two kernels."""
    slices = each_with(SOPInstanceUID=[f"{STUDY}.9.{k}" for k in range(6)])
    position = slices[2].ImagePositionPatient
    other = slice_of(pixels()[2, ::-1], position, SOPInstanceUID=slices[2].SOPInstanceUID)
    return [*slices, other]


# What the page says; whether the library takes it nevertheless.
REFUSED = {
    "missing": (lambda: without(alike(), 3), "Slices are missing between IM00. and IM00. .36.0", 0),
    "doubled": (twin, "Slices are doubled: IM00. and IM00. lie in one place", 0),
    "other pixels": (other_pixels, "Slices are doubled: IM00. and IM00. lie in one place", 0),
    "two kernels": (
        lambda: each_with(ConvolutionKernel=["B30f", "B70f"] * 3),
        "mixes 2 acquisitions or kernels in one series: IM00. is of kernel B.0f, and IM00. of",
        0,
    ),
    "two acquisitions": (
        lambda: each_with(AcquisitionNumber=[1, 2] * 3),
        "mixes 2 acquisitions or kernels in one series",
        0,
    ),
    "uneven": (shifted, "unevenly spaced: IM00. lies 1.20 mm off its place", 0),
    "size": (lambda: [*alike(), slice_of(stored()[0], (-10, -20, 48))], "differ in size", 0),
    "single": (lambda: alike()[:1], "IM000 is a single slice", 0),
    "MR": (lambda: alike(Modality="MR"), "no CT slices here. Left out: 6 of modality MR", 0),
    "iodine": (lambda: alike(RescaleType="MGML"), "Left out: 6 of map in MGML, not HU", 0),
    "inverted": (
        lambda: alike(PhotometricInterpretation="MONOCHROME1"),
        "are inverted",
        0,
    ),
    "slope 0": (lambda: alike(RescaleSlope=0), "RescaleSlope is 0", 1),
    "no spacing": (lambda: alike(PixelSpacing=None), "lacks PixelSpacing", 0),
    "tilted": (lambda: tilted(20), "askew by 20 degrees", 1),
    "frames": (lambda: [enhanced(range(5))], "holds many frames in one file", 1),
    **{
        f"{rows} rows, {name}": (
            lambda name=name, rows=rows: each_with(compressed(name), Rows=[rows] * 6),
            "IM00.: its pixels are damaged, or of another number",
            0,
        )
        for name in ("RLELossless", "JPEGLSLossless", "JPEG2000Lossless")
        for rows in (40, 80)
    },
    "deflated": (
        lambda: in_syntax("DeflatedExplicitVRLittleEndian"),
        "compressed in a way that this page does not know",
        1,
    ),
    "a little tilted": (
        lambda: each_with(tilted(1), GantryDetectorTilt=[1.0] * 6),
        "come apart into several volumes",
        1,
    ),
    "derived": (
        lambda: each_with(ImageType=[["ORIGINAL", "PRIMARY", "AXIAL"]] * 5 + [["DERIVED"]]),
        "come apart into several volumes",
        1,
    ),
    "one number": (lambda: alike(SOPInstanceUID="1.2.3"), "come out elsewhere than their head", 1),
}


@pytest.mark.filterwarnings("ignore:.*degrees:UserWarning")
def test_what_is_refused_is_answered_with_a_sentence(visitor, tmp_path):
    visitor.open(PAGE)
    for name, (make, sentence, is_taken) in REFUSED.items():
        folder = write(tmp_path / name, make())
        visitor.tab.set_input_files(FOLDER, folder)
        wait_for(visitor.tab, sentence)
        assert visitor.tab.locator(".working").is_hidden()
        if is_taken:
            load_scan(folder)
        else:
            with pytest.raises(DataError):
                load_scan(folder)


def test_files_without_a_preamble_are_named(visitor, tmp_path):
    folder = bare(write(tmp_path / "bare", alike()))
    visitor.open(PAGE)
    visitor.tab.set_input_files(FOLDER, folder)
    wait_for(
        visitor.tab, "IM00.: lacks the first 132 bytes of a DICOM file; tunet predict takes it"
    )
    load_scan(folder)


def test_numbers_that_cannot_be_are_never_believed(visitor, tmp_path):
    """Each is refused by the library as well: tests/test_dicom.py."""
    visitor.open(PAGE)
    for name, damage in DAMAGED.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of what is written here
            folder = write(tmp_path / name, with_raw(*damage))
        visitor.tab.set_input_files(FOLDER, folder)
        wait_for(visitor.tab, "IM00.: its DICOM header is damaged .")
        visitor.tab.evaluate("document.querySelector('.said').textContent = ''")


def test_a_bad_series_stops_no_other(visitor, tmp_path):
    other = {"SeriesInstanceUID": STUDY + ".5", "SeriesNumber": 1}
    inverted = alike(PhotometricInterpretation="MONOCHROME1", **other)
    alone = slice_of(pixels(1)[0], (0, 0, 0), SeriesInstanceUID=STUDY + ".6")
    folder = write(tmp_path / "ct", [*inverted, *alike(), alone])
    visitor.open(PAGE)
    visitor.tab.set_input_files(FOLDER, folder)
    visitor.tab.wait_for_selector(".series button")
    said = visitor.tab.locator(".said").inner_text()
    assert said == "There are 2 series. Left out: 1 of slice alone in its series."
    first, second = visitor.tab.locator(".series button").all_inner_texts()
    assert re.match(r"Series 1: venous, which cannot be read: IM0\d\d: .* inverted", first)
    assert second == "Series 2: 6 slices of 64x64, venous"
    visitor.tab.locator(".series button").first.click()
    wait_for(visitor.tab, "are inverted")
    assert visitor.tab.locator(".series button").count() == 2  # the other one may do


LEFT_OUT = """async () => {
  const segment = new URL("../_static/segment/", location.href);
  const { findSeries } = await import(new URL("series.js", segment));
  await window.ctViewer.script("vendor/dicom-parser/dicomParser.min.js");
  const { series, leftOut } = await findSeries([...document.querySelector("#mine").files]);
  return [series.map(({ text }) => text), leftOut];
}"""


def test_what_is_left_out_is_named_and_stops_no_series(visitor, tmp_path):
    folder = write(tmp_path / "ct", alike())
    bare(write(folder / "bare", alike(Modality="SR")[:1]))
    write(folder / "deflated", [in_syntax("DeflatedExplicitVRLittleEndian")[0]])
    cut = write(folder / "cut", alike(Modality="SR")[:1]) / "IM000"
    cut.write_bytes(cut.read_bytes()[:700] + b"\xff" * 99)  # behind its modality
    for name, content in (("no", b""), ("zeros", bytes(999)), ("a.nii.gz", b"1"), ("b.gz", b"1")):
        (folder / name).write_bytes(content)
    (folder / "readme.txt").write_text("hello")
    open_with_an_input_of_our_own(visitor)
    visitor.tab.set_input_files("#mine", folder)
    texts, left_out = visitor.tab.evaluate(LEFT_OUT)
    assert texts == ["6 slices of 64x64, venous"]
    reasons = [
        "damaged file of modality SR",
        "empty file",
        "file of zeros",
        "image of another format",
        "packed file, which is to be unpacked first",
    ]
    left = {f"1 of {reason}" for reason in reasons} | {"2 of file that this page cannot read"}
    assert set(re.split(r", (?=\d)", left_out)) == left


def test_of_several_series_another_one_may_do(visitor, tmp_path):
    tab = visitor.tab
    other = {"SeriesInstanceUID": STUDY + ".5", "SeriesNumber": 1}
    derived = each_with(
        alike(**other), ImageType=[["ORIGINAL", "PRIMARY", "AXIAL"]] * 5 + [["DERIVED"]]
    )
    visitor.open(PAGE)
    tab.set_input_files(FOLDER, write(tmp_path / "ct", [*derived, *alike()]))
    tab.wait_for_selector(".series button")
    tab.locator(".series button").first.click()
    wait_for(tab, "come apart into several volumes")
    assert tab.locator(".series button").count() == 2
    tab.locator(".series button").last.click()
    tab.wait_for_selector(".working:not([hidden])")
    tab.click(".stop")
    assert tab.locator(".series button").count() == 2
    tab.click("[data-case=small]")
    assert tab.locator(".series button").count() == 0
    tab.click(".stop")
    assert tab.locator(".series button").count() == 0


@pytest.mark.filterwarnings("ignore:.*left out")
def test_the_keyboard_keeps_its_place_when_what_had_it_goes(visitor, tmp_path):
    tab = visitor.tab
    visitor.open(PAGE)
    tab.set_input_files(FOLDER, write(tmp_path / "ct", two_and_a_scout()))
    tab.locator(".series button").first.press("Enter")
    tab.wait_for_selector(".working:not([hidden])")
    has_it = "document.querySelector('.said') === document.activeElement"
    assert tab.evaluate(has_it)
    tab.locator(".stop").press("Enter")
    assert tab.locator(".said").inner_text() == "Stopped."
    assert tab.evaluate(has_it)


def wait_for(tab, sentence):
    said = f"/{sentence}/.test(document.querySelector('.said').textContent)"
    tab.wait_for_function(said, timeout=30_000)


def test_damaged_slices_and_folders_without_any(visitor, tmp_path):
    folder = write(tmp_path / "cut", alike())
    path = sorted(folder.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-40])
    packed = write(tmp_path / "packed", compressed("RLELossless"))
    path = sorted(packed.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-2000])
    headers = write(tmp_path / "headers", alike())
    path = sorted(headers.iterdir())[0]
    path.write_bytes(path.read_bytes()[:400])
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("a.txt", "b.txt"):
        (texts / name).write_text("hello")
    visitor.open(PAGE)
    for place, sentence in (
        (folder, "IM000: its DICOM header is damaged .its pixels take 8192 bytes, and it has 8152"),
        (packed, "IM000: its pixels are damaged, or of"),
        (headers, "IM000: its DICOM header is damaged"),
        (texts, "There are no CT slices here. Drop one .nii"),
    ):
        visitor.tab.set_input_files(FOLDER, place)
        wait_for(visitor.tab, sentence)
        assert visitor.tab.locator(".working").is_hidden()
    visitor.tab.set_input_files(".segment-here input[accept]", folder / "IM001")
    wait_for(visitor.tab, "IM001 is a single slice")


def drop(tab, path):
    """Let go of a folder over the page, as a hand would."""
    box = tab.locator(".segment-here .drop").bounding_box()
    session = tab.context.new_cdp_session(tab)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send(
            "Input.dispatchDragEvent",
            {
                "type": kind,
                "x": box["x"] + box["width"] / 2,
                "y": box["y"] + box["height"] / 2,
                "data": {"items": [], "files": [str(path)], "dragOperationsMask": 1},
            },
        )


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_dropped_folder_is_segmented_as_by_the_library(visitor, quick, tmp_path):  # noqa: F811
    volume_hu, _, (z_mm, y_mm, x_mm) = make_phantom(np.random.default_rng(5))
    values = np.clip(volume_hu[::-1] + 1024, 0, 4095).astype(np.uint16)
    phantom = series(
        len(values),
        values,
        step_mm=(0, 0, float(z_mm)),
        PixelSpacing=[float(y_mm), float(x_mm)],
        SeriesNumber=3,
        SeriesInstanceUID=STUDY + ".3",
    )
    folder = write(tmp_path / "disc" / "A", phantom).parent
    write(folder / "B", two_and_a_scout())
    tab, asked = visitor.tab, []
    tab.context.on("request", lambda request: asked.append(request))
    open_with(visitor, quick)
    assert not any(program in request.url for request in asked for program in PROGRAMS)
    tab.locator(".segment-here .drop").scroll_into_view_if_needed()
    drop(tab, folder)
    tab.wait_for_selector(".series button")
    assert tab.locator(".said").inner_text() == "There are 3 series. Left out: 1 of localizer."
    buttons = tab.locator(".series button")
    mine = f"Series 2: {len(values)} slices of {values.shape[2]}x{values.shape[1]}, venous"
    assert buttons.all_inner_texts()[1:] == [mine, "Series 3: 5 slices of 64x48, bone <b>"]
    keep_screenshot(tab, "dicom_series.png")
    buttons.nth(1).click()
    wait_until_done(tab)
    assert "Left out: 1 of localizer." in tab.locator(".doubts").inner_text()
    with tab.expect_download() as download:
        tab.click(".save")
    download.value.save_as(tmp_path / "label.nii.gz")
    scan = load_scan(folder, "2")
    mine, theirs = load_label(tmp_path / "label.nii.gz", scan), predict_scan(scan, quick / "models")
    assert (theirs > 0).any()
    assert min(dsc(mine > 0, theirs > 0), dsc(mine == 2, theirs == 2)) >= LEAST_DSC

    addresses = [request.url for request in asked]
    assert all(any(program in one for one in addresses) for program in PROGRAMS)
    assert all(one.startswith((visitor.host, "blob:", "data:")) for one in addresses)
    assert all(request.method == "GET" for request in asked)
