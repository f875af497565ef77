"""Trainings that were made later join the published study, and nothing else changes."""

import csv
import importlib
import shutil
import sys
from pathlib import Path

import pytest
from scans import save_untrained, scan_config, write_scans

from tunet_lib.config import ENSEMBLE, LOCALIZERS
from tunet_lib.evaluation import STEPS, read_scores, write_scores
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.history import write_history
from tunet_lib.provenance import timed, write_provenance
from tunet_lib.runs import prepare_run
from tunet_lib.scoring import evaluate_run
from tunet_lib.table import table_1, write_table

BOOK = Path(__file__).parents[1] / "book"
pytestmark = pytest.mark.skipif(
    not (BOOK / "add_trainings.py").exists(), reason="the book is not there"
)
LOG = dict.fromkeys(("loss", "val_loss", "learning_rate", "time_s"), 1.0) | {"attempts": 1}


@pytest.fixture
def add(monkeypatch):
    monkeypatch.syspath_prepend(str(BOOK))
    yield importlib.import_module("add_trainings").add
    for name in ("add_trainings", "publish_results", "result_picture"):
        sys.modules.pop(name, None)


def run_with(folder, names, data):
    run, _ = prepare_run(data, folder, scan_config(levels=1))
    save_untrained(run, names)
    for task in run.tasks(names):
        write_history(run.model_folder(task).path / "history.csv", [{"epoch": 1} | LOG])
    with timed(run.folder, "evaluate"):
        evaluate_run(run)
    write_table(run.folder / "table_1.csv", table_1(read_scores(run.folder / "scores.csv")))
    write_provenance(run)
    return run


@pytest.fixture
def study_and_more(tmp_path, add):
    """A study of U-Net 3D on one case of two in each fold, and a run of U-Net 2D on all."""
    write_scans(tmp_path / "data")
    study = run_with(tmp_path / "study", ["unet3d"], tmp_path / "data")
    results = tmp_path / "results"
    results.mkdir()
    for name in ("table_1.csv", "provenance.json"):
        shutil.copyfile(study.folder / name, results / name)
    scored = [fold[0] for fold in study.folds]
    rows = [r for r in read_scores(study.folder / "scores.csv") if r["case_id"] in scored]
    write_scores(results / "scores.csv", rows)
    write_scores(results / "algorithm_1.csv", [])
    publish = importlib.import_module("publish_results")
    epochs = publish.epochs_of(study, study.tasks())
    publish.write_learning_curves(results / "learning_curves.csv", epochs)
    return results, run_with(tmp_path / "more", ["unet2d"], tmp_path / "data")


def test_the_studys_cases_get_a_row_more_and_the_tables_agree(add, study_and_more):
    results, more = study_and_more
    before = read_scores(results / "scores.csv")
    add(more, results)
    rows = read_scores(results / "scores.csv")
    assert [(row["system"], row["fold"]) for row in rows] == [
        ("unet2d", 0),
        ("unet3d", 0),
        ("unet2d", 1),
        ("unet3d", 1),
    ]
    assert [row for row in rows if row["system"] == "unet3d"] == before
    theirs = {row["case_id"]: row for row in read_scores(more.folder / "scores.csv")}
    assert all(row == theirs[row["case_id"]] for row in rows if row["system"] == "unet2d")
    with (results / "learning_curves.csv").open() as stream:
        logs = [(log["fold"], log["variant"]) for log in csv.DictReader(stream)]
    assert logs == [("0", "unet2d"), ("0", "unet3d"), ("1", "unet2d"), ("1", "unet3d")]
    with (results / "table_1.csv").open() as stream:
        cases = {row["system"]: row["cases"] for row in csv.DictReader(stream)}
    assert (cases["unet2d"], cases["unet3d"], cases["tunet"]) == ("2", "2", "0")
    trained = load_json(results / "provenance_2.json")["trained"]
    assert trained == {"fold_0": ["unet2d"], "fold_1": ["unet2d"]}


def test_what_was_trained_since_joins_and_the_rest_stays(add, study_and_more, tmp_path):
    results, more = study_and_more
    add(more, results)
    kept = {path.name: path.read_bytes() for path in results.iterdir()}
    add(more, results)
    assert {path.name: path.read_bytes() for path in results.iterdir()} == kept
    more = run_with(tmp_path / "more", ["unet2d_median"], tmp_path / "data")
    unfinished = more.model_folder(("lnet", 1))
    write_history(unfinished.path / "history.csv", [{"epoch": 1} | LOG])
    add(more, results)
    scored = [(row["system"], row["fold"]) for row in read_scores(results / "scores.csv")]
    assert scored == [(s, fold) for fold in (0, 1) for s in ("unet2d", "unet2d_median", "unet3d")]
    with (results / "learning_curves.csv").open() as stream:
        logs = [(log["variant"], int(log["fold"])) for log in csv.DictReader(stream)]
    assert logs == scored
    assert len(load_json(results / "provenance_2.json")["trained"]["fold_0"]) == 2
    made = load_json(more.folder / "provenance.json")
    save_json(more.folder / "provenance.json", made | {"commands": ["another"]})
    add(more, results)
    assert load_json(results / "provenance_3.json")["commands"] == ["another"]


def test_an_ensemble_brings_its_steps_and_lost_trainings_make_room(add, study_and_more, tmp_path):
    results, _ = study_and_more
    publish = importlib.import_module("publish_results")
    curves = results / "learning_curves.csv"
    with curves.open() as stream:
        before = list(csv.DictReader(stream))
    lost = [{"fold": 1, "variant": "lnet", "epoch": n} | LOG for n in (1, 2)]
    publish.write_learning_curves(curves, [*before, *lost])
    more = run_with(tmp_path / "more", [*ENSEMBLE, *LOCALIZERS], tmp_path / "data")
    add(more, results)
    theirs = read_scores(more.folder / "algorithm_1.csv")
    scored = [fold[0] for fold in more.folds]
    steps = read_scores(results / "algorithm_1.csv")
    assert steps == [row for row in theirs if row["case_id"] in scored]
    assert [(row["system"], row["fold"]) for row in steps] == [
        (s, f) for f in (0, 1) for s in STEPS
    ]
    with curves.open() as stream:
        logs = [(log["variant"], log["fold"], log["epoch"]) for log in csv.DictReader(stream)]
    assert [log for log in logs if log[0] == "lnet"] == [("lnet", "0", "1"), ("lnet", "1", "1")]
    assert ("unet3d", "0", "1") in logs


def test_other_numbers_or_another_recipe_are_refused_and_nothing_changes(add, study_and_more):
    results, more = study_and_more
    add(more, results)
    kept = {path.name: path.read_bytes() for path in results.iterdir()}
    rows = read_scores(more.folder / "scores.csv")
    write_scores(more.folder / "scores.csv", [row | {"grid_tumor": 0.123} for row in rows])
    with pytest.raises(DataError, match="is scored twice for unet2d"):
        add(more, results)
    made = load_json(more.folder / "provenance.json")
    save_json(more.folder / "provenance.json", made | {"config": made["config"] | {"seed": 1}})
    with pytest.raises(DataError, match="its configuration is not the study's"):
        add(more, results)
    assert {path.name: path.read_bytes() for path in results.iterdir()} == kept
