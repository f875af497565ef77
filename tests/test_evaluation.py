import csv
import math

import numpy as np
import pytest

from tunet_lib.config import VARIANTS
from tunet_lib.evaluation import (
    PAPER_TABLE_1,
    SCORE_FIELDS,
    SYSTEMS,
    check_unseen,
    coverage,
    format_table,
    read_scores,
    score_case,
    table_1,
    write_scores,
    write_table,
)
from tunet_lib.files import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")

TRUTH = np.zeros((4, 6, 6), np.uint8)
TRUTH[1:3, 1:5, 1:5] = 1
TRUTH[1:3, 1:3, 1:3] = 2
PREDICTED = np.where(TRUTH == 2, 1, TRUTH).astype(np.uint8)  # the kidney, and no tumor


def row(system, fold, case_id, whole, tumor):
    scores = {"grid_whole": whole, "grid_tumor": tumor, "grid_mean": (whole + tumor) / 2}
    return {
        **dict.fromkeys(SCORE_FIELDS),
        "system": system,
        "fold": fold,
        "case_id": case_id,
        **scores,
    }


# Fold means of TuNet: whole 0.7 and 0.9, tumor 0.2 and 0.4.
ROWS = [
    row("tunet", 0, "case_00000", 0.6, 0.1),
    row("tunet", 0, "case_00001", 0.8, 0.3),
    row("tunet", 1, "case_00002", 0.9, 0.4),
    row("unet3d", 0, "case_00000", 0.5, 0.25),
]


def named(table):
    return {line.system: line for line in table}


def test_score_on_the_grid_only():
    scored = score_case("tunet", 3, "case_00042", PREDICTED, TRUTH)
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
    scored = score_case("tunet", 0, "case_00042", TRUTH, TRUTH, PREDICTED, TRUTH)
    assert (scored["native_whole"], scored["native_tumor"], scored["native_mean"]) == (1, 0, 0.5)
    assert scored["whole_hd95_mm"] is None


def test_score_of_surfaces():
    scored = score_case("tunet", 0, "c", TRUTH, TRUTH, PREDICTED, TRUTH, (3.0, 1.0, 1.0))
    assert scored["whole_hd95_mm"] == scored["whole_mean_mm"] == 0
    assert scored["whole_surface_dice"] == 1
    assert scored["tumor_hd95_mm"] == scored["tumor_mean_mm"] == math.inf
    assert scored["tumor_surface_dice"] == 0


def test_maps_of_different_shape_are_rejected():
    with pytest.raises(DataError, match="one grid"):
        score_case("tunet", 0, "c", PREDICTED, TRUTH[1:])


def test_scores_are_read_back_to_the_last_bit(tmp_path):
    kidney = np.ones_like(TRUTH)
    rows = [
        score_case("tunet", 0, "case_00000", PREDICTED, TRUTH),
        score_case("tunet", 1, "case_00001", TRUTH, TRUTH, PREDICTED, TRUTH, (3.0, 1.0, 1.0)),
        row("unet2d", 4, "case_00002", 1 / 3, 0.1 + 0.2),
    ]
    write_scores(tmp_path / "scores.csv", rows)
    assert read_scores(tmp_path / "scores.csv") == rows

    none = score_case("tunet", 2, "case_00003", kidney, kidney, kidney, kidney, (3.0, 1.0, 1.0))
    assert math.isnan(none["tumor_hd95_mm"])
    write_scores(tmp_path / "scores.csv", [none])
    assert math.isnan(read_scores(tmp_path / "scores.csv")[0]["tumor_hd95_mm"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns"),
        ("system,fold\ntunet,0\n", "columns"),
        (",".join(SCORE_FIELDS) + "\ntunet,0,case_00000,0.5\n", "not a table of scores"),
        (",".join(SCORE_FIELDS) + "\ntunet,zero,c" + "," * 12 + "\n", "'zero'"),
        (",".join(SCORE_FIELDS) + "\ntunet,0,c,high" + "," * 11 + "\n", "'high'"),
    ],
)
def test_a_damaged_file_of_scores_is_rejected(tmp_path, text, message):
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_scores(tmp_path / "scores.csv")


def test_a_missing_file_of_scores_is_rejected(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path / "scores.csv")


def test_the_ten_systems_are_the_papers():
    assert list(SYSTEMS.values()) == list(PAPER_TABLE_1)
    assert set(SYSTEMS) - set(VARIANTS) == {"ensemble", "ensemble_postprocess"}


def test_the_papers_means_are_those_of_its_regions():
    for whole, tumor, mean in PAPER_TABLE_1.values():
        assert mean[0] == pytest.approx((whole[0] + tumor[0]) / 2, abs=0.00051)  # printed digits


def test_mean_and_sd_over_folds_by_hand():
    tunet = named(table_1(ROWS))["tunet"]
    assert (tunet.title, tunet.folds, tunet.cases) == ("TuNet", 2, 3)
    # Over folds, not over the three cases: those would give 0.767.
    assert tunet.whole_mean == pytest.approx(0.8)
    assert tunet.whole_sd == pytest.approx(0.2 / math.sqrt(2))
    assert tunet.tumor_mean == pytest.approx(0.3)
    assert tunet.mean_mean == pytest.approx(0.55)
    assert (tunet.paper_whole_mean, tunet.paper_whole_sd) == (0.857, 0.029)
    assert (tunet.paper_mean_mean, tunet.paper_mean_sd) == (0.582, 0.030)


def test_a_single_fold_has_no_sd():
    unet = named(table_1(ROWS))["unet3d"]
    assert unet.folds == 1
    assert unet.whole_mean == 0.5
    assert math.isnan(unet.whole_sd)


def test_a_run_that_has_not_finished_gives_all_ten_rows():
    for rows in ([], ROWS):
        table = table_1(rows)
        assert [line.system for line in table] == list(SYSTEMS)
        ensemble = named(table)["ensemble"]
        assert (ensemble.folds, ensemble.cases) == (0, 0)
        assert math.isnan(ensemble.whole_mean)
        assert ensemble.paper_whole_mean == 0.894


def test_the_order_of_the_rows_does_not_matter():
    assert format_table(table_1(ROWS[::-1])) == format_table(table_1(ROWS))


def test_a_system_of_ones_own_comes_last_and_without_the_papers_numbers():
    table = table_1([*ROWS, row("mine", 0, "case_00000", 1.0, 1.0)])
    assert table[-1].title == "mine"
    assert table[-1].whole_mean == 1.0
    assert math.isnan(table[-1].paper_whole_mean)


def test_native_scores_leave_out_cases_without_them():
    native = {"native_whole": 0.5, "native_tumor": 0.3, "native_mean": 0.4}
    tunet = named(table_1([ROWS[0], ROWS[1] | native], on="native"))["tunet"]
    assert (tunet.cases, tunet.whole_mean, tunet.mean_mean) == (1, 0.5, 0.4)


def test_a_case_scored_twice_is_rejected():
    with pytest.raises(DataError, match="case_00000 is scored twice for tunet"):
        table_1([*ROWS, row("tunet", 1, "case_00000", 0.5, 0.5)])


def test_only_unseen_cases_may_be_scored():
    folds = [["case_00000", "case_00001"], ["case_00002"]]
    check_unseen(ROWS, folds)
    with pytest.raises(DataError, match="case_00002 was scored by tunet of fold 0"):
        check_unseen([*ROWS, row("tunet", 0, "case_00002", 1.0, 1.0)], folds)
    for fold in (-1, 2):
        with pytest.raises(DataError, match="does not hold"):
            check_unseen([row("tunet", fold, "case_00002", 1.0, 1.0)], folds)


def test_markdown_table():
    lines = format_table(table_1(ROWS)).splitlines()
    assert len(lines) == 12
    assert len({line.count("|") for line in lines}) == 1
    tunet = [cell.strip() for cell in lines[6].strip("|").split("|")]
    assert tunet[:5] == ["TuNet", "2", "3", "0.800 (0.141)", "0.857 (0.029)"]
    unet = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert unet[:4] == ["U-Net 3D", "1", "1", "0.500"]
    ensemble = [cell.strip() for cell in lines[10].strip("|").split("|")]
    assert ensemble[:5] == ["Ensemble", "0", "0", "", "0.894 (0.014)"]


def test_table_without_the_papers_numbers():
    lines = format_table(table_1(ROWS), paper=False).splitlines()
    assert "paper" not in lines[0]
    assert "nan" not in "".join(lines)
    tunet, unet = ([c.strip() for c in lines[n].strip("|").split("|")] for n in (6, 4))
    assert tunet == ["TuNet", "2", "3", "0.800 (0.141)", "0.300 (0.141)", "0.550 (0.141)"]
    assert unet == ["U-Net 3D", "1", "1", "0.500", "0.250", "0.375"]


def full_run(systems, folds):
    return [row(s, k, f"case_{k:05}", 0.8, 0.4) for s in systems for k in range(folds)]


def test_coverage_says_what_is_still_to_be_run():
    systems = list(SYSTEMS)
    assert coverage(table_1(full_run(systems, 5))) == ""
    assert coverage(table_1(full_run(systems, 3))) == "Folds run: 3 of 5."
    assert coverage(table_1(full_run(systems, 2)), folds=2) == ""
    one = coverage(table_1(full_run(systems[2:], 1)))
    assert one == (
        "Folds run: 1 of 5. Not yet run: U-Net 2D, U-Net 2D + median. One fold has no SD."
    )
    uneven = coverage(table_1(full_run(systems[:2], 1) + full_run(systems[2:], 5)))
    assert uneven == "Folds run: 1 to 5 of 5. One fold has no SD."
    assert coverage(table_1([])).startswith("Folds run: 0 of 5. Not yet run: U-Net 2D, ")


def test_plain_table():
    lines = format_table(table_1(ROWS), markdown=False).splitlines()
    assert len(lines) == 12
    assert "|" not in "".join(lines)
    column = lines[0].index("whole, paper")
    assert lines[6][column:].startswith("0.857 (0.029)")
    assert lines[10][column:].startswith("0.894 (0.014)")


def test_table_as_csv(tmp_path):
    write_table(tmp_path / "table_1.csv", table_1(ROWS))
    with (tmp_path / "table_1.csv").open(newline="") as stream:
        table = {line["system"]: line for line in csv.DictReader(stream)}
    assert list(table) == list(SYSTEMS)
    assert table["tunet"]["title"] == "TuNet"
    assert (table["tunet"]["folds"], table["tunet"]["cases"]) == ("2", "3")
    assert table["tunet"]["whole_mean"] == "0.8"
    assert float(table["tunet"]["whole_sd"]) == pytest.approx(0.141421)
    assert table["unet3d"]["whole_sd"] == table["ensemble"]["mean_mean"] == ""
    assert table["ensemble"]["paper_tumor_sd"] == "0.025"
