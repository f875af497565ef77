"""A run folder: started, gone on with, and its trainings in processes of their own."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from scans import SPACING_MM, box_scan, scan_config, write_scans

from tunet_lib import runs
from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError, save_json
from tunet_lib.kits19 import save_case
from tunet_lib.runs import epochs_done, open_run, prepare_run, train_task, train_tasks


@pytest.fixture
def data(tmp_path):
    write_scans(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def run(data, tmp_path):
    return prepare_run(data, tmp_path / "run", scan_config())[0]


def test_every_case_is_prepared_and_in_one_fold(data, tmp_path):
    seen = []
    run, failures = prepare_run(data, tmp_path / "run", scan_config(), seen.append)
    assert failures == {}
    assert sorted(seen) == sorted(run.folds[0] + run.folds[1])
    assert [len(fold) for fold in run.folds] == [2, 2]
    assert len(set(seen)) == 4
    assert [case.case_id for case in run.cases()] == sorted(seen)
    assert open_run(tmp_path / "run") == run


def test_starting_again_prepares_nothing_new(run, data):
    before = {p: p.stat().st_mtime_ns for p in run.prepared.rglob("*.npy")}
    again, failures = prepare_run(data, run.folder, run.config)
    assert (again, failures) == (run, {})
    assert {p: p.stat().st_mtime_ns for p in run.prepared.rglob("*.npy")} == before


def test_bad_cases_are_reported_and_the_others_prepared(data, tmp_path):
    image = data / "case_00001" / "imaging.nii.gz"
    image.write_bytes(image.read_bytes()[:-100])
    (data / "case_00002" / "imaging.nii.gz").write_text("<html>not found</html>")
    save_case(data, "case_00008", *box_scan(8), SPACING_MM)
    save_case(data, "case_00009", box_scan(9)[0], None, SPACING_MM)
    run, failures = prepare_run(data, tmp_path / "run", scan_config())
    assert set(failures) == {"case_00001", "case_00002", "case_00009"}
    assert "cut short" in failures["case_00001"]
    assert "web page" in failures["case_00002"]
    assert "segmentation.nii.gz" in failures["case_00009"]
    assert sorted(run.folds[0] + run.folds[1]) == ["case_00000", "case_00003", "case_00008"]
    # What has no label is prepared, but no training may trip over it.
    assert "case_00009" not in [case.case_id for case in run.cases()]


def test_no_good_case_is_an_error_that_says_why(tmp_path):
    (tmp_path / "data" / "case_00000").mkdir(parents=True)
    (tmp_path / "data" / "case_00000" / "imaging.nii.gz").touch()
    with pytest.raises(DataError, match=r"case_00000.*is empty"):
        prepare_run(tmp_path / "data", tmp_path / "run", scan_config())


def test_another_configuration_needs_another_folder(run, data):
    with pytest.raises(DataError, match="epochs differ"):
        prepare_run(data, run.folder, scan_config(epochs=7))


def test_a_wrong_data_folder_leaves_the_run_folder_free(tmp_path, data):
    with pytest.raises(DataError, match="cannot be read"):
        prepare_run(tmp_path / "absent", tmp_path / "run", scan_config(epochs=7))
    prepare_run(data, tmp_path / "run", scan_config())


def test_cases_may_be_added_until_something_is_trained(run, data):
    save_case(data, "case_00004", *box_scan(4), SPACING_MM)
    assert sum(map(len, prepare_run(data, run.folder, run.config)[0].folds)) == 5
    run.model_folder("tunet", 0).mkdir(parents=True)
    save_case(data, "case_00005", *box_scan(5), SPACING_MM)
    with pytest.raises(DataError, match="trained on other cases"):
        prepare_run(data, run.folder, run.config)


def test_models_stay_with_their_data(run, data):
    run.model_folder("tunet", 0).mkdir(parents=True)
    other = data.parent / "other"
    shutil.copytree(data, other)
    save_case(other, "case_00000", *box_scan(9), SPACING_MM)  # another patient, by the same name
    before = {path: path.read_bytes() for path in run.prepared.rglob("*.*")}
    with pytest.raises(DataError, match="under another name"):
        prepare_run(other, run.folder, run.config)
    assert before == {path: path.read_bytes() for path in run.prepared.rglob("*.*")}


def test_opening_what_is_no_run(tmp_path, run):
    with pytest.raises(DataError, match="no run folder"):
        open_run(tmp_path)
    (run.folder / "run.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        open_run(run.folder)


def test_a_prepared_case_that_is_gone_is_named(run):
    shutil.rmtree(run.prepared / "case_00002")
    with pytest.raises(DataError, match="lacks case_00002"):
        run.cases()


def test_tasks(run):
    assert len(run.tasks()) == len(set(run.tasks())) == 2 * len(VARIANTS)
    assert run.tasks(["tunet", "tunet"], [1]) == [("tunet", 1)]
    with pytest.raises(DataError, match="unknown: vnet"):
        run.tasks(["vnet"])
    with pytest.raises(DataError, match="folds 0 to 1, not 2"):
        run.tasks(folds=[2])


def test_a_training_writes_down_what_it_saw(run, monkeypatch):
    calls = []
    fake = type(sys)("tunet_lib.training")
    fake.train = lambda variant, training, validation, *_, **__: calls.append(
        ([c.case_id for c in training], [c.case_id for c in validation])
    )
    monkeypatch.setitem(sys.modules, "tunet_lib.training", fake)
    train_task(run, ("tunet", 0))
    assert calls == [(run.folds[1], run.folds[0])]
    assert run.seen(("tunet", 0)) == run.folds[1]
    save_json(run.folder / "run.json", {"data": str(run.data), "folds": run.folds[::-1]})
    with pytest.raises(DataError, match="trained on other cases"):
        train_task(open_run(run.folder), ("tunet", 0))
    assert len(calls) == 1


def test_a_training_writes_down_the_code_that_it_runs(run, monkeypatch):
    fake = type(sys)("tunet_lib.training")
    fake.train = lambda *_, **__: None
    monkeypatch.setitem(sys.modules, "tunet_lib.training", fake)
    task = ("tunet", 0)
    assert run.trained_with(task) == []
    for commit in "aab":
        state = {"commit": commit, "dirty": False}
        monkeypatch.setattr(runs, "git_state", lambda state=state: state)
        train_task(run, task)  # the second time is as the first, the third goes on with other code
    assert [made["git"]["commit"] for made in run.trained_with(task)] == ["a", "b"]
    assert run.trained_with(task)[0]["versions"]["numpy"] == np.__version__
    (run.model_folder(*task) / "model.weights.h5").touch()
    monkeypatch.setattr(runs, "git_state", lambda: None)
    train_task(run, task)
    assert len(run.trained_with(task)) == 2


@pytest.fixture
def processes(monkeypatch):
    """Let each training be a short script, chosen by its fold."""
    scripts = {}
    started = []

    def start(run, task, threads):
        started.append((task, threads))
        folder = run.model_folder(*task)
        folder.mkdir(parents=True, exist_ok=True)
        code = scripts.get(task[1], "open('model.weights.h5', 'w')")
        with (folder / "training.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code], cwd=folder, stdout=log, stderr=subprocess.STDOUT
            )

    monkeypatch.setattr(runs, "_start_training", start)
    return scripts, started


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('the loss is nan')", "ValueError: the loss is nan"),
        ("print('Error: a.h5: is damaged'); exit(1)", "a.h5: is damaged"),
        ("print('KeyError: x\\n  [[{{node}}]]'); exit(1)", "KeyError: x"),
        ("exit(3)", "ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", f"signal {signal.SIGKILL:d}"),
    ],
)
def test_a_failed_training_is_reported_and_the_others_go_on(run, processes, code, reason):
    processes[0][0] = code
    polled = []
    failures = train_tasks(run, run.tasks(["lnet"]), jobs=2, on_poll=polled.append)
    assert list(failures) == [("lnet", 0)]
    assert reason in failures[("lnet", 0)]
    assert "Traceback" not in failures[("lnet", 0)]
    assert run.trained(("lnet", 1))
    assert polled


def test_complete_trainings_are_not_started_and_the_cores_are_shared(run, processes, monkeypatch):
    monkeypatch.setattr(runs.os, "cpu_count", lambda: 8)
    tasks = run.tasks(["lnet", "tunet"])
    assert train_tasks(run, tasks[:1], jobs=4) == {}
    assert train_tasks(run, tasks, jobs=4) == {}
    assert processes[1] == [(tasks[0], 8), *((task, 2) for task in tasks[1:])]


def test_trainings_end_with_the_one_who_waits_for_them(run, processes):
    processes[0][0] = "import time; time.sleep(60)"

    def interrupt(active):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tasks(run, run.tasks(["lnet"], [0]), on_poll=interrupt)
    assert not run.trained(("lnet", 0))


def test_epochs_are_counted_from_the_log(run):
    assert epochs_done(run, ("tunet", 0)) == 0
    folder = run.model_folder("tunet", 0)
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("epoch,loss\n1,0\n2,0\n")
    assert epochs_done(run, ("tunet", 0)) == 2


def test_a_run_is_plain_json(run):
    values = json.loads((run.folder / "run.json").read_text())
    assert values["folds"] == run.folds
    assert np.isfinite(run.cases()[0].mean_hu)
