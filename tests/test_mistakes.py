import numpy as np
import pytest

from tunet_lib.files import DataError
from tunet_lib.mistakes import tumor_figures, tumor_free_kidneys

MM = (10.0, 10.0, 5.0)  # half a milliliter; the kidneys below lie 60 mm apart


def two_kidneys():
    label = np.zeros((4, 8, 20), np.uint8)
    label[1:3, 2:6, 2:6] = 1
    label[1:3, 2:6, 14:18] = 1
    label[1, 2:4, 14:16] = 2
    return label


def test_a_kidney_without_tumor_is_found_by_its_side():
    label = two_kidneys()
    left = (label > 0) & (np.arange(20) < 10)
    np.testing.assert_array_equal(tumor_free_kidneys(label, MM), left)
    label[3, 7, 0] = 1  # a crumb, on the left
    np.testing.assert_array_equal(tumor_free_kidneys(label, MM), (label > 0) & (np.arange(20) < 10))
    label[1, 2, 2] = 2
    assert not tumor_free_kidneys(label, MM).any()


def test_one_kidney_or_none():
    label = two_kidneys()
    label[..., 10:] = 0
    np.testing.assert_array_equal(tumor_free_kidneys(label, MM), label > 0)
    label[1, 2, 2] = 2
    assert not tumor_free_kidneys(label, MM).any()
    label[1, 2, 8] = 1  # a crumb of it, near by
    assert not tumor_free_kidneys(label, MM).any()
    assert not tumor_free_kidneys(np.zeros_like(label), MM).any()


def test_a_kidney_in_two_pieces_is_one():
    label = np.zeros((4, 8, 20), np.uint8)
    label[1:3, 3:5, 2:5] = 1
    label[1:3, 0:3, 14:18] = label[1:3, 5:8, 14:18] = 1  # the other: both pieces are larger
    label[1, 1, 15] = 2
    left = (label > 0) & (np.arange(20) < 10)
    np.testing.assert_array_equal(tumor_free_kidneys(label, (20.0, 20.0, 5.0)), left)


def test_how_a_tumor_is_wrong():
    truth, predicted = two_kidneys(), two_kidneys()
    perfect = tumor_figures(truth, truth, MM)
    assert perfect == {
        "tumor_ml": 2.0,
        "tumor_sensitivity": 1.0,
        "tumor_precision": 1.0,
        "false_tumor_ml": 0.0,
    }
    predicted[1, 2, 14] = 1  # a quarter is missed
    predicted[2, 2:4, 2:5] = 2  # six voxels in the other kidney
    predicted[0, 0, 0] = 2  # and one outside
    wrong = tumor_figures(predicted, truth, MM)
    assert wrong["tumor_sensitivity"] == 3 / 4
    assert wrong["tumor_precision"] == 3 / 10
    assert wrong["false_tumor_ml"] == 3.0


def test_shares_of_nothing():
    truth, healthy = two_kidneys(), np.minimum(two_kidneys(), 1)
    missed = tumor_figures(healthy, truth, MM)
    assert (missed["tumor_sensitivity"], missed["tumor_precision"]) == (0.0, 0.0)
    both = tumor_figures(healthy, healthy, MM)
    assert (both["tumor_sensitivity"], both["tumor_precision"]) == (None, None)
    assert both["false_tumor_ml"] == 0.0
    empty = np.zeros_like(truth)
    assert tumor_figures(empty, empty, MM)["false_tumor_ml"] is None
    with pytest.raises(DataError):
        tumor_figures(truth[1:], truth, MM)


def test_a_tumor_across_the_middle_leaves_the_other_kidney_healthy():
    label = np.zeros((10, 20, 100), np.uint8)
    label[2:8, 5:15, 10:20] = label[2:8, 5:15, 70:80] = 1
    label[2:8, 5:15, 30:70] = 2  # of the second kidney, and to beyond the middle of both
    predicted = label.copy()
    predicted[4, 10, 12] = 2
    found = tumor_figures(predicted, label, (4.0, 4.0, 2.0))
    assert found["false_tumor_ml"] == pytest.approx(0.032)


def test_a_speck_far_away_is_no_kidney():
    label = two_kidneys()
    label[..., :10] = 0  # a single kidney, with the tumor
    assert tumor_figures(label, label, MM)["false_tumor_ml"] is None
    label[1, 3, 1] = 1
    assert tumor_figures(label, label, MM)["false_tumor_ml"] is None
