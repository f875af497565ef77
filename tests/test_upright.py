"""Scans that lie askew, there and back."""

import nibabel as nib
import numpy as np
import pytest

from tunet_lib.files import DataError
from tunet_lib.metrics import dice
from tunet_lib.scans import load_label, load_scan, open_scan, save_label
from tunet_lib.upright import UprightFile, tilt_deg, upright
from tunet_lib.volumes import volumes_ml

SHAPE, SPACING_MM = (60, 50, 40), (2.0, 2.0, 3.0)


def turned(degrees):
    """Give an affine that is turned about the patient's left-right axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, c, -s], [0, s, c]]
    affine[:3, 3] = (-50, -40, 700)
    return affine @ np.diag([*SPACING_MM, 1])


def tilted(degrees):
    """Give the affine of a gantry that was tilted: slices shifted against each other."""
    affine = np.diag([*SPACING_MM, 1.0])
    affine[1, 2] = np.tan(np.deg2rad(degrees)) * SPACING_MM[2]
    return affine


def ball(affine, radius_mm=22):
    """Give the voxels whose center lies in a ball in the middle, and a smooth CT of it."""
    center = nib.affines.apply_affine(affine, (np.array(SHAPE) - 1) / 2)
    places = nib.affines.apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1))
    away_mm = np.linalg.norm(places - center, axis=-1)
    hu = np.clip((radius_mm - away_mm) * 20, -100, 100)
    return (away_mm <= radius_mm).astype(np.uint8), hu.astype(np.float32)


AFFINES = {
    "10": turned(10),
    "30": turned(30),
    "44": turned(44),
    "gantry 20": tilted(20),
    "gantry 30": tilted(30),
}


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.filterwarnings("ignore:.*askew")
def test_a_ball_stays_a_ball_and_its_label_map_comes_back(tmp_path, name):
    """rordenlab/dcm2niix#697, icometrix/dicom2nifti#23 (gantry), wasserth/TotalSegmentator#34."""
    affine = AFFINES[name]
    label, hu = ball(affine)
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "ct.nii.gz")
    scan = load_scan(tmp_path / "ct.nii.gz")
    assert tilt_deg(scan.affine) < 0.01
    found = (scan.volume_hu >= 0).astype(np.uint8)
    true_ml = 4 / 3 * np.pi * 2.2**3
    assert volumes_ml(found, scan)["kidney_right"] + volumes_ml(found, scan)[
        "kidney_left"
    ] == pytest.approx(true_ml, rel=0.02)
    save_label(found, scan, tmp_path / "label.nii.gz")
    back = nib.load(tmp_path / "label.nii.gz")
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    assert dice(np.asanyarray(back.dataobj) > 0, label > 0) > 0.97
    # And a label map that was drawn on the slices is brought upright beside its CT.
    nib.save(nib.Nifti1Image(label, affine), tmp_path / "drawn.nii.gz")
    drawn = load_label(tmp_path / "drawn.nii.gz", scan)
    assert drawn.shape == scan.shape
    assert dice(drawn > 0, found > 0) > 0.95


@pytest.mark.filterwarnings("ignore:.*askew")
def test_constant_in_constant_out_and_air_around_it(tmp_path):
    nib.save(nib.Nifti1Image(np.full(SHAPE, 70, np.int16), turned(30)), tmp_path / "ct.nii.gz")
    scan = load_scan(tmp_path / "ct.nii.gz")
    assert set(np.unique(scan.volume_hu)) == {-1000, 70}
    inside_mm3 = (scan.volume_hu == 70).sum() * np.prod(scan.spacing_mm)
    assert inside_mm3 == pytest.approx(np.prod(SHAPE) * np.prod(SPACING_MM), rel=0.02)


def test_a_linear_ramp_is_exact(tmp_path):
    """Linear interpolation knows the answer: a position in mm."""
    affine = turned(20)
    places = nib.affines.apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1))
    nib.save(nib.Nifti1Image(places[..., 2].astype(np.float32), affine), tmp_path / "ramp.nii.gz")
    with pytest.warns(UserWarning, match=r"ramp\.nii\.gz: its voxels lie askew by 20 degrees"):
        scan = load_scan(tmp_path / "ramp.nii.gz")
    middle = tuple(size // 2 for size in scan.shape)
    height_mm = nib.affines.apply_affine(scan.affine, middle)[2]
    assert scan.volume_hu[middle] == pytest.approx(height_mm, abs=1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("affine", [turned(1.9), tilted(1.9), np.diag([-1, -1, 2, 1.0])])
def test_what_lies_nearly_straight_is_left_as_it_is(tmp_path, affine):
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine), tmp_path / "ct.nii.gz")
    scan = open_scan(tmp_path / "ct.nii.gz")
    assert not isinstance(scan.file, UprightFile)
    assert upright(scan.file) is scan.file


@pytest.mark.filterwarnings("ignore:.*askew")
def test_in_memory_and_on_disk_it_has_the_same_blocks(tmp_path):
    nib.save(nib.Nifti1Image(ball(turned(30))[1], turned(30)), tmp_path / "ct.nii.gz")
    on_disk = list(open_scan(tmp_path / "ct.nii.gz").blocks())
    in_memory = list(load_scan(tmp_path / "ct.nii.gz").blocks())
    assert [block[:2] for block in on_disk] == [block[:2] for block in in_memory]
    for one, other in zip(on_disk, in_memory, strict=True):
        np.testing.assert_array_equal(one[2], other[2])


@pytest.mark.filterwarnings("ignore:.*askew")
def test_a_label_map_that_is_turned_against_its_ct_is_refused(tmp_path):
    label, hu = ball(turned(30))
    nib.save(nib.Nifti1Image(hu, turned(30)), tmp_path / "ct.nii.gz")
    nib.save(nib.Nifti1Image(label, turned(31)), tmp_path / "label.nii.gz")
    with pytest.raises(DataError, match=r"label\.nii\.gz: lies up to .* mm off its CT"):
        load_label(tmp_path / "label.nii.gz", open_scan(tmp_path / "ct.nii.gz"))


def test_what_lies_askew_and_kilometers_away_is_refused(tmp_path):
    affine = turned(10)
    affine[0, 3] = 1e30
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine), tmp_path / "ct.nii")
    with pytest.raises(DataError, match=r"askew, and 1e\+30 mm from where its scanner was"):
        open_scan(tmp_path / "ct.nii")


def test_slices_that_are_shifted_by_many_times_their_size_are_refused(tmp_path):
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[0, 2] = 45  # the box around a few thousand voxels would take millions
    nib.save(nib.Nifti1Image(np.zeros((16, 32, 32), np.int16), affine), tmp_path / "ct.nii")
    with pytest.raises(DataError, match="so far from right angles that the box"):
        open_scan(tmp_path / "ct.nii")
