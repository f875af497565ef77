import numpy as np
import pytest
from scans import as_oriented

from tunet_lib.files import DataError
from tunet_lib.scans import load_scan, scan_of
from tunet_lib.volumes import volumes_ml

nib = pytest.importorskip("nibabel")
SHAPE, SPACING_MM = (10, 40, 100), (5.0, 2.0, 4.0)  # 400 mm wide; a voxel is 0.04 ml


def measured(label):
    return volumes_ml(label, scan_of(np.zeros(SHAPE, np.int16), SPACING_MM))


def two_kidneys():
    label = np.zeros(SHAPE, np.uint8)
    label[2:8, 10:20, 60:70] = 1  # columns run from right to left
    label[2:7, 10:20, 20:30] = 1
    label[3:5, 12:14, 22:24] = 2
    return label


def test_each_side_has_its_own():
    found = measured(two_kidneys())
    expected = {"kidney_left": 600, "kidney_right": 492, "tumor_left": 0, "tumor_right": 8}
    assert found == pytest.approx({name: count * 0.04 for name, count in expected.items()})


def test_none_at_all():
    assert set(measured(np.zeros(SHAPE, np.uint8)).values()) == {0.0}


def test_a_patient_off_the_middle():
    label = np.roll(two_kidneys(), 28, axis=2)  # both in the left half of the scan
    found = measured(label)
    assert (found["kidney_left"], found["kidney_right"]) == pytest.approx((24.0, 19.68))


def test_a_part_that_hangs_loose_goes_with_the_nearer_side():
    label = two_kidneys()
    label[8, 30, 40] = 2
    assert measured(label)["tumor_right"] == pytest.approx(9 * 0.04)


@pytest.mark.parametrize("value", [1, 2])  # kidney that is made up, and tumor
def test_what_is_too_small_for_a_kidney_moves_no_middle(value):
    label = np.zeros(SHAPE, np.uint8)
    label[2:8, 10:20, 60:70] = 1  # the left one, alone
    label[2:5, 10:20, 90:99] = value  # of 10 ml, beyond it
    found = measured(label)
    assert found["kidney_right"] == found["tumor_right"] == 0
    assert found["kidney_left"] == pytest.approx(24.0 + (10.8 if value == 1 else 0))


def test_a_single_kidney_is_on_one_side_though_it_crosses_the_middle():
    label = np.zeros(SHAPE, np.uint8)
    label[2:8, 10:20, 45:70] = 1
    found = measured(label)
    assert found["kidney_right"] == 0 < found["kidney_left"]


def test_a_horseshoe_is_cut_in_the_middle():
    label = np.zeros(SHAPE, np.uint8)
    label[4:6, 10:20, 25:75] = 1
    found = measured(label)
    assert found["kidney_left"] == found["kidney_right"] == pytest.approx(500 * 0.04)


def test_a_large_tumor_beside_another_kidney_is_no_horseshoe():
    label = two_kidneys()
    label[2:8, 20:38, 42:84] = 2  # 168 mm wide, of the left kidney, and across the middle
    label[2:8, 19, 60:70] = 1
    found = measured(label)
    assert found["tumor_left"] == pytest.approx(6 * 18 * 42 * 0.04)
    assert found["tumor_right"] == pytest.approx(8 * 0.04)


def test_a_label_map_of_another_shape_is_refused():
    with pytest.raises(DataError, match=r"\(10, 40, 99\) voxels"):
        measured(np.zeros(SHAPE, np.uint8)[..., 1:])


@pytest.mark.parametrize("codes", ["IPL", "RAS", "ASL"])
def test_left_is_the_patients_in_any_orientation(tmp_path, codes):
    affine = np.array([[0, 0, -4.0, 0], [0, -2.0, 0, 0], [-5, 0, 0, 0], [0, 0, 0, 1]])
    # In RAS+ x grows to the right; IPL's columns run to the left.
    nib.save(as_oriented(nib.Nifti1Image(two_kidneys(), affine), codes), tmp_path / "a.nii.gz")
    scan = load_scan(tmp_path / "a.nii.gz")
    assert volumes_ml(scan.volume_hu, scan)["kidney_left"] == pytest.approx(24.0)


def test_two_voxels_in_a_row_with_a_gap_between():
    label = np.zeros(SHAPE, np.uint8)
    label[4, 4, [60, 62]] = 1
    assert measured(label)["kidney_left"] == pytest.approx(2 * 0.04)


def test_a_kidney_in_two_pieces_that_are_both_larger_than_the_other_kidney():
    label = np.zeros(SHAPE, np.uint8)
    label[0:5, 5:25, 70:80] = label[6:10, 5:25, 70:80] = 1  # the left one: 40 and 32 ml
    label[0:9, 10:20, 55:60] = 1  # the right one, 18 ml, on the same side of the scan's middle
    found = measured(label)
    assert (found["kidney_left"], found["kidney_right"]) == pytest.approx((72.0, 18.0))
