"""Situations that users of other programs reported in public, each rebuilt as a small input.

The report is named beside each; what is tested elsewhere in full is only touched here.
"""

import gzip

import nibabel as nib
import numpy as np
import pytest
from scans import AFFINE, LABEL, VOLUME, box_scan, scan_config

from tunet_lib.check import check_folder
from tunet_lib.config import Config
from tunet_lib.files import DataError, atomic_path, check_writable, notes_taken, save_json
from tunet_lib.kits19 import save_case
from tunet_lib.metrics import dice
from tunet_lib.phantom import write_phantoms
from tunet_lib.placement import Placement
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import load_label, load_scan, open_scan, save_label
from tunet_lib.volumes import volumes_ml


def write(path, array=VOLUME, affine=AFFINE, **fields):
    """Write a NIfTI with fields of its header as they are given, right or wrong."""
    raw = bytearray(nib.Nifti1Image(array, affine).to_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))
    return path


HALF_TURN = {"quatern_b": 0.0, "quatern_c": 1.0, "quatern_d": 0.0}


def noted(path):
    with notes_taken() as notes:
        scan = load_scan(path)
    return scan, " ".join(notes)


# Wrong in silence


def test_a_stack_thinner_than_a_voxel_of_the_grid(tmp_path):
    """MIC-DKFZ/nnUNet#206, #302: a few thin slices, and the mean was NaN."""
    case = save_case(tmp_path / "case_00000", VOLUME[:1], spacing_mm=(0.5, 0.8, 0.7))
    with pytest.raises(DataError, match="fill not even one voxel of the grid"):
        prepare_scan(open_scan(case.image_path), Config.preset("course"))


def test_a_voxel_size_that_sform_and_pixdim_tell_differently(tmp_path):
    """rordenlab/dcm2niix#1018, MRtrix3/mrtrix3#1540."""
    path = write(tmp_path / "ct.nii", pixdim=[1, 3, 0.6, 0.7, 1, 1, 1, 1])
    scan, notes = noted(path)
    assert scan.spacing_mm == (3.0, 0.8, 0.7)
    assert (
        "its sform says that a voxel measures 3 x 0.8 x 0.7 mm, its pixdim 3 x 0.6 x 0.7" in notes
    )
    pixdim = [1, 3, 0.8 * 1.005, 0.7, 1, 1, 1, 1]
    assert noted(write(tmp_path / "near.nii", pixdim=pixdim))[1] == ""


def test_a_label_map_that_is_rotated_by_a_degree(tmp_path):
    """wasserth/TotalSegmentator#33: corners were 7 mm apart."""
    c, s = np.cos(np.deg2rad(0.8)), np.sin(np.deg2rad(0.8))
    shape, straight = (50, 500, 500), np.diag([-3.0, 1, 1, 1])
    turn = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    scan = open_scan(write(tmp_path / "ct.nii.gz", np.zeros(shape, np.uint8), straight))
    path = write(tmp_path / "label.nii.gz", np.zeros(shape, np.uint8), turn @ straight)
    with pytest.raises(DataError, match=r"lies up to 9\.\d+ mm off its CT"):
        load_label(path, scan)


@pytest.mark.parametrize("offset", [0, 100, 352])
def test_voxels_that_begin_at_0_of_a_single_file_begin_behind_the_header(tmp_path, offset):
    """nifti.nimh.nih.gov, vox_offset: what is below 352 stands for 352."""
    scan = load_scan(write(tmp_path / "ct.nii", vox_offset=offset))
    np.testing.assert_array_equal(scan.volume_hu, VOLUME)


def test_names_and_notes_of_a_header_do_not_reach_the_label_map(tmp_path):
    """dgobbi/vtk-dicom#189, rordenlab/dcm2niix#557."""
    names = ("descrip", "db_name", "aux_file", "intent_name", "data_type")
    path = write(tmp_path / "ct.nii", **dict.fromkeys(names, b"Jane Doe"))
    assert b"Jane" in path.read_bytes()
    save_label(LABEL, load_scan(path), tmp_path / "label.nii")
    assert b"Jane" not in (tmp_path / "label.nii").read_bytes()


@pytest.mark.parametrize(("unit", "factor"), [(1, 1e-3), (3, 1e3), (2, 1), (0, 1)])
def test_meters_and_micrometers(tmp_path, unit, factor):
    """NIfTI's xyzt_units: 1 is meters, 2 mm, 3 micrometers."""
    affine = np.diag([factor, factor, factor, 1]) @ AFFINE
    scan, notes = noted(write(tmp_path / "ct.nii", affine=affine, xyzt_units=unit))
    assert scan.spacing_mm == pytest.approx((3.0, 0.8, 0.7), abs=1e-5)
    assert ("are taken to measure 3 x 0.8 x 0.7 mm" in notes) == (factor != 1)
    save_label(LABEL, scan, tmp_path / "label.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "label.nii").affine, affine, rtol=1e-5)
    np.testing.assert_array_equal(load_label(tmp_path / "label.nii", scan), LABEL)


@pytest.mark.parametrize("unit", [1, 3])
def test_a_unit_that_makes_no_ct_of_it_is_not_believed(tmp_path, unit):
    scan, notes = noted(write(tmp_path / "ct.nii", xyzt_units=unit))
    assert scan.spacing_mm == (3.0, 0.8, 0.7)
    assert "are taken to measure 3 x 0.8 x 0.7 mm" in notes


def test_voxels_of_no_size_that_a_unit_explains(tmp_path):
    affine = np.diag([300.0, 300, 0.8, 1])
    with pytest.raises(DataError, match="no unit makes them those of a CT"):
        open_scan(write(tmp_path / "ct.nii", affine=affine))


def test_values_that_are_no_hu_are_told(tmp_path):
    """wasserth/TotalSegmentator#455, #130, #400: 0 to 1; in full in test_plausible."""
    rng = np.random.default_rng(0)
    case = save_case(tmp_path / "a", rng.integers(0, 2, (16, 32, 32)), spacing_mm=(4, 4, 4))
    scan = open_scan(case.image_path)
    with notes_taken() as notes:
        Placement(scan, scan_config()).to_grid(scan)
    assert "holds no HU: values from 0 to 1" in " ".join(notes)


@pytest.mark.parametrize("degrees", [10, 30, 44])
def test_a_gantry_that_was_tilted(tmp_path, degrees):
    """rordenlab/dcm2niix#697, icometrix/dicom2nifti#23: the volume is the determinant's."""
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[1, 2] = 3 * np.tan(np.deg2rad(degrees))
    label = np.ones((20, 20, 20), np.uint8)
    scan = open_scan(write(tmp_path / "ct.nii", label.astype(np.int16), affine))
    found = label_in(scan, label, tmp_path)
    assert sum(volumes_ml(found, scan).values()) == pytest.approx(20**3 * 12 / 1000, rel=0.12)


@pytest.mark.parametrize("degrees", [10, 30, 44])
def test_an_oblique_scan(tmp_path, degrees):
    """wasserth/TotalSegmentator#34: turned, and its label map comes back to its own voxels."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.array([[2, 0, 0, 0], [0, 2 * c, -2 * s, 0], [0, 2 * s, 2 * c, 0], [0, 0, 0, 1.0]])
    label = np.zeros((20, 20, 20), np.uint8)
    label[5:15, 5:15, 5:15] = 1
    path = write(tmp_path / "ct.nii", label.astype(np.int16) * 100, affine)
    scan, notes = noted(path)
    assert f"lie askew by {degrees} degrees" in notes
    save_label(label_in(scan, label, tmp_path), scan, tmp_path / "back.nii")
    back = np.asarray(nib.load(tmp_path / "back.nii").dataobj)
    assert dice(back == 1, label == 1) > 0.97


def label_in(scan, label, folder):
    """Read a label map as one that lies on a scan."""
    image = nib.load(scan.file.source.path)
    nib.save(nib.Nifti1Image(label, image.affine), folder / "given.nii")
    return load_label(folder / "given.nii", scan)


# Traceback, lost result, misleading word


@pytest.mark.parametrize("entries", [{"cases": []}, ["case_00000"], [{"id": 1}], [{}], None, 3])
def test_a_kits_json_of_another_schema(tmp_path, entries):
    """neheller/kits23#10: kits23.json lists cases by other names."""
    save_json(tmp_path / "kits.json", entries)
    with pytest.raises(DataError, match=r"kits\.json: is no list of phantoms"):
        write_phantoms(tmp_path, 1)
    save_case(tmp_path / "case_00000", *box_scan(0), spacing_mm=(4, 4, 4))
    assert check_folder(tmp_path)[0] == 1


def test_chmod_that_the_file_system_does_not_permit_loses_no_result(tmp_path, monkeypatch):
    """vifm/vifm#635, libuv/libuv#2596."""

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    for name in ("chmod", "fchmod", "lchmod", "chown"):
        monkeypatch.setattr(f"os.{name}", refuse, raising=False)
    with atomic_path(tmp_path / "label.nii.gz") as temporary:
        temporary.write_bytes(b"an hour's work")
    assert (tmp_path / "label.nii.gz").read_bytes() == b"an hour's work"
    save_label(LABEL, load_scan(write(tmp_path / "ct.nii")), tmp_path / "label.nii")
    np.testing.assert_array_equal(load_label(tmp_path / "label.nii"), LABEL)


def test_an_output_that_is_a_folder_or_cannot_be_written(tmp_path):
    """JunMa11/brats17#7 and its kind: said before anything is computed."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "label.nii.gz"):
        with pytest.raises(DataError):
            check_writable(path)


def test_a_folder_is_no_file_to_be_deleted(tmp_path):
    """wasserth/TotalSegmentator#27, #282, #327: a folder of DICOM was given."""
    with pytest.raises(DataError) as raised:
        load_scan(tmp_path)
    assert "delete" not in str(raised.value)


@pytest.mark.parametrize("factor", [0.9999999, 0.996, 1.004])
def test_labels_that_a_slope_left_beside_whole_numbers(tmp_path, factor):
    """spinalcordtoolbox/spinalcordtoolbox#3232, #4346."""
    path = write(tmp_path / "label.nii", LABEL * np.float32(factor))
    np.testing.assert_array_equal(load_label(path), LABEL)


def test_a_trailing_axis_of_one(tmp_path):
    """Project-MONAI/MONAI#1677, TorchIO-project/torchio#684."""
    scan = load_scan(write(tmp_path / "ct.nii", VOLUME[..., None]))
    np.testing.assert_array_equal(scan.volume_hu, VOLUME)
    save_label(LABEL, scan, tmp_path / "label.nii")
    assert nib.load(tmp_path / "label.nii").shape == LABEL.shape


@pytest.mark.parametrize("pixdim", [(3, 0, 0.7), (3, 0.8, -1), (np.nan, 0.8, 0.7)])
def test_a_good_sform_beside_a_bad_voxel_size(tmp_path, pixdim):
    """nipreps/fmriprep#845, spinalcordtoolbox#3703."""
    path = write(tmp_path / "ct.nii", pixdim=[1, *pixdim, 1, 1, 1, 1])
    scan, notes = noted(path)
    assert scan.spacing_mm == (3.0, 0.8, 0.7)
    assert "has no usable voxel size in pixdim" in notes
    save_label(LABEL, scan, tmp_path / "label.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "label.nii").header.get_zooms(), (3, 0.8, 0.7))


def test_a_quaternion_that_is_off_by_rounding(tmp_path):
    """nipreps/fmriprep#845: a half turn whose length is 1.00001."""
    quaternion = {**HALF_TURN, "quatern_c": 1.00001}
    path = write(tmp_path / "ct.nii", qform_code=1, sform_code=0, **quaternion)
    np.testing.assert_allclose(
        load_scan(path).file.affine[:3, :3], np.diag([-3, 0.8, -0.7]), atol=0.02
    )


def test_a_qform_for_an_sform_that_is_none(tmp_path):
    path = write(tmp_path / "ct.nii", qform_code=1, srow_x=[0, 0, 0, 0], **HALF_TURN)
    scan, notes = noted(path)
    assert scan.spacing_mm == (0.7, 0.8, 3.0)
    assert "its sform is not usable, so qform is taken" in notes


@pytest.mark.parametrize("extra", [b"\0" * 50, b"\n", b"junk", b"something that a tool has added"])
def test_bytes_behind_a_whole_gzip_file(tmp_path, extra):
    """python/cpython#68489."""
    path = write(tmp_path / "ct.nii.gz")
    path.write_bytes(path.read_bytes() + extra)
    np.testing.assert_array_equal(load_scan(path).volume_hu, VOLUME)


def test_a_bomb_stops_at_what_its_header_promises(tmp_path):
    raw = gzip.decompress(write(tmp_path / "ct.nii.gz").read_bytes())
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(raw + bytes(1 << 26)))
    with pytest.raises(DataError, match="holds more than its header promises"):
        load_scan(tmp_path / "ct.nii.gz")


def test_a_slice_of_a_gigabyte_that_is_packed_into_a_megabyte(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((32767, 16384, 1))
    header.set_sform(np.diag([0.1, 0.1, 1, 1]), 1)
    with gzip.open(tmp_path / "ct.nii.gz", "wb", 1) as stream:
        stream.write(header.binaryblock.ljust(352, b"\0"))
        for _ in range(1024):
            stream.write(bytes(1 << 20))
    assert (tmp_path / "ct.nii.gz").stat().st_size > 1 << 20  # so much that it may hold it
    with pytest.raises(DataError, match="has slices of 32767 x 16384 voxels"):
        open_scan(tmp_path / "ct.nii.gz")


def test_a_header_that_promises_more_than_its_file_can_hold_takes_no_memory(tmp_path):
    path = write(tmp_path / "ct.nii.gz", dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    with pytest.raises(DataError, match="its header promises"):
        open_scan(path)


def test_padding_outside_a_round_field_of_view(tmp_path):
    """wasserth/TotalSegmentator#78, JoHof/lungmask#108: padding of -3024 counts as air."""
    rng = np.random.default_rng(0)
    volume_hu = rng.integers(-1000, 200, (16, 32, 32)).astype(np.int16)
    padded = volume_hu.copy()
    volume_hu[:, :4], padded[:, :4] = -1024, -3024
    cases = [
        save_case(tmp_path / f"case_0000{number}", values, spacing_mm=(4.0, 4.0, 4.0))
        for number, values in enumerate((volume_hu, padded))
    ]
    grids = []
    for case in cases:
        scan = open_scan(case.image_path)
        with notes_taken() as notes:
            grids.append(Placement(scan, scan_config()).to_grid(scan))
    np.testing.assert_array_equal(*grids)
    assert any("padding below -1024" in note for note in notes)
