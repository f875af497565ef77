"""What a run says about where it comes from."""

import multiprocessing
import sys
from pathlib import Path

import pytest
from scans import scan_config

from tunet_lib import provenance
from tunet_lib.evaluation import SCORE_FIELDS, write_scores
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.history import write_history
from tunet_lib.provenance import timed, write_provenance
from tunet_lib.runs import Run


@pytest.fixture
def run(tmp_path):
    folds = [["case_00000", "case_00001"], ["case_00002"]]
    save_json(tmp_path / "run.json", {"data": "data", "folds": folds})
    row = dict.fromkeys(SCORE_FIELDS) | {"fold": 0}
    scored = [(system, case_id) for system in ("tunet", "ensemble") for case_id in folds[0]]
    rows = [row | {"system": system, "case_id": case_id} for system, case_id in scored]
    write_scores(tmp_path / "scores.csv", rows)
    return Run(tmp_path, scan_config(), Path("data"), folds)


def note_times(run, name, fold, times_s):
    log = {"loss": -0.1, "val_loss": -0.2, "learning_rate": 0.1, "attempts": 1}
    history = [{"epoch": n, **log, "time_s": time_s} for n, time_s in enumerate(times_s, start=1)]
    write_history(run.model_folder((name, fold)).history_path, history)


def test_times_add_up_over_sessions_even_if_one_is_interrupted(run, monkeypatch):
    save_json(run.folder / "times.json", {"prepare": 3.0, "train": 0.5, "commands": ["tunet a"]})
    clock = iter([0.0, 2.0, 100.0, 103.5])
    monkeypatch.setattr(provenance.time, "monotonic", lambda: next(clock))
    with timed(run.folder, "train"):
        pass
    with pytest.raises(KeyboardInterrupt), timed(run.folder, "train"):
        raise KeyboardInterrupt
    written = write_provenance(run)
    assert written["wall_time_s"] == {"prepare": 3.0, "train": 6.0, "evaluate": 0.0}
    assert written["commands"][0] == "tunet a"
    assert written["machines"] == [written["machine"]]


def note_a_step(folder):
    for _ in range(5):
        with timed(folder, "train"):
            pass


def test_no_note_is_lost_where_many_processes_note_at_once(run):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=note_a_step, args=(run.folder,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    notes = [load_json(path) for path in (run.folder / "times").iterdir()]
    assert [note["step"] for note in notes] == ["train"] * 20


def test_a_block_that_is_killed_leaves_its_command(run, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tunet", "train", "--task", "3"])
    block = timed(run.folder, "train")
    block.__enter__()
    assert write_provenance(run)["commands"] == ["tunet train --task 3"]


def test_a_note_that_cannot_be_written_hides_no_error(run):
    (run.folder / "times").write_text("a file, where a folder should be")
    with pytest.raises(DataError, match="the reason"), timed(run.folder, "train"):
        raise DataError("the reason")


@pytest.mark.parametrize("note", ["[]", '{"step": "train"}', '{"step": 3, "time_s": -1}', "{"])
def test_a_damaged_note_is_named(run, note):
    (run.folder / "times").mkdir()
    (run.folder / "times" / "train-x.json").write_text(note)
    with pytest.raises(DataError, match=r"train-x\.json: is"):
        write_provenance(run)


def test_a_note_that_is_being_written_is_none_yet(run):
    (run.folder / "times").mkdir()
    (run.folder / "times" / ".tmp-1-2-node17~train-x.json").touch()  # of a host that was killed
    write_provenance(run)


def test_a_folder_that_became_no_run_gets_no_file(tmp_path):
    with timed(tmp_path / "run", "prepare"):
        pass
    assert not (tmp_path / "run").exists()


def test_times_of_trainings_and_steps(run):
    save_json(run.folder / "times.json", {"prepare": 3.0, "train": 20.0, "evaluate": 4.5})
    note_times(run, "tunet", 0, [1.5, 2.0])
    note_times(run, "tunet", 1, [10.0])
    note_times(run, "lnet", 1, [7.25])
    written = write_provenance(run)
    assert load_json(run.folder / "provenance.json").keys() == written.keys()
    assert written["training_time_s"] == {"tunet": 13.5, "lnet": 7.2}
    assert written["wall_time_s"] == {"prepare": 3.0, "train": 20.0, "evaluate": 4.5}
    assert written["total_time_s"] == 27.5
    assert written["commands"] == []  # an older times.json names none
    assert written["seed"] == 2019


def test_only_what_was_scored_and_trained_counts(run):
    assert write_provenance(run)["trained"] == {}
    for task in (("tunet", 0), ("lnet", 0), ("lnet", 1)):
        folder = run.model_folder(task)
        folder.path.mkdir(parents=True)
        folder.weights.touch()
    written = write_provenance(run)
    assert (written["cases"], written["folds"]) == (2, [0])
    assert written["trained"] == {"fold_0": ["lnet", "tunet"], "fold_1": ["lnet"]}


def test_the_commits_of_the_trainings(run):
    states = {
        ("tunet", 0): [{"git": {"commit": "b" * 40, "dirty": False}}],
        ("lnet", 0): [
            {"git": {"commit": "a" * 40, "dirty": True}},
            {"git": {"commit": "b" * 40, "dirty": False}},
        ],
        ("lnet", 1): None,  # trained before there was such a file
        ("tunet", 1): [{"git": None, "threads": 8}, {"git": None, "threads": 2}],
    }
    for task, state in states.items():
        folder = run.model_folder(task)
        folder.path.mkdir(parents=True)
        folder.weights.touch()
        if state:
            save_json(folder.path / "trained_with.json", state)
    expected = ["a" * 40 + ", with changes", "b" * 40, "unknown"]
    written = write_provenance(run)
    assert written["trained_at"] == expected
    assert written["threads"] == [2, 8]


def test_a_damaged_history(run):
    note_times(run, "tunet", 0, ["soon"])
    with pytest.raises(DataError, match=r"history\.csv: cannot be read as a training history"):
        write_provenance(run)


def test_all_commands_are_kept_without_folders_of_the_machine(run, monkeypatch):
    for arguments in (
        ["run", str(run.folder / "kits"), "runs/a b", "--jobs"],
        ["evaluate", str(run.folder)],
        ["evaluate", str(run.folder)],
    ):
        monkeypatch.setattr(sys, "argv", [str(run.folder / "bin" / "tunet"), *arguments])
        for step in ("train", "evaluate"):
            with timed(run.folder, step):
                pass
    written = write_provenance(run)
    expected = ["tunet run kits 'runs/a b' --jobs", f"tunet evaluate {run.folder.name}"]
    assert written["commands"] == expected
    assert set(written["wall_time_s"]) == {"prepare", "train", "evaluate"}
