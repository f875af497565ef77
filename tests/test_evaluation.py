import math

import numpy as np
import pytest
from tiny import SCORE_ROWS as ROWS
from tiny import score_row as row

from tunet_lib.evaluation import (
    SCORE_FIELDS,
    check_unseen,
    read_scores,
    score_case,
    write_scores,
)
from tunet_lib.files import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")

TRUTH = np.zeros((4, 6, 6), np.uint8)
TRUTH[1:3, 1:5, 1:5] = 1
TRUTH[1:3, 1:3, 1:3] = 2
PREDICTED = np.where(TRUTH == 2, 1, TRUTH).astype(np.uint8)  # the kidney, and no tumor
MM = (3.0, 1.0, 1.0)


def test_score_on_the_grid_only():
    scored = score_case("tunet", 3, "case_00042", grid=(PREDICTED, TRUTH))
    assert tuple(scored) == SCORE_FIELDS
    assert scored == {
        **dict.fromkeys(SCORE_FIELDS),
        "system": "tunet",
        "fold": 3,
        "case_id": "case_00042",
        "grid_whole": 1.0,
        "grid_tumor": 0.0,
        "grid_mean": 0.5,
    }


def test_score_on_native_voxels():
    scored = score_case("tunet", 0, "case_00042", grid=(TRUTH, TRUTH), native=(PREDICTED, TRUTH))
    assert (scored["native_whole"], scored["native_tumor"], scored["native_mean"]) == (1, 0, 0.5)
    assert scored["whole_hd95_mm"] is None


def test_score_of_surfaces():
    scored = score_case(
        "tunet", 0, "c", grid=(TRUTH, TRUTH), native=(PREDICTED, TRUTH), spacing_mm=MM
    )
    assert scored["whole_hd95_mm"] == scored["whole_mean_mm"] == 0
    assert scored["whole_surface_dice"] == 1
    assert scored["tumor_hd95_mm"] == scored["tumor_mean_mm"] == math.inf
    assert scored["tumor_surface_dice"] == 0


def test_maps_of_different_shape_are_rejected():
    with pytest.raises(DataError, match="one grid"):
        score_case("tunet", 0, "c", grid=(PREDICTED, TRUTH[1:]))


def test_scores_are_read_back_to_the_last_bit(tmp_path):
    native, both = (PREDICTED, TRUTH), (np.ones_like(TRUTH),) * 2
    rows = [
        score_case("tunet", 0, "case_00000", grid=(PREDICTED, TRUTH)),
        score_case("tunet", 1, "case_00001", grid=(TRUTH, TRUTH), native=native, spacing_mm=MM),
        row("unet2d", 4, "case_00002", 1 / 3, 0.1 + 0.2),
    ]
    write_scores(tmp_path / "scores.csv", rows)
    assert read_scores(tmp_path / "scores.csv") == rows

    none = score_case("tunet", 2, "case_00003", grid=both, native=both, spacing_mm=MM)
    assert math.isnan(none["tumor_hd95_mm"])
    write_scores(tmp_path / "scores.csv", [none])
    assert math.isnan(read_scores(tmp_path / "scores.csv")[0]["tumor_hd95_mm"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns"),
        ("system,fold\ntunet,0\n", "columns"),
        (",".join(SCORE_FIELDS) + "\ntunet,0,case_00000,0.5\n", "not a table of scores"),
        (",".join(SCORE_FIELDS) + "\ntunet,zero,c" + "," * 16 + "\n", "'zero'"),
        (",".join(SCORE_FIELDS) + "\ntunet,0,c,high" + "," * 15 + "\n", "'high'"),
    ],
)
def test_a_damaged_file_of_scores_is_rejected(tmp_path, text, message):
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_scores(tmp_path / "scores.csv")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("grid_whole", v) for v in (float("inf"), float("nan"), -0.1, 1.1)),
        *(("whole_hd95_mm", -1.0), ("whole_surface_dice", 2.0), ("tumor_ml", float("inf"))),
    ],
)
def test_scores_that_no_case_has_are_rejected(tmp_path, field, value):
    write_scores(tmp_path / "scores.csv", [{**ROWS[0], field: value}])
    with pytest.raises(DataError, match=f"{field} is"):
        read_scores(tmp_path / "scores.csv")


def test_a_missing_file_of_scores_is_rejected(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path / "scores.csv")


def test_only_unseen_cases_may_be_scored():
    folds = [["case_00000", "case_00001"], ["case_00002"]]
    check_unseen(ROWS, folds)
    with pytest.raises(DataError, match="case_00002 was scored by tunet of fold 0"):
        check_unseen([*ROWS, row("tunet", 0, "case_00002", 1.0, 1.0)], folds)
    for fold in (-1, 2):
        with pytest.raises(DataError, match="does not hold"):
            check_unseen([row("tunet", fold, "case_00002", 1.0, 1.0)], folds)


def test_a_native_pair_that_does_not_match_is_rejected():
    with pytest.raises(DataError, match="one grid"):
        score_case("tunet", 0, "c", grid=(TRUTH, TRUTH), native=(PREDICTED, TRUTH[1:]))
