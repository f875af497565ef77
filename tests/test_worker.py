"""One training of a run, in this process and in one of its own."""

import subprocess
import sys

import numpy as np
import pytest
from scans import scan_config, write_scans

from tunet_lib import model_folder, worker
from tunet_lib.files import DataError, save_json
from tunet_lib.runs import open_run, prepare_run
from tunet_lib.worker import train_task


@pytest.fixture
def run(tmp_path):
    write_scans(tmp_path / "data")
    return prepare_run(tmp_path / "data", tmp_path / "run", scan_config(levels=1, epochs=9))[0]


@pytest.fixture
def fake_training(monkeypatch):
    """Put a function in the place of `training.train`, and of all that it would load."""

    def put(train):
        fake = type(sys)("tunet_lib.training")
        fake.train = train
        monkeypatch.setitem(sys.modules, "tunet_lib.training", fake)

    return put


def test_a_training_writes_down_what_it_saw(run, fake_training):
    calls = []

    def train(variant, config, split, *, folder, on_epoch, workers):
        seen = [[case.case_id for case in part] for part in (split.training, split.validation)]
        calls.append((variant.name, config, split.fold, *seen, folder))

    fake_training(train)
    folder = run.model_folder(("tunet", 0))
    train_task(run, ("tunet", 0))
    assert calls == [("tunet", run.config, 0, run.folds[1], run.folds[0], folder.path)]
    assert folder.seen() == run.folds[1]
    save_json(run.folder / "run.json", {"data": str(run.data), "folds": run.folds[::-1]})
    with pytest.raises(DataError, match="trained on other cases"):
        train_task(open_run(run.folder), ("tunet", 0))
    assert len(calls) == 1


def test_a_gpu_that_slurm_gave_and_that_is_not_there_ends_it_at_once(run, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DataError, match=r"was given a GPU by Slurm on .*TensorFlow sees none"):
        train_task(run, ("tunet", 0))
    assert not run.model_folder(("tunet", 0)).path.exists()


def test_early_stopping_may_look_at_cases_of_its_own(tmp_path, fake_training):
    write_scans(tmp_path / "data", 3)
    config = scan_config(folds=3, inner_validation=True)
    run, _ = prepare_run(tmp_path / "data", tmp_path / "run", config)
    splits = []
    fake_training(lambda variant, config, split, **_: splits.append(split))
    train_task(run, ("lnet", 2))
    watched, trained = sorted(run.folds[0] + run.folds[1])
    assert [case.case_id for case in splits[0].training] == [trained]
    assert [case.case_id for case in splits[0].validation] == [watched]


def test_a_training_writes_down_the_code_that_it_runs(run, monkeypatch, fake_training):
    fake_training(lambda *_, **__: None)
    task = ("tunet", 0)
    folder = run.model_folder(task)
    assert folder.trained_with() == []
    for commit in "aab":
        state = {"commit": commit, "dirty": False}
        monkeypatch.setattr(model_folder, "git_state", lambda state=state: state)
        train_task(run, task)  # the second time is as the first, the third goes on with other code
    assert [made["git"]["commit"] for made in folder.trained_with()] == ["a", "b"]
    assert folder.trained_with()[0]["versions"]["numpy"] == np.__version__
    folder.weights.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr(model_folder, "git_state", lambda: None)
    train_task(run, task)
    assert len(folder.trained_with()) == 2


def work(*arguments):
    code = "import sys; from tunet_lib.worker import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )


def test_bad_data_ends_the_process_with_one_line_and_status_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worker, "end_with", lambda wait: None)
    with pytest.raises(SystemExit) as ended:
        worker.main([str(tmp_path), "tunet", "0"])
    assert str(ended.value.code).startswith(f"Error: {tmp_path}: is no run folder")


@pytest.mark.slow
def test_a_process_whose_parent_is_gone_ends_before_it_trains(run):
    # Nobody holds the other end of its standard input.
    ended = work(run.folder, "unet2d", 0)
    assert ended.returncode == 1
    assert "Error" not in ended.stderr
    assert not run.model_folder(("unet2d", 0)).is_trained
