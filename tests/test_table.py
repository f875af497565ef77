"""Table 1: fold means, their mean and SD, and the table as text and as CSV."""

import csv
import math
from pathlib import Path

import pytest
from tiny import SCORE_ROWS as ROWS
from tiny import score_row as row

from tunet_lib.config import VARIANTS
from tunet_lib.evaluation import REGIONS, SYSTEMS
from tunet_lib.files import DataError
from tunet_lib.table import (
    PAPER_TABLE_1,
    MeanSD,
    coverage,
    fold_means,
    format_table,
    mean_sd,
    table_1,
    write_table,
)

PUBLISHED = Path(__file__).parents[1] / "book" / "results" / "table_1.csv"


def named(table):
    return {line.system: line for line in table}


def test_the_ten_systems_are_the_papers():
    assert list(SYSTEMS.values()) == list(PAPER_TABLE_1)
    assert set(SYSTEMS) - set(VARIANTS) == {"ensemble", "ensemble_postprocess"}


def test_the_papers_means_are_those_of_its_regions():
    for paper in PAPER_TABLE_1.values():
        of_both = (paper["whole"].mean + paper["tumor"].mean) / 2
        assert paper["mean"].mean == pytest.approx(of_both, abs=0.00051)  # printed digits


def test_mean_and_sd_over_folds_by_hand():
    tunet = named(table_1(ROWS))["tunet"]
    assert (tunet.title, tunet.folds, tunet.cases) == ("TuNet", 2, 3)
    # Over folds, not over the three cases: those would give 0.767.
    assert tunet.measured["whole"].mean == pytest.approx(0.8)
    assert tunet.measured["whole"].sd == pytest.approx(0.2 / math.sqrt(2))
    assert tunet.measured["tumor"].mean == pytest.approx(0.3)
    assert tunet.measured["mean"].mean == pytest.approx(0.55)
    assert tunet.paper["whole"] == (0.857, 0.029)
    assert tunet.paper["mean"] == (0.582, 0.030)


def test_a_single_fold_has_no_sd():
    unet = named(table_1(ROWS))["unet3d"]
    assert unet.folds == 1
    assert unet.measured["whole"].mean == 0.5
    assert math.isnan(unet.measured["whole"].sd)


def test_a_run_that_has_not_finished_gives_all_ten_rows():
    for rows in ([], ROWS):
        table = table_1(rows)
        assert [line.system for line in table] == list(SYSTEMS)
        ensemble = named(table)["ensemble"]
        assert (ensemble.folds, ensemble.cases) == (0, 0)
        assert math.isnan(ensemble.measured["whole"].mean)
        assert ensemble.paper["whole"].mean == 0.894


def test_the_order_of_the_rows_does_not_matter():
    assert format_table(table_1(ROWS[::-1])) == format_table(table_1(ROWS))


def test_a_system_of_ones_own_comes_last_and_without_the_papers_numbers():
    table = table_1([*ROWS, row("mine", 0, "case_00000", 1.0, 1.0)])
    assert table[-1].title == "mine"
    assert table[-1].measured["whole"].mean == 1.0
    assert math.isnan(table[-1].paper["whole"].mean)


def test_native_scores_leave_out_cases_without_them():
    native = {"native_whole": 0.5, "native_tumor": 0.3, "native_mean": 0.4}
    tunet = named(table_1([ROWS[0], ROWS[1] | native], on="native"))["tunet"]
    assert (tunet.cases, tunet.measured["whole"].mean, tunet.measured["mean"].mean) == (1, 0.5, 0.4)


def test_a_case_scored_twice_is_rejected():
    with pytest.raises(DataError, match="case_00000 is scored twice for tunet"):
        table_1([*ROWS, row("tunet", 1, "case_00000", 0.5, 0.5)])


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
    lacking = coverage(
        table_1(
            [
                *full_run(systems[1:], 5),
                *full_run(systems[:1], 4),
                row(systems[0], 4, "a", 0.8, 0.4),
                row(systems[0], 4, "b", 1, 1),
            ]
        )
    )
    said = "Folds run: 5 of 5. Fewer cases than in other rows of as many folds: U-Net 2D + median, "
    assert lacking.startswith(f"{said}U-Net 3D")
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


def test_fold_means_by_hand():
    assert fold_means(ROWS, "tunet", "grid_whole") == pytest.approx([0.7, 0.9])
    assert fold_means(ROWS, "tunet", "grid_tumor") == pytest.approx([0.2, 0.4])
    assert fold_means(ROWS, "tunet") == pytest.approx([0.45, 0.65])  # both regions' mean
    assert fold_means(ROWS, "unet3d", "grid_whole") == [0.5]
    assert fold_means(ROWS, "ensemble") == []
    assert fold_means(iter(ROWS[::-1]), "tunet") == pytest.approx([0.45, 0.65])


def test_fold_means_leave_out_what_was_not_measured():
    surfaces = [{**ROWS[0], "whole_hd95_mm": 4.0}, ROWS[1], {**ROWS[2], "whole_hd95_mm": 1.0}]
    assert fold_means(surfaces, "tunet", "whole_hd95_mm") == [4.0, 1.0]
    assert fold_means(surfaces[1:], "tunet", "whole_hd95_mm") == [1.0]


@pytest.mark.parametrize(
    ("means", "mean", "sd"),
    [
        ([1.0, 2.0, 6.0], 3.0, 7**0.5),  # deviations -2, -1, 3: 14 / (3 - 1)
        ([0.4, 0.6], 0.5, 0.02**0.5),
        ([0.25] * 5, 0.25, 0.0),
        ([0.7], 0.7, math.nan),
        ([], math.nan, math.nan),
    ],
)
def test_mean_and_sd_by_hand(means, mean, sd):
    assert mean_sd(means) == pytest.approx(MeanSD(mean, sd), nan_ok=True)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (MeanSD(0.5, 0.0625), "0.500 (0.062)"),
        (MeanSD(0.5, math.nan), "0.500"),
        (MeanSD(math.nan, math.nan), ""),
    ],
)
def test_mean_and_sd_as_text(number, text):
    assert str(number) == text


def test_a_rows_numbers_by_the_names_of_their_columns():
    tunet = named(table_1(ROWS))["tunet"]
    numbers = tunet.numbers()
    assert list(numbers) == [
        f"{source}{region}_{figure}"
        for source in ("", "paper_")
        for region in REGIONS
        for figure in ("mean", "sd")
    ]
    for region in REGIONS:
        assert (numbers[f"{region}_mean"], numbers[f"{region}_sd"]) == tunet.measured[region]
        papers = numbers[f"paper_{region}_mean"], numbers[f"paper_{region}_sd"]
        assert papers == tunet.paper[region] == PAPER_TABLE_1["TuNet"][region]


def test_the_columns_are_those_of_the_table_that_the_book_shows(tmp_path):
    write_table(tmp_path / "table_1.csv", table_1(ROWS))
    headers = [
        path.read_text(encoding="utf-8").splitlines()[0]
        for path in (tmp_path / "table_1.csv", PUBLISHED)
    ]
    assert headers[0] == headers[1]
    assert len(headers[0].split(",")) == 4 + 12


@pytest.mark.parametrize("strange", [math.inf, math.nan])
def test_a_fold_without_a_finite_mean_leaves_no_sd(strange):
    found = mean_sd([1.0, strange])
    assert math.isnan(found.sd)
    assert not math.isfinite(found.mean)


def test_missing_cases_are_told_before_all_folds_are_run():
    rows = [row("unet3d", 0, name, 0.8, 0.4) for name in "abc"]
    table = table_1([*rows, *(row("tunet", 0, name, 0.8, 0.4) for name in "ab")])
    assert "Fewer cases than in other rows of as many folds: TuNet. One fold" in coverage(table)
