"""Trainings that went wrong: found by their loss, and repeated once."""

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_config, write_cases

from tunet_lib import jobs, steps
from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError, save_json
from tunet_lib.folds import Split
from tunet_lib.history import write_history
from tunet_lib.model import Model
from tunet_lib.outliers import outliers, start_anew, to_repeat
from tunet_lib.runs import Run
from tunet_lib.training import train

GOOD, BAD = -1.3, -1.0
HDF5 = b"\x89HDF\r\n\x1a\n"


def finish(folder, loss):
    """Write what a training leaves."""
    log = {"loss": loss, "learning_rate": 0.1, "attempts": 1, "time_s": 1.0}
    epochs = [{"epoch": 1, "val_loss": loss} | log, {"epoch": 2, "val_loss": loss + 0.5} | log]
    folder.path.mkdir(parents=True, exist_ok=True)
    write_history(folder.history_path, epochs)
    folder.weights.write_bytes(HDF5)


def run_of(folder, losses, **changes):
    config = tiny_config(**{"inner_validation": True, "folds": len(losses)} | changes)
    run = Run(folder, config, Path("data"), [[f"case_{k:05d}"] for k in range(len(losses))])
    save_json(folder / "run.json", {"data": "data", "folds": run.folds, "cyst_as_kidney": False})
    config.save(folder / "config.json")
    for fold, loss in enumerate(losses):
        if loss is not None:
            finish(run.model_folder(("tunet", fold)), loss)
    return run


def test_one_far_above_the_others_is_named(tmp_path):
    run = run_of(tmp_path, [GOOD, GOOD - 0.1, BAD, GOOD + 0.1, GOOD])
    assert list(outliers(run)) == [("tunet", 2)]
    assert "is -1.00, that of the other folds -1.30" in outliers(run)["tunet", 2]
    assert to_repeat(run) == [("tunet", 2)]


@pytest.mark.parametrize(
    "losses",
    [
        [GOOD, GOOD, GOOD + 0.24, GOOD],
        [GOOD, GOOD, BAD],  # two others say little
        [GOOD, GOOD, BAD, None, None],
        [GOOD, GOOD, GOOD, GOOD - 1],  # far better is no failure
    ],
)
def test_no_other_is(tmp_path, losses):
    assert outliers(run_of(tmp_path, losses)) == {}


def test_weights_without_their_history_are_told(tmp_path):
    run = run_of(tmp_path, [GOOD, GOOD, GOOD])
    history = run.model_folder(("tunet", 1)).history_path
    history.write_text(history.read_text("utf-8").splitlines()[0] + "\n", "utf-8")
    with pytest.raises(DataError, match=r"history\.csv: is missing or empty"):
        outliers(run)
    history.unlink()
    with pytest.raises(DataError, match=r"history\.csv: is missing or empty"):
        outliers(run)


def test_networks_are_not_compared_with_one_another(tmp_path):
    run = run_of(tmp_path, [GOOD] * 5)
    for fold in range(5):
        finish(run.model_folder(("lnet", fold)), -0.8)
    assert outliers(run) == {}


def test_nothing_is_repeated_for_its_score(tmp_path):
    run = run_of(tmp_path, [GOOD, GOOD, BAD, GOOD, GOOD], inner_validation=False)
    assert list(outliers(run)) == [("tunet", 2)]
    assert to_repeat(run) == []


def test_an_outlier_is_repeated_once_and_then_only_named(tmp_path):
    run = run_of(tmp_path, [GOOD, GOOD, BAD, GOOD, GOOD])
    folder = run.model_folder(("tunet", 2))
    folder.checkpoint.touch()  # a kill came between the weights and its end
    start_anew(run, ("tunet", 2))
    assert not folder.is_trained
    assert not folder.checkpoint.exists()
    assert folder.attempt == 2
    finish(folder, BAD + 0.01)
    assert list(outliers(run)) == [("tunet", 2)]
    assert to_repeat(run) == []


def test_a_kill_between_the_two_files_leaves_it_to_be_repeated(tmp_path):
    run = run_of(tmp_path, [GOOD, GOOD, BAD, GOOD, GOOD])
    run.model_folder(("tunet", 2)).keep_first_history()
    assert to_repeat(run) == [("tunet", 2)]


def test_the_second_attempt_has_another_seed_and_the_same_rule(tmp_path):
    cases = write_cases(tmp_path, 3)
    split, config = Split(0, cases[1:], cases[:1]), tiny_config(epochs=1)
    weights = {}
    for name in ("first", "same", "again"):
        folder = tmp_path / name
        if name == "again":
            finish(Run(tmp_path, config, tmp_path, []).model_folder(("x", 0)), BAD)
            history = tmp_path / "models" / "fold_0" / "x" / "history.csv"
            folder.mkdir()
            history.rename(folder / "first_history.csv")
        train(VARIANTS["lnet"], config, split, folder=folder)
        weights[name] = Model.load(folder).network.get_weights()
    equal = [np.array_equal(*pair) for pair in zip(weights["first"], weights["same"], strict=True)]
    assert all(equal)
    pairs = zip(weights["first"], weights["again"], strict=True)
    assert not all(np.array_equal(*pair) for pair in pairs)


def test_the_command_trains_an_outlier_again_and_says_so(tmp_path, monkeypatch, capsys):
    run = run_of(tmp_path, [GOOD, GOOD, BAD, GOOD, GOOD])
    asked = []

    def train_tasks(run, tasks, jobs, on_poll):
        asked.append(list(tasks))
        for task in tasks:
            if not run.model_folder(task).is_trained:
                finish(run.model_folder(task), GOOD)
        return {}

    monkeypatch.setattr(jobs, "train_tasks", train_tasks)
    assert steps.train(run.folder, ["tunet"], None, jobs=1) == {}
    assert asked == [run.tasks(["tunet"]), [("tunet", 2)]]
    assert "tunet, fold 2: went wrong, and was trained again" in capsys.readouterr().out
    assert outliers(run) == {}


def test_a_task_of_an_array_is_done_anew_and_status_says_which(tmp_path, monkeypatch, capsys):
    run = run_of(tmp_path, [GOOD, GOOD, BAD, GOOD, GOOD])
    number = run.tasks().index(("tunet", 2))
    steps.status(run.folder, ["tunet"], None)
    shown = capsys.readouterr()
    assert f"--array={number}" in shown.out
    assert f"{number}: went wrong: its best validation loss" in shown.out + shown.err
    trained = []

    def train_task(run, task):
        trained.append(run.model_folder(task).is_trained)
        finish(run.model_folder(task), GOOD)

    monkeypatch.setattr("tunet_lib.worker.train_task", train_task)
    monkeypatch.setattr(steps, "thread_limits", lambda processors: {})
    steps.train_here(run.folder, None, None, number=number)
    steps.train_here(run.folder, None, None, number=number - 1)
    assert trained == [False, False]
    assert run.model_folder(("tunet", 2)).attempt == 2


def test_one_history_that_is_gone_stops_no_other_training(tmp_path, monkeypatch, capsys):
    run = run_of(tmp_path, [GOOD] * 5)
    run.model_folder(("tunet", 1)).history_path.unlink()
    trained = []
    monkeypatch.setattr("tunet_lib.worker.train_task", lambda run, task: trained.append(task))
    monkeypatch.setattr(steps, "thread_limits", lambda processors: {})
    steps.train_here(run.folder, None, None, number=0)
    assert trained == [run.tasks()[0]]
    failed = {("lnet", 0): "GPU fell out of the rack"}
    monkeypatch.setattr(jobs, "train_tasks", lambda run, tasks, *_, **__: failed if tasks else {})
    assert steps.train(run.folder, None, None, jobs=1) == {"lnet, fold 0": failed["lnet", 0]}
    shown = capsys.readouterr()
    assert "history.csv: is missing" in shown.out + shown.err


def test_one_after_the_other_a_failure_stops_nothing_and_an_outlier_is_repeated(
    tmp_path, monkeypatch
):
    run = run_of(tmp_path, [GOOD, None, None, GOOD, GOOD])
    trained = []

    def train_task(run, task):
        trained.append(task)
        if task == ("tunet", 1):
            raise DataError("its checkpoint is damaged")
        folder = run.model_folder(task)
        if not folder.is_trained:
            finish(folder, BAD if folder.attempt == 1 else GOOD)

    monkeypatch.setattr("tunet_lib.worker.train_task", train_task)
    monkeypatch.setattr(steps, "thread_limits", lambda processors: {})
    failures = steps.train_here(run.folder, ["tunet"], None)
    assert failures == {"tunet, fold 1": "its checkpoint is damaged"}
    assert trained == [*(("tunet", fold) for fold in range(5)), ("tunet", 2)]
    assert run.model_folder(("tunet", 2)).attempt == 2


def test_a_repeat_that_fails_is_not_said_to_be_done(tmp_path, monkeypatch, capsys):
    run = run_of(tmp_path, [GOOD, GOOD, BAD, GOOD, GOOD])

    def train_tasks(run, tasks, *_, **__):
        return {task: "out of memory" for task in tasks if not run.model_folder(task).is_trained}

    monkeypatch.setattr(jobs, "train_tasks", train_tasks)
    assert "tunet, fold 2" in steps.train(run.folder, ["tunet"], None, jobs=1)
    assert "was trained again" not in capsys.readouterr().out


def test_the_epochs_of_a_first_attempt_are_not_those_of_the_second(tmp_path):
    run = run_of(tmp_path, [GOOD, GOOD, BAD, GOOD, GOOD])
    folder = run.model_folder(("tunet", 2))
    assert len(folder.epochs_done()) == 2
    start_anew(run, ("tunet", 2))
    assert folder.epochs_done() == []
    finish(folder, GOOD)
    assert len(folder.epochs_done()) == 2
