"""Formats besides NIfTI and DICOM, and names by which a label map is written."""

import gzip
import os
import subprocess
import sys
import warnings
import zlib

import nibabel as nib
import numpy as np
import pytest
from scans import AFFINE, LABEL, ORIENTATIONS, VOLUME, VOLUME_MM, as_oriented

from tunet_lib.files import DataError, notes_taken
from tunet_lib.formats import check_label_name, suffix_of
from tunet_lib.kits19 import save_case
from tunet_lib.scans import load_label, load_scan, save_label

sitk = pytest.importorskip("SimpleITK", reason="the extra formats is not installed")
NAMES = ("ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd")


def written(path, volume=VOLUME, affine=AFFINE):
    """Write an image by SimpleITK, from its NIfTI."""
    nifti = path.with_name("source.nii.gz")
    nib.save(nib.Nifti1Image(volume, affine), nifti)
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(path))
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("codes", ORIENTATIONS[::7])
def test_other_formats_are_read_as_the_same_ct(tmp_path, name, codes):
    image = as_oriented(nib.Nifti1Image(VOLUME, AFFINE), codes)
    path = written(tmp_path / name, np.asanyarray(image.dataobj), image.affine)
    scan = load_scan(path)
    np.testing.assert_array_equal(scan.volume_hu, VOLUME)
    assert scan.spacing_mm == pytest.approx(VOLUME_MM, abs=1e-5)
    np.testing.assert_allclose(scan.file.affine, image.affine, atol=1e-4)
    for label_name in ("label.nii.gz", "label.nrrd"):
        save_label(LABEL, scan, tmp_path / label_name)
        np.testing.assert_array_equal(load_label(tmp_path / label_name, scan), LABEL)
    by_itk = sitk.ReadImage(str(tmp_path / "label.nrrd"))
    assert by_itk.GetSize() == sitk.ReadImage(str(path)).GetSize()
    np.testing.assert_allclose(by_itk.GetOrigin(), sitk.ReadImage(str(path)).GetOrigin(), atol=1e-4)


def test_a_label_map_in_nrrd_belongs_to_a_ct_in_nifti(tmp_path):
    case = save_case(tmp_path / "case_00000", VOLUME, spacing_mm=VOLUME_MM)
    scan = load_scan(case.image_path)
    save_label(LABEL, scan, tmp_path / "label.nrrd")
    np.testing.assert_array_equal(load_label(tmp_path / "label.nrrd", scan), LABEL)


def test_an_analyze_pair_is_read_with_a_warning(tmp_path):
    """It lies where nibabel and SPM put it, and so does its label map."""
    nib.save(nib.AnalyzeImage(VOLUME, np.diag([-0.7, 0.8, 3, 1])), tmp_path / "old.img")
    theirs = nib.load(tmp_path / "old.img")
    assert nib.aff2axcodes(theirs.affine) == ("L", "A", "S")
    for name in ("old.hdr", "old.img"):
        with pytest.warns(UserWarning, match="how the patient lies; LAS is assumed"):
            scan = load_scan(tmp_path / name)
        np.testing.assert_allclose(scan.file.affine, theirs.affine, atol=1e-6)
        np.testing.assert_array_equal(scan.file.read(), np.asanyarray(theirs.dataobj))
        assert scan.spacing_mm == pytest.approx((3, 0.8, 0.7))
    label = np.zeros(scan.shape, np.uint8)
    label[:, 0] = 1  # in front
    save_label(label, scan, tmp_path / "label.nii.gz")
    written = nib.load(tmp_path / "label.nii.gz")
    np.testing.assert_allclose(written.affine, theirs.affine, atol=1e-6)
    assert np.asanyarray(written.dataobj)[:, -1].all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("slope", "intercept", "is_read"),
    [(0, 0, True), (1, 0, True), (np.nan, 0, True), (0.5, 0, False), (1, -1024, False)],
)
def test_an_analyze_pair_that_spm_has_scaled(tmp_path, order, slope, intercept, is_read):
    """SimpleITK passes over the scale."""
    header = nib.AnalyzeHeader(endianness=order)
    nib.save(nib.AnalyzeImage(VOLUME, np.diag([-1, 1, 3, 1]), header), tmp_path / "ct.img")
    content = (tmp_path / "ct.hdr").read_bytes()
    scale = np.array([slope, intercept], f"{order}f4").tobytes()
    (tmp_path / "ct.hdr").write_bytes(content[:112] + scale + content[120:])
    if is_read:
        with pytest.warns(UserWarning, match="LAS is assumed"):
            np.testing.assert_array_equal(load_scan(tmp_path / "ct.hdr").file.read(), VOLUME)
    else:
        with pytest.raises(DataError, match=r"scales its voxels by .*; save it as NIfTI"):
            load_scan(tmp_path / "ct.hdr")


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_a_pair_of_either_nifti_is_no_analyze(tmp_path, kind):
    nib.save(kind(VOLUME, np.diag([-1, -1, 3, 1])), tmp_path / "ct.hdr")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "does not say how the patient lies")
        scan = load_scan(tmp_path / "ct.img")
    np.testing.assert_array_equal(np.sort(scan.volume_hu.ravel()), VOLUME.ravel())


@pytest.mark.parametrize("keep", [0, 20, 200])
@pytest.mark.parametrize("name", ["ct.nrrd", "ct.mha"])
def test_files_that_are_cut_short(tmp_path, name, keep):
    path = written(tmp_path / name)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{name}: "):
        load_scan(path)


def body_of(path):
    """Give the file that holds the voxels, and where they begin."""
    content = path.read_bytes()
    if path.suffix == ".nrrd":
        return path, content.index(b"\n\n") + 2
    if path.suffix == ".mha":
        return path, content.index(b"LOCAL\n") + 6
    return next(each for each in path.parent.iterdir() if "raw" in each.name), 0


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_voxels_that_are_damaged_are_never_taken(tmp_path, name, compressed):
    """SimpleITK reads a MetaImage that cannot be unpacked, and gives any values."""
    path = tmp_path / name
    written(tmp_path / "ct.nrrd")
    image = sitk.ReadImage(str(tmp_path / "ct.nrrd"))
    sitk.WriteImage(image, str(path), useCompression=compressed)
    body, start = body_of(path)
    content = body.read_bytes()
    np.testing.assert_array_equal(load_scan(path).volume_hu, VOLUME)
    for cut in (1, 5, 20):
        body.write_bytes(content[:-cut])
        with pytest.raises(DataError, match=rf"{name}: .*(cut short|cannot read)"):
            load_scan(path)
    for place in range(start, len(content), 3) if compressed else ():
        flipped = bytearray(content)
        flipped[place] ^= 4
        body.write_bytes(flipped)
        try:  # some bits of gzip's header mean nothing
            np.testing.assert_array_equal(load_scan(path).volume_hu, VOLUME)
        except DataError:
            continue
    if body != path:
        body.unlink()
        with pytest.raises(DataError, match=r"is missing|cannot read"):
            load_scan(path)


@pytest.mark.parametrize("name", ["bomb.nrrd", "bomb.mha"])
def test_a_bomb_stops_at_what_its_header_promises(tmp_path, name):
    path = written(tmp_path / name)
    sitk.WriteImage(sitk.ReadImage(str(path)), str(path), useCompression=True)
    body, start = body_of(path)
    pack = gzip.compress if name.endswith("nrrd") else zlib.compress
    body.write_bytes(body.read_bytes()[:start] + pack(bytes(1 << 26)))
    with pytest.raises(DataError, match="holds more than its header promises"):
        load_scan(path)


def in_text(path, changes, body=None):
    """Write an NRRD or a MetaImage with fields of its header as they are given; None: without."""
    if path.suffix in (".nrrd", ".nhdr"):
        start, join = "NRRD0005\n", ": "
        fields = {"type": "short", "dimension": "3", "sizes": "4 5 6", "endian": "little"}
        fields |= {"encoding": "raw", "space": "left-posterior-superior"}
        fields |= {"space directions": "(1,0,0) (0,1,0) (0,0,3)", "space origin": "(1,2,3)"}
        end = "\n"
    else:
        start, join, end = "", " = ", ""
        fields = {"ObjectType": "Image", "NDims": "3", "BinaryData": "True", "DimSize": "4 5 6"}
        fields |= {"TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3"}
        fields |= {"ElementSpacing": "1 1 3", "ElementType": "MET_SHORT"}
        changes = {**changes, "ElementDataFile": changes.get("ElementDataFile", "LOCAL")}
    lines = [f"{name}{join}{value}\n" for name, value in (fields | changes).items() if value]
    content = VOLUME.astype("<i2").tobytes("F") if body is None else body
    path.write_bytes((start + "".join(lines) + end).encode() + content)
    return path


@pytest.mark.parametrize(
    ("space", "is_told"),
    [
        *(("left-posterior-superior", False), ("right-anterior-superior", False), ("LAS", False)),
        *(("scanner-xyz", True), ("3D-right-handed", True), (None, True)),
    ],
)
@pytest.mark.parametrize("name", ["ct.nrrd", "ct.nhdr"])
def test_spaces_that_do_not_say_where_the_patient_lies(tmp_path, name, space, is_told):
    changes = {"space": space}
    if space is None:
        changes |= {"space directions": None, "space origin": None, "spacings": "1 1 3"}
    with notes_taken() as notes:
        scan = load_scan(in_text(tmp_path / name, changes))
    assert scan.spacing_mm == (3, 1, 1)
    assert any("does not say how the patient lies" in note for note in notes) == is_told
    right = {"LAS": "LAS", "right-anterior-superior": "RAS"}.get(space, "LPS")
    assert nib.aff2axcodes(scan.file.affine) == tuple(right)


def test_a_voxel_size_that_is_missing_is_not_taken_for_a_millimeter(tmp_path):
    bare = {"space": None, "space directions": None, "space origin": None}
    for name, changes in (
        *(("a.nrrd", bare), ("b.nrrd", {"space directions": None})),
        ("c.nrrd", {"space directions": None, "spacings": "1 1 nan"}),
        ("a.mha", {"ElementSpacing": None}),
    ):
        with pytest.raises(DataError, match="does not say how large a voxel is"):
            load_scan(in_text(tmp_path / name, changes))
    old = {"ElementSpacing": None, "ElementSize": "1 1 3"}
    assert load_scan(in_text(tmp_path / "b.mha", old)).spacing_mm == (3, 1, 1)


@pytest.mark.parametrize("name", ["ct.nhdr", "ct.mhd"])
def test_names_in_a_header_lead_to_no_other_folder(tmp_path, name):
    """Any file of the machine would be read as voxels."""
    (tmp_path / "below").mkdir()
    field = "data file" if name == "ct.nhdr" else "ElementDataFile"
    for place in (tmp_path, tmp_path / "below"):
        (place / "a.raw").write_bytes(VOLUME.astype("<i2").tobytes("F"))
    for number in range(6):
        (tmp_path / f"{number}.raw").write_bytes(VOLUME[..., number].astype("<i2").tobytes("F"))
    several = "".join(f"{number}.raw\n" for number in range(6))
    pattern = "%d.raw 0 5 1" + (" 2" if name == "ct.nhdr" else "")
    listed = {"ct.nhdr": "LIST 2", "ct.mhd": "LIST"}[name]
    for value, names in (("a.raw", ""), ("below/a.raw", ""), (pattern, ""), (listed, several)):
        path = in_text(tmp_path / name, {field: value}, b"")
        text = path.read_text().rstrip("\n") if names else path.read_text()
        path.write_text(text + "\n" * bool(names) + names)
        np.testing.assert_array_equal(load_scan(path).file.read(), VOLUME)
    inside = tmp_path / "below" / name
    for value in ("../a.raw", str(tmp_path / "a.raw"), "../%d.raw 0 5 1 2", "/dev/zero"):
        with pytest.raises(DataError, match="for its voxels, which is elsewhere"):
            load_scan(in_text(inside, {field: value}, b""))
    inside.write_text(
        in_text(inside, {field: listed}, b"").read_text().rstrip("\n") + "\n../0.raw\n"
    )
    with pytest.raises(DataError, match=r"names \.\./0\.raw for its voxels"):
        load_scan(inside)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_metaimage_that_would_be_unpacked_wrong(tmp_path, order):
    """Without the right size of what is packed SimpleITK gives what memory happens to hold."""
    packed = zlib.compress(VOLUME.astype(f"{order}i2").tobytes("F"))
    changes = {"CompressedData": "True", "BinaryDataByteOrderMSB": str(order == ">")}
    right = {**changes, "CompressedDataSize": len(packed)}
    (tmp_path / "ct.zraw").write_bytes(packed)
    beside = {**changes, "ElementDataFile": "ct.zraw"}
    for path in (
        in_text(tmp_path / "ct.mha", right, packed),
        in_text(tmp_path / "ct.mhd", beside, b""),
    ):
        np.testing.assert_array_equal(load_scan(path).file.read(), VOLUME)
    for wrong in (None, 9):
        # Of other values than those above, which may still be in memory.
        packed = zlib.compress((VOLUME * 7).astype(f"{order}i2").tobytes("F"))
        path = in_text(tmp_path / "ct.mha", {**changes, "CompressedDataSize": wrong}, packed)
        with pytest.raises(DataError, match=r"would be unpacked wrong|cannot read it"):
            load_scan(path)


@pytest.mark.parametrize("name", [*NAMES, "ct.NRRD", "# a [b] ü -.nrrd"])
def test_a_nifti_by_another_name_and_names_of_any_letters(tmp_path, name):
    nib.save(nib.Nifti1Image(VOLUME, AFFINE), tmp_path / "ct.nii")
    for path in (tmp_path / "ct.nii", written(tmp_path / "ct.nrrd")):
        if path.suffix == ".nii" or name.lower().endswith(".nrrd"):
            path.rename(tmp_path / name)
            np.testing.assert_array_equal(load_scan(tmp_path / name).volume_hu, VOLUME)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no such names")
def test_a_name_that_is_no_text_ends_no_process(tmp_path):
    path = tmp_path / os.fsdecode(b"M\xfcller.nrrd")
    path.write_bytes(b"NRRD0004\n")
    with pytest.raises(DataError, match="has a name that is no UTF-8"):
        load_scan(path)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "ct.nii.gz")
    with pytest.raises(DataError, match="is no file, but a pipe"):
        load_scan(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mhd", ".hdr"])
def test_names_that_no_file_can_have(tmp_path, suffix):
    (tmp_path / f"circle{suffix}").symlink_to(f"circle{suffix}")
    for name in ("circle", "a" * 300, "a\0b"):
        with pytest.raises(DataError, match=r"cannot be read|does not exist"):
            load_scan(tmp_path / f"{name}{suffix}")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: does not exist"):
        load_scan(tmp_path / name)


def test_what_is_no_volume_of_numbers(tmp_path):
    sitk.WriteImage(sitk.Image([4, 5], sitk.sitkInt16), str(tmp_path / "flat.mha"))
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkVectorInt16, 3), str(tmp_path / "color.mha"))
    sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkInt16), str(tmp_path / "time.mha"))
    for name, what in (
        ("flat", "expected three"),
        ("color", "several"),
        ("time", "expected three"),
    ):
        with pytest.raises(DataError, match=f"{name}.mha: .*{what}"):
            load_scan(tmp_path / f"{name}.mha")
    sitk.WriteImage(sitk.Image([4, 5, 6, 1], sitk.sitkInt16), str(tmp_path / "one.mha"))
    assert load_scan(tmp_path / "one.mha").shape == (6, 5, 4)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tgz", ".TAR.BZ2", ".tar.xz", ".nii.xz"])
def test_an_archive_is_to_be_unpacked(tmp_path, suffix):
    (tmp_path / f"ct{suffix}").write_bytes(gzip.compress(b"no matter"))
    with pytest.raises(DataError, match="is an archive; unpack it"):
        load_scan(tmp_path / f"ct{suffix}")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_packed_once_more_is_to_be_unpacked(tmp_path, name):
    """It was said to be no NIfTI, and to be named .nrrd, which it was."""
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(written(tmp_path / name).read_bytes()))
    with pytest.raises(DataError, match=rf"by gunzip, and name the \{(tmp_path / name).suffix}$"):
        load_scan(packed)


@pytest.mark.parametrize("kind", ["MET_SHORT", "MET_FLOAT"])
def test_a_metaimage_in_text(tmp_path, kind):
    text = " ".join(map(str, VOLUME.ravel("F"))).encode() + b"\n"
    changes = {"BinaryData": "False", "ElementType": kind}
    scan = load_scan(in_text(tmp_path / "ct.mha", changes, text))
    np.testing.assert_array_equal(scan.file.read(), VOLUME)
    for cut in (100, 1):
        path = in_text(tmp_path / "cut.mha", changes, text[: len(text) // 2 - cut])
        with pytest.raises(DataError, match="SimpleITK cannot read it"):
            load_scan(path)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_extra_the_command_that_installs_it_is_named(tmp_path, monkeypatch, name):
    path = written(tmp_path / name)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(DataError, match=r'needs SimpleITK.*pip install "tunet-book\[formats\]"'):
        load_scan(path)


def test_the_extra_is_loaded_only_when_it_is_needed():
    code = (
        "import sys, tunet_lib.formats, tunet_lib.cli, tunet_lib.predict; "
        "print({'SimpleITK', 'highdicom'} & set(sys.modules))"  # nibabel itself loads pydicom
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.nii.gz", ".nii.gz"), ("a.b.NRRD", ".nrrd"), ("a.hdr.gz", ".hdr.gz"), ("a.gz", "")],
)
def test_suffixes(tmp_path, name, suffix):
    assert suffix_of(tmp_path / name) == suffix
    if suffix not in (".nii.gz", ".nrrd"):
        with pytest.raises(DataError, match=r"must end in \.nii\.gz or \.nii"):
            check_label_name(tmp_path / name)
