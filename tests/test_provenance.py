"""What a run says about where it comes from."""

import subprocess
import sys
from pathlib import Path

import pytest
from scans import scan_config

from tunet_lib import provenance
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.provenance import git_state, machine, timed, versions, write_provenance
from tunet_lib.runs import Run


@pytest.fixture
def run(tmp_path):
    folds = [["case_00000", "case_00001"], ["case_00002"]]
    save_json(tmp_path / "run.json", {"data": "data", "folds": folds})
    return Run(tmp_path, scan_config(), Path("data"), folds)


def write_history(run, name, fold, times_s):
    folder = run.model_folder(name, fold)
    folder.mkdir(parents=True)
    lines = ["epoch,time_s", *(f"{epoch},{time_s}" for epoch, time_s in enumerate(times_s))]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")


def test_times_add_up_over_sessions_even_if_one_is_interrupted(run, monkeypatch):
    clock = iter([0.0, 2.0, 100.0, 103.5])
    monkeypatch.setattr(provenance.time, "monotonic", lambda: next(clock))
    with timed(run.folder, "train"):
        pass
    with pytest.raises(KeyboardInterrupt), timed(run.folder, "train"):
        raise KeyboardInterrupt
    assert load_json(run.folder / "times.json") == {"train": 5.5}


def test_a_folder_that_became_no_run_gets_no_file(tmp_path):
    with timed(tmp_path / "run", "prepare"):
        pass
    assert not (tmp_path / "run").exists()


def test_times_of_trainings_and_steps(run):
    save_json(run.folder / "times.json", {"prepare": 3.0, "train": 20.0, "evaluate": 4.5})
    write_history(run, "tunet", 0, [1.5, 2.0])
    write_history(run, "tunet", 1, [10.0])
    write_history(run, "lnet", 1, [7.25])
    written = write_provenance(run)
    assert load_json(run.folder / "provenance.json").keys() == written.keys()
    assert written["training_time_s"] == {"tunet": 13.5, "lnet": 7.2}
    assert written["wall_time_s"] == {"prepare": 3.0, "train": 20.0, "evaluate": 4.5}
    assert written["total_time_s"] == 27.5
    assert (written["cases"], written["folds"], written["seed"]) == (3, 2, 2019)


def test_a_damaged_history(run):
    write_history(run, "tunet", 0, ["soon"])
    with pytest.raises(DataError, match=r"history\.csv: is no training history"):
        write_provenance(run)


def test_the_command_names_no_folder_of_the_machine(run, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["tunet", "run", str(run.folder / "kits"), "runs/a b", "--jobs"]
    )
    assert write_provenance(run)["command"] == "tunet run kits 'runs/a b' --jobs"


def test_versions_and_machine():
    assert versions()["numpy"]
    assert versions()["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert machine()["cores"] >= 1
    assert machine()["cpu"]


def test_commit_of_a_checkout_only(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert git_state() is None

    def git(*arguments):
        options = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "provenance.py").write_text("one")
    git("init")
    assert git_state() is None  # the checkout is of something else
    git("add", "provenance.py")
    git("commit", "-m", "first")
    assert git_state()["dirty"] is False
    assert len(git_state()["commit"]) == 40
    (tmp_path / "provenance.py").write_text("two")
    assert git_state()["dirty"] is True
