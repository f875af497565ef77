import inspect
import json
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tunet_lib.config import Config
from tunet_lib.files import DataError
from tunet_lib.postprocess import apply_lnet, grow, merge, postprocess, threshold_labels

CONFIG = Config()
SHAPE = (5, 20, 20)


def prob(*blobs):
    """Make a map of `(probability, z, y, x)` blobs on zeros."""
    array = np.zeros(SHAPE, np.float32)
    for value, *where in blobs:
        array[tuple(where)] = value
    return array


Z, Y = slice(1, 4), slice(2, 8)
NONE = prob()
KIDNEY = prob((0.9, Z, Y, slice(2, 8)))


def whole(whole_prob, **changes):
    """Give the whole region of a map in which there is no tumor."""
    config = Config(tumor_is_whole_if_none=False, **changes)
    return postprocess(whole_prob, NONE, config) > 0


def tumor(tumor_prob, whole_prob=KIDNEY, **changes):
    return postprocess(whole_prob, tumor_prob, Config(**changes)) == 2


# Lines 3-9: the whole region


def test_whole_grows_into_what_touches_it_and_no_further():
    sure = prob((0.5, Z, Y, slice(2, 5)))
    fringe = prob((0.4, Z, Y, slice(5, 8)))
    weaker = prob((0.39, Z, Y, slice(8, 9)))
    apart = prob((0.49, Z, Y, slice(14, 18)))
    np.testing.assert_array_equal(
        whole(sure + fringe + weaker + apart), (sure + fringe).astype(bool)
    )


def test_whole_takes_the_low_map_unrefined_if_nothing_is_sure():
    low = prob((0.1, Z, Y, slice(2, 5)), (0.49, Z, Y, slice(14, 18)))
    lower = prob((0.09, Z, Y, slice(8, 9)))
    np.testing.assert_array_equal(whole(low + lower), low > 0)


def test_nothing_anywhere_gives_an_empty_map():
    for option in (True, False):
        label = postprocess(NONE, NONE, Config(tumor_is_whole_if_none=option))
        assert label.dtype == np.uint8
        assert not label.any()


# Lines 10-17: no voxel is surely tumor


def test_a_faint_tumor_is_taken_as_it_is():
    faint = prob((0.1, 2, 3, slice(3, 5)), (0.3, 2, 6, 6))
    np.testing.assert_array_equal(tumor(faint + prob((0.09, 2, 5, 5))), faint > 0)


def test_a_faint_tumor_is_erased_by_line_17_read_literally():
    faint = prob((0.3, 2, 3, slice(3, 5)))
    label = postprocess(KIDNEY, faint, Config(keep_low_if_high_empty=False))
    np.testing.assert_array_equal(label, KIDNEY > 0)


def test_without_any_tumor_the_whole_region_is_tumor():
    np.testing.assert_array_equal(tumor(prob((0.09, 2, 3, 3))), KIDNEY > 0)


def test_without_any_tumor_there_is_none_if_so_configured():
    label = postprocess(KIDNEY, NONE, Config(tumor_is_whole_if_none=False))
    np.testing.assert_array_equal(label, KIDNEY > 0)


def test_a_faint_tumor_is_not_replaced_by_the_whole_region():
    faint = prob((0.1, 2, 3, 3))
    assert tumor(faint).sum() == tumor(faint, tumor_is_whole_if_none=False).sum() == 1


def test_line_17_read_literally_erases_what_line_14_set():
    assert not tumor(NONE, keep_low_if_high_empty=False).any()


# Lines 18-25: some voxel is surely tumor


def sure_tumor(voxels):
    """Fill rows of 20 with sure voxels, from row 0; fringes at rows 8 to 12, one apart at 15."""
    core = np.zeros(SHAPE, np.float32)
    core[2, :8].flat[:voxels] = 0.5
    fringes = prob((0.3, 2, slice(8, 10)), (0.2, 2, slice(10, 12)), (0.19, 2, 12))
    bridge = prob((0.5, 2, slice(0, 8), 0))  # a column that joins core and fringes
    apart = prob((0.4, 2, 15))
    return np.maximum(np.maximum(core, bridge), fringes + apart)


@pytest.mark.parametrize(("sure", "rows"), [(99, 12), (100, 10), (101, 10)])
def test_a_small_tumor_grows_further(sure, rows):
    tumor_prob = sure_tumor(
        sure - 3
    )  # they end in row 4: the bridge adds one in each of rows 5 to 7
    assert np.count_nonzero(tumor_prob >= 0.5) == sure
    found = tumor(tumor_prob)
    expected = tumor_prob > 0
    expected[2, rows:] = False
    np.testing.assert_array_equal(found, expected)


def test_what_is_small_is_counted_in_voxels_of_the_papers_grid():
    paper_mm3 = math.prod(CONFIG.grid_spacing_mm)
    tumor_prob = sure_tumor(25)
    assert np.count_nonzero(tumor_prob >= 0.5) == 31
    seen = {}
    for name, scale in (("smaller", 3.2), ("larger", 3.3)):  # 100 / 3.2 = 31.25, / 3.3 = 30.3
        label = postprocess(KIDNEY, tumor_prob, CONFIG, voxel_volume_mm3=scale * paper_mm3)
        seen[name] = label[2, 10, 0] == 2
    assert seen == {"smaller": True, "larger": False}


def test_the_voxels_are_those_of_the_configured_grid_unless_given():
    course = Config.preset(
        "course",
        grid_fov_mm=(336, 432, 432),
        grid_shape=(56, 96, 96),
        lnet_shape=(28, 48, 48),
        patch_shape=(56, 48, 48),
        patch_stride=(56, 12, 12),
        levels=3,
    )
    volume_mm3 = math.prod(course.grid_spacing_mm)  # small is below 21.04 voxels
    assert 100 * math.prod(CONFIG.grid_spacing_mm) / volume_mm3 == pytest.approx(21.04, abs=0.01)
    for count, small in ((21, True), (22, False)):
        tumor_prob = prob((0.5, 2, 0, slice(count - 4)), (0.5, 2, slice(1, 5), 0))
        tumor_prob += prob((0.2, 2, 5, 0))
        assert np.count_nonzero(tumor_prob >= 0.5) == count
        default = postprocess(KIDNEY, tumor_prob, course)
        assert (default[2, 5, 0] == 2) == small
        given = postprocess(KIDNEY, tumor_prob, course, voxel_volume_mm3=volume_mm3)
        np.testing.assert_array_equal(given, default)


# Lines 27 and 28: merge, and L-Net


def test_a_tumor_outside_the_whole_region_is_kept_and_counts_as_whole():
    outside = prob((0.9, 2, 15, slice(12, 18)))
    label = postprocess(KIDNEY, outside, CONFIG)
    np.testing.assert_array_equal(label > 0, (KIDNEY + outside) > 0)
    np.testing.assert_array_equal(label == 2, outside > 0)


def test_merge_by_hand():
    label = merge(np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool))
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, [1, 2, 2, 0])


def test_lnet_removes_what_lies_outside_its_mask():
    far = prob((0.9, Z, slice(15, 18), slice(15, 18)))
    near = prob((0.9, 2, 4, slice(4, 6)))
    label = postprocess(KIDNEY + far, near, CONFIG, lnet_mask=KIDNEY > 0)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, merge(KIDNEY > 0, near > 0))


def test_lnet_comes_last():
    # The mask cuts through the low map, yet what lies beyond was reached before the cut.
    tumor_prob = prob((0.9, 2, 3, 3), (0.3, 2, 3, slice(4, 9)))
    lnet_mask = np.ones(SHAPE, bool)
    lnet_mask[:, :, 5] = False
    label = postprocess(KIDNEY, tumor_prob, CONFIG, lnet_mask=lnet_mask)
    np.testing.assert_array_equal(label[2, 3, 2:10], [1, 2, 2, 0, 2, 2, 2, 0])


def test_an_empty_lnet_mask_is_not_applied_and_says_so():
    with pytest.warns(UserWarning, match="L-Net found no kidney"):
        label = postprocess(KIDNEY, NONE, CONFIG, lnet_mask=np.zeros(SHAPE, bool))
    np.testing.assert_array_equal(label, postprocess(KIDNEY, NONE, CONFIG))


def test_nothing_is_said_otherwise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply_lnet(np.ones((2, 2, 2), np.uint8), np.ones((2, 2, 2), bool))
        postprocess(NONE, NONE, CONFIG)


# Region growing


@pytest.mark.parametrize("seed", range(5))
def test_grow_is_binary_propagation(seed):
    noise = np.random.default_rng(seed).random((12, 14, 16)).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, 0.8)
    high, low = smooth >= np.quantile(smooth, 0.97), smooth >= np.quantile(smooth, 0.85)
    expected = ndimage.binary_propagation(high, structure=np.ones((3, 3, 3)), mask=low)
    assert high.sum() < expected.sum() < low.sum()
    np.testing.assert_array_equal(grow(high, low), expected)


@pytest.mark.parametrize("step", [(0, 0, 1), (0, 1, -1), (1, -1, 1), (-1, -1, -1)])
def test_voxels_touch_by_face_edge_and_corner(step):
    high, low = np.zeros((2, 3, 3, 3), bool)
    high[1, 1, 1] = low[1, 1, 1] = True
    low[tuple(np.add(1, step))] = True
    np.testing.assert_array_equal(grow(high, low), low)


def test_high_voxels_are_kept_even_where_low_has_none():
    high, low = np.zeros((2, 3, 3, 3), bool)
    high[0, 0, 0] = low[2, 2, 2] = True
    np.testing.assert_array_equal(grow(high, low), high)


def test_grow_changes_no_input():
    high, low = np.ones((2, 3, 3, 3), bool)
    high[0] = False
    grow(high, low)
    assert high.sum() == 18
    assert low.all()


# The rest


def test_threshold_labels_by_hand():
    whole_prob = np.array([0.5, 0.49, 0.9, 0.1], np.float32)
    tumor_prob = np.array([0.49, 0.5, 0.9, 0.1], np.float32)
    np.testing.assert_array_equal(threshold_labels(whole_prob, tumor_prob), [1, 2, 2, 0])
    np.testing.assert_array_equal(threshold_labels(whole_prob, tumor_prob, 0.8), [0, 0, 2, 0])


def test_maps_of_different_shape_are_rejected():
    small = np.zeros((1, 20, 20), np.float32)
    with pytest.raises(DataError, match="tumor_prob has shape"):
        postprocess(NONE, small, CONFIG)
    with pytest.raises(DataError, match="lnet_mask has shape"):
        postprocess(NONE, NONE, CONFIG, lnet_mask=small > 0)
    with pytest.raises(DataError, match="tumor_prob has shape"):
        threshold_labels(NONE, small)


def test_chapter_13_prints_all_28_lines_beside_the_code_that_is_there():
    root = Path(__file__).parents[1]
    cells = json.loads((root / "notebooks/13_postprocess.ipynb").read_text("utf-8"))["cells"]
    table = next(c for c in cells if "slide-algorithm" in c["metadata"].get("tags", []))
    rows = re.findall(r"^\| (\d+) \|(.*)\|(.*)\|$", "".join(table["source"]), re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(1, 29))
    source = Path(inspect.getfile(postprocess)).read_text("utf-8")
    for line, _, beside in rows:
        for code in re.findall("`(.+?)`", beside):
            assert code in source, f"line {line}: {code}"


@pytest.mark.parametrize("mask", [np.full((2, 2, 2), 0.9), np.full((2, 2, 2), 255, np.uint8)])
def test_a_map_of_probabilities_is_no_mask(mask):
    with pytest.raises(TypeError, match="according to the rule 'safe'"):
        apply_lnet(np.ones((2, 2, 2), np.uint8), mask)


@pytest.mark.parametrize("axes", [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_grow_in_thin_boxes(axes):
    """There cc3d by itself may run out of the components that it expects."""
    rng = np.random.default_rng(19)
    for _ in range(200):
        shape = np.where(np.isin(range(3), axes), 1, rng.integers(1, 6, 3))
        low = rng.random(shape) < 0.4
        high = low & (rng.random(shape) < 0.3)
        expected = ndimage.binary_propagation(high, np.ones((3, 3, 3)), low)
        np.testing.assert_array_equal(grow(high, low), expected)


@pytest.mark.parametrize("call", [grow, merge])
@pytest.mark.parametrize("kinds", [(np.uint8, bool), (bool, np.uint8), (float, float)])
def test_masks_are_bool(call, kinds):
    one, other = (KIDNEY > 0).astype(kinds[0]), (KIDNEY > 0).astype(kinds[1])
    with pytest.raises(TypeError, match="bool"):
        call(one, other)


def test_masks_that_are_given_stay_as_they_are():
    high, low = KIDNEY > 0.95, KIDNEY > 0
    high[2, 4, 4] = True
    grown = grow(high, low)
    assert high.sum() == 1
    assert grown.sum() == low.sum()
