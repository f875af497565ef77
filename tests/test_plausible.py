"""A CT is checked before it is believed."""

import numpy as np
import pytest

from tunet_lib.config import Config
from tunet_lib.files import DataError, DataWarning, notes_taken
from tunet_lib.kits19 import save_case
from tunet_lib.nifti import nifti_of, write_nifti
from tunet_lib.placement import Placement
from tunet_lib.plausible import SURE_PROB, check_label, check_tumor
from tunet_lib.scans import ipl_affine, open_scan, scan_of

SHAPE, SPACING_MM = (30, 40, 40), (5.0, 9.0, 9.0)
CONFIG = Config.preset("course")


def trunk():
    """A trunk of muscle and fat in air, with a spine."""
    volume_hu = np.full(SHAPE, -1000.0)
    volume_hu[:, 5:35, 3:37] = -90
    volume_hu[:, 8:32, 6:34] = 45
    volume_hu[:, 25:30, 17:23] = 400
    return volume_hu + np.random.default_rng(0).normal(0, 5, SHAPE)


def gridded(folder, values, spacing_mm=SPACING_MM):
    """Write a CT, bring it to the grid, and give the notes as well."""
    header = nifti_of(values.astype(np.float32), ipl_affine(spacing_mm)).header
    write_nifti(folder / "ct.nii", values.astype(np.float32), header)
    scan = open_scan(folder / "ct.nii")
    with notes_taken() as notes:
        grid_hu = Placement(scan, CONFIG).to_grid(scan)
    return grid_hu, [note.removeprefix(f"{folder / 'ct.nii'}: ") for note in notes]


def test_a_plain_ct_needs_no_word(tmp_path):
    grid_hu, notes = gridded(tmp_path, trunk())
    assert notes == []
    assert grid_hu[24, 40, 40] == pytest.approx(45, abs=5)


def test_hu_plus_1024_is_mended(tmp_path):
    """wasserth/TotalSegmentator#455, #130: values are HU + 1024."""
    plain, _ = gridded(tmp_path, np.maximum(trunk(), -1024))
    mended, notes = gridded(tmp_path, np.maximum(trunk(), -1024) + 1024)
    np.testing.assert_allclose(mended, plain, atol=1e-2)
    assert len(notes) == 1
    assert notes[0].endswith("HU + 1024; 1024 is subtracted")


@pytest.mark.parametrize("padding", [-2000, -1024])
def test_hu_plus_1024_within_a_round_field_of_view_is_mended(tmp_path, padding):
    """What lies between the padding and air, once averaged, is no air of a CT in HU."""
    y, x = np.indices(SHAPE[1:]) - (np.array(SHAPE[1:])[:, None, None] - 1) / 2
    outside = np.hypot(y / SHAPE[1], x / SHAPE[2]) > 0.5
    plain, _ = gridded(tmp_path, np.maximum(np.where(outside, -1024, trunk()), -1024))
    mended, notes = gridded(tmp_path, np.where(outside, padding, trunk() + 1024))
    inside = plain > -200
    assert np.median(np.abs(mended - plain)[inside]) < 1
    assert mended.min() >= -1024
    assert notes[-1].endswith("HU + 1024; 1024 is subtracted")
    _, notes = gridded(tmp_path, np.where(outside, padding, trunk()))
    assert not any("subtracted" in note for note in notes)


@pytest.mark.parametrize("noise", [0, 40])
def test_hu_whose_sign_is_turned_are_refused_and_not_taken_for_hu_plus_1024(tmp_path, noise):
    noisy = trunk() + np.random.default_rng(1).normal(0, noise, SHAPE)
    with pytest.raises(DataError, match="sign turned; multiply them by -1"):
        gridded(tmp_path, -noisy)
    notes = gridded(tmp_path, np.maximum(noisy, -1024) + 1024)[1]
    assert notes[0].endswith("1024 is subtracted")


@pytest.mark.parametrize(
    "scaled",
    [
        lambda hu: (hu - hu.min()) / np.ptp(hu),
        lambda hu: ((hu - hu.min()) / np.ptp(hu) * 255).astype(np.uint8),
        lambda hu: np.clip(hu, 0, 255),
        lambda hu: (hu - hu.mean()) / hu.std(),
        lambda hu: np.clip(hu, -200, 300) / 500,
    ],
    ids=["0 to 1", "0 to 255", "window of KiTS19's slices", "mean 0, SD 1", "-0.4 to 0.6"],
)
def test_scaled_values_are_refused(tmp_path, scaled):
    """wasserth/TotalSegmentator#400: values of 0 to 1, or 0 to 255."""
    with pytest.raises(DataError, match=r"ct\.nii: holds no HU: values from .*export it in HU"):
        gridded(tmp_path, scaled(trunk()))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda hu: hu * 0 + 40, "has one value everywhere, 40"),
        (lambda hu: np.maximum(hu, -150), "and so no air"),
        (lambda hu: np.where(hu > -300, hu + 500, hu), "a body of typically 54"),
        (lambda hu: hu * 10, "a body of typically 4"),
    ],
    ids=["constant", "no air", "tissue at 545", "ten times"],
)
def test_strange_values_are_told(tmp_path, changed, said):
    _, notes = gridded(tmp_path, changed(trunk()))
    assert any(said in note for note in notes), notes


@pytest.mark.parametrize("value", [2e5, 1e10, 1e30])
def test_one_voxel_that_would_drown_all_others(tmp_path, value):
    """As fill values of other programs are; without a window all else would be 0 beside it."""
    hu = trunk()
    hu[2, 2, 2] = 30_000  # metal, on the scale of some scanners
    gridded(tmp_path, hu)
    hu[3, 3, 3] = value
    with pytest.raises(DataError, match=r"has a value of .*, which is no HU"):
        gridded(tmp_path, hu)


def test_padding_counts_as_air(tmp_path):
    """Outside a round field of view scanners write -2000 or -3024."""
    y, x = np.ogrid[-1 : 1 : SHAPE[1] * 1j, -1 : 1 : SHAPE[2] * 1j]
    outside = np.broadcast_to(y**2 + x**2 > 1, SHAPE)
    air, _ = gridded(tmp_path, np.where(outside, -1024, trunk()))
    padded, notes = gridded(tmp_path, np.where(outside, -3024, trunk()))
    np.testing.assert_array_equal(padded, air)
    assert notes == ["has padding below -1024 HU, which is taken for air"]


def test_a_small_piece_of_a_ct_may_have_few_values(tmp_path):
    values = np.random.default_rng(0).uniform(20, 200, (10, 20, 20))
    _, notes = gridded(tmp_path, values, (5.0, 3.0, 3.0))
    assert any("holds no HU" in note for note in notes)


@pytest.mark.parametrize(
    ("spacing_mm", "said"),
    [
        ((1.0, 9.0, 9.0), "has only 30 slices, 30 mm in all"),
        ((5.0, 2.0, 9.0), "measures 150 x 80 x 360 mm"),
        ((5.0, 25.0, 25.0), "which is no abdomen's size"),
    ],
)
def test_extents_beyond_a_body_are_told(tmp_path, spacing_mm, said):
    _, notes = gridded(tmp_path, trunk(), spacing_mm)
    assert any(said in note for note in notes), notes


def test_too_thin_for_one_voxel_of_the_grid(tmp_path):
    case = save_case(tmp_path / "case_00000", trunk()[:3], spacing_mm=(0.5, 9.0, 9.0))
    scan = open_scan(case.image_path)
    with pytest.raises(DataError, match="fill not even one voxel of the grid"):
        _ = Placement(scan, CONFIG).covered


@pytest.mark.filterwarnings("error")
def test_an_array_is_taken_as_it_is():
    scan = scan_of(np.ones((3, 4, 5)), (9.0, 9.0, 9.0))
    assert Placement(scan, CONFIG).to_grid(scan).max() == pytest.approx(1)


# What was found


def test_a_label_map_in_the_midst_needs_no_word(tmp_path):
    label = np.zeros(SHAPE, np.uint8)
    label[10:20, 10:20, 10:20] = 1
    with notes_taken() as notes:
        check_label(label, tmp_path)
    assert notes == []


@pytest.mark.parametrize(
    ("place", "border"),
    [
        (np.s_[0], "first slice (head)"),
        (np.s_[-1], "last slice (feet)"),
        (np.s_[:, 0], "front"),
        (np.s_[:, -1], "back"),
        (np.s_[:, :, 0], "right side"),
        (np.s_[:, :, -1], "left side"),
    ],
)
def test_a_field_of_view_that_cuts_a_kidney(tmp_path, place, border):
    label = np.zeros(SHAPE, np.uint8)
    label[place][10:20, 10:20] = 1
    with notes_taken() as notes:
        check_label(label, tmp_path)
    assert len(notes) == 1
    assert f"({border})" in notes[0]


def test_nothing_found(tmp_path):
    with pytest.warns(DataWarning, match="no kidney was found"):
        check_label(np.zeros(SHAPE, np.uint8), tmp_path)


def told_of_tumor(folder, *probs, by_rule=False):
    """Give what is said of a tumor of voxels with some probabilities."""
    label, tumor_prob = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE)
    label[10:20, 10:20, 10:20] = 1
    label[12, 12, 10 : 10 + len(probs)], tumor_prob[12, 12, 10 : 10 + len(probs)] = 2, probs
    with notes_taken() as notes:
        check_tumor(label, tumor_prob, folder, by_rule=by_rule)
    return notes


def test_a_tumor_of_low_probability_is_not_sure(tmp_path):
    (note,) = told_of_tumor(tmp_path, 0.2, 0.4)
    assert "not sure of the tumor" in note
    assert " 0.30" in note, "the mean of its voxels"
    assert told_of_tumor(tmp_path, SURE_PROB - 0.2, SURE_PROB + 0.2) == []
    assert told_of_tumor(tmp_path) == [], "no tumor, no doubt"


def test_of_a_tumor_by_line_14_nothing_else_is_said(tmp_path):
    (note,) = told_of_tumor(tmp_path, 0.01, by_rule=True)
    assert "Algorithm 1, line 14" in note
