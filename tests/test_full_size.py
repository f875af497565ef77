"""Chapters 9 and 10 with the parameters of a cluster: their own cells, at tiny size."""

import ast
import json
from pathlib import Path

import pytest
from scans import save_untrained, scan_config, write_scans

from tunet_lib.config import Config
from tunet_lib.kits19 import find_cases
from tunet_lib.runs import open_run

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def cells(chapter):
    """Give the code of a chapter, without what only IPython understands."""
    found = json.loads((NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]
    return [code for code in codes if "google.colab" not in code]


def begun(chapter, **parameters):
    """Run the cells of parameters and of imports, then put values in, as papermill does."""
    names = {}
    for code in cells(chapter)[:2]:
        exec(code, names)
    assert parameters.keys() <= names.keys()
    return names | parameters


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Let every preset be a tiny one, since a chapter has no other parameter for the size."""
    config = scan_config(levels=1, epochs=4, stop_patience=4)
    monkeypatch.setattr(Config, "preset", lambda *_, **changes: config)
    monkeypatch.chdir(NOTEBOOKS)
    write_scans(tmp_path / "kits", 4)
    return tmp_path / "kits"


def cell_with(chapter, text):
    (code,) = (code for code in cells(chapter) if text in code)
    return code


def test_chapter_9_trains_in_the_run_folder_where_evaluate_looks(tiny, tmp_path):
    folder = str(tmp_path / "run")
    given = {"preset": "paper", "data": str(tiny), "folder": folder, "variant": "unet2d"}
    names = begun("09_training", **given)
    names |= {"is_full": True, "cases": find_cases(tiny), "scratch": tmp_path}
    toys = ast.parse(cell_with("09_training", "def columns"))
    helper = next(n for n in toys.body if getattr(n, "name", "") == "columns")
    exec(ast.unparse(helper), names)
    exec(cell_with("09_training", "train_task(run"), names)
    run = open_run(tmp_path / "run")
    assert run.model_folder(("unet2d", 0)).is_trained
    assert len(names["history"]) == 4


def test_chapter_10_trains_what_is_named_and_scores_what_is_there(tiny, tmp_path, capsys):
    folder = tmp_path / "run"
    given = {"preset": "paper", "data": str(tiny), "folder": str(folder)}
    names = begun("10_folds_cluster", **given, variants="unet2d, lnet", folds=0, jobs=2)
    names |= {"is_full": True, "toy_run": None, "small": []}
    exec(cell_with("10_folds_cluster", "wanted = run.tasks()"), names)
    run = open_run(folder)
    trained = [task for task in run.tasks() if run.model_folder(task).is_trained]
    assert trained == [("lnet", 0), ("unet2d", 0)]
    assert "2 of 20 trainings are complete" in capsys.readouterr().out
    save_untrained(run)
    names["variants"], names["folds"] = "", ""
    exec(cell_with("10_folds_cluster", "wanted = run.tasks()"), names)
    said = capsys.readouterr().out
    assert "20 of 20 trainings are complete" in said
    assert "TuNet + SEB, 4 cases" in said
