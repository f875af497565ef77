"""Where each training stands, as files and Slurm's queue tell."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from scans import scan_config
from typer.testing import CliRunner

from tunet_lib import cli, status, steps
from tunet_lib.config import VARIANTS
from tunet_lib.evaluation import SCORE_FIELDS, SYSTEMS, write_scores
from tunet_lib.files import DataError, load_json, save_json, sha256_of
from tunet_lib.history import write_history
from tunet_lib.owner import OWNER_NAME, take_over
from tunet_lib.runs import Run, Task
from tunet_lib.scoring import systems_of, unscored
from tunet_lib.status import array_of, comment_of, read_queue, standings, untrained
from tunet_lib.worker import train_task

SUBMIT = Path(__file__).parents[1] / "cluster" / "submit"
HDF5 = b"\x89HDF\r\n\x1a\n"


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path, scan_config(epochs=10), Path("data"), [["case_00000"], ["case_00001"]])
    save_json(tmp_path / "run.json", {"data": "data", "folds": run.folds})
    run.config.save(tmp_path / "config.json")
    return run


def begin(run: Run, task: Task, epochs: int, time_s: float = 60.0):
    folder = run.model_folder(task)
    log = {"loss": -0.1, "val_loss": -0.2, "learning_rate": 0.1, "attempts": 1, "time_s": time_s}
    write_history(folder.history_path, [{"epoch": n, **log} for n in range(1, epochs + 1)])
    return folder


def of(run: Run, number: int, queue=None):
    return standings(run, queue=queue)[number]


def test_done_missing_and_stopped(run):
    begin(run, ("lnet", 0), 10).weights.write_bytes(HDF5)
    begin(run, ("unet2d", 0), 4)
    found = standings(run)
    assert [one.number for one in found] == list(range(20))
    assert [one.task for one in found] == run.tasks()
    assert (found[0].state, found[0].epochs) == ("done", 10)
    assert (found[1].state, found[1].epochs, found[1].left_s) == ("missing", 0, None)
    assert (found[2].state, found[2].epochs, found[2].left_s) == ("stopped", 4, 360.0)


def test_running_on_this_machine_until_the_process_is_gone(run):
    folder = begin(run, ("lnet", 1), 4)
    owner = take_over(folder.path)
    one = of(run, 10)
    assert (one.state, one.left_s) == ("running", 360.0)
    assert f"process {os.getpid()} on {owner.process.host}" in one.where
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    change_owner(folder, pid=process.pid)
    assert of(run, 10).state == "stopped"


def change_owner(folder, **changes):
    path = folder.path / OWNER_NAME
    values = load_json(path)
    slurm = {name: changes.pop(name) for name in ("slurm_job",) if name in changes}
    save_json(path, {**values, **slurm, "process": values["process"] | changes})


def test_of_another_machine_the_files_tell(run):
    folder = begin(run, ("lnet", 0), 4)
    take_over(folder.path)
    change_owner(folder, host="elsewhere")
    assert of(run, 0).state == "running"
    age(folder, status.QUIET_S + 60)
    assert of(run, 0).state == "stopped"
    # A slow training is quiet for longer: up to three of its epochs.
    begin(run, ("lnet", 0), 4, time_s=3600.0)
    age(folder, 2 * 3600)
    assert of(run, 0).state == "running"


def test_a_training_that_stands_still_is_told(run):
    folder = begin(run, ("lnet", 0), 4)
    take_over(folder.path)
    assert "saved nothing" not in of(run, 0).where
    age(folder, 3 * 3600)
    one = of(run, 0)
    assert (one.state, one.epochs, one.left_s) == ("running", 4, None)
    assert "and has saved nothing for 180 minutes: it may stand still" in of(run, 0).where
    begin(run, ("lnet", 0), 4, time_s=3 * 3600.0)  # epochs that take as long are no standstill
    age(folder, 3 * 3600)
    assert "saved nothing" not in of(run, 0).where
    folder.history_path.unlink()  # nor is a first epoch, of which nobody knows how long it takes
    assert (of(run, 0).state, of(run, 0).where.endswith("+00:00")) == ("running", True)


def test_of_slurm_s_jobs_only_one_that_has_begun_can_stand_still(run):
    folder = begin(run, ("lnet", 0), 4)
    take_over(folder.path)
    change_owner(folder, host="elsewhere", slurm_job="71")
    age(folder, 3 * 3600)
    rows = (f"{job}|0|RUNNING|n7|{comment_of(run.folder)}" for job in ("71", "72"))
    same, later = (of(run, 0, read_queue(row, run.folder)) for row in rows)
    assert same.where == "n7, job 71, and has saved nothing for 180 minutes: it may stand still"
    assert later.where == "n7, job 72"


def age(folder, seconds):
    for path in folder.path.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_slurm_knows_better_than_files(run):
    folder = begin(run, ("lnet", 0), 4)
    take_over(folder.path)
    change_owner(folder, host="elsewhere", slurm_job="71")
    row = "71|0|RUNNING|n7|another comment"
    assert of(run, 0, read_queue(row, run.folder)).state == "running"
    assert of(run, 0, read_queue("", run.folder)).state == "stopped"


def test_elements_of_an_array_are_told_by_their_comment(run):
    begin(run, ("lnet_median", 0), 4)
    comment = comment_of(run.folder)
    rows = [
        f"71|0|PENDING||{comment}",
        f"72|1|RUNNING|n7|{comment}",
        f"80|1|PENDING||{comment}",  # submitted twice
        f"73|2|RUNNING|n7|{comment}/another",
        f"74|N/A|RUNNING|n7|{comment}",
        "damaged",
    ]
    queue = read_queue("\n".join(rows), run.folder)
    assert queue.running == {"72", "73", "74"}
    found = standings(run, queue=queue)
    assert [one.state for one in found[:4]] == ["queued", "running", "missing", "missing"]
    assert (found[0].where, found[1].where) == ("job 71", "n7, job 72")


def test_the_comment_is_the_one_that_the_script_gives(run):
    comment = re.search(r'--comment="(.*?)"', SUBMIT.read_text("utf-8"))[1]
    assert comment.replace("$run", str(run.folder.resolve())) == comment_of(run.folder)


def break_weights(run, folder):
    folder.weights.write_bytes(b"<html>")


def break_checkpoint(run, folder):
    folder.checkpoint.write_bytes(b"PK")


def break_history(run, folder):
    folder.history_path.write_text("epoch\nsoon\n")


def break_config(run, folder):
    replace(run.config, l2=0.5).save(folder.config_path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (break_weights, "is no weight file; remove"),
        (break_checkpoint, "is no checkpoint; remove it"),
        (break_history, "cannot be read"),
        (break_config, r"another configuration \(l2 differ\)"),
    ],
)
def test_broken_and_why(run, damage, reason):
    damage(run, begin(run, ("lnet", 0), 4))
    one = of(run, 0)
    assert one.state == "broken"
    assert re.search(reason, one.where)
    assert "lnet" in one.where
    printed = CliRunner().invoke(cli.app, ["status", str(run.folder)]).stdout
    assert "To go on, submit again with: --array=1-19" in printed
    assert "First remove what is named beside them, then submit as well: --array=0" in printed
    if damage is not break_history:  # which is written anew from the checkpoint
        with pytest.raises(DataError, match=reason):
            train_task(run, ("lnet", 0))


def test_numbers_as_an_array():
    assert array_of([0]) == "--array=0"
    assert array_of([5, 4, 2, 2, 9, 3]) == "--array=2-5,9"


def test_what_is_not_trained_is_named(run):
    for task in run.tasks():
        begin(run, task, 1).weights.write_bytes(HDF5)
    assert untrained(run) == ""
    for task in (("tunet", 1), ("lnet", 0), ("lnet", 1), ("lnet_median", 0), ("lnet_median", 1)):
        run.model_folder(task).weights.unlink()
    sentence = untrained(run)
    assert sentence.startswith("5 of 20 trainings are not complete: ")
    assert "lnet, lnet_median (fold 0, 1); tunet (fold 1)." in sentence
    assert "--array=0-1,10-11,16" in sentence


def test_the_command_prints_a_line_for_each_and_what_repairs(run, monkeypatch):
    monkeypatch.setattr(status, "slurm_queue", lambda _: None)
    for task in run.tasks():
        begin(run, task, 1).weights.write_bytes(HDF5)
    result = CliRunner().invoke(cli.app, ["status", str(run.folder)])
    assert result.stdout.splitlines()[20:] == ["20 done"]
    begin(run, ("tunet", 0), 3)
    run.model_folder(("tunet", 0)).weights.unlink()
    lines = CliRunner().invoke(cli.app, ["status", str(run.folder)]).stdout.splitlines()
    assert re.fullmatch(r" +6  tunet, fold 0 +stopped +3/10", lines[6])
    assert lines[20:] == ["19 done, 1 stopped", "To go on, submit again with: --array=6"]
    chosen = ["status", str(run.folder), "--variant", "tunet", "--variant", "lnet", "--fold", "0"]
    lines = CliRunner().invoke(cli.app, chosen).stdout.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["0", "6"]
    assert lines[2:] == ["1 done, 1 stopped", "To go on, submit again with: --array=6"]


@pytest.mark.parametrize("verb", ["evaluate", "table"])
def test_a_script_can_notice_that_something_lacks(run, monkeypatch, verb):
    """What is there is scored all the same, and without --complete that is no failure."""
    monkeypatch.setattr("tunet_lib.scoring.evaluate_run", lambda *_, **__: ([], {}))
    rows = [
        {name: 0.5 for name in SCORE_FIELDS} | {"system": system, "case_id": case_id, "fold": fold}
        for fold, case_ids in enumerate(run.folds)
        for case_id in case_ids
        for system in SYSTEMS
    ]
    for task in run.tasks():
        begin(run, task, 1).weights.write_bytes(HDF5)
    write_scores(run.folder / "scores.csv", rows)
    (run.folder / "provenance.json").touch()
    assert CliRunner().invoke(cli.app, [verb, str(run.folder), "--complete"]).exit_code == 0
    run.model_folder(("tunet", 0)).weights.unlink()
    partial = CliRunner().invoke(cli.app, [verb, str(run.folder)])
    assert partial.exit_code == 0
    assert "1 of 20 trainings are not complete: tunet (fold 0)" in partial.stdout
    assert CliRunner().invoke(cli.app, [verb, str(run.folder), "--complete"]).exit_code == 1


def test_scores_of_a_network_that_was_trained_again_since_are_old(run):
    for task in run.tasks():
        begin(run, task, 1).weights.write_bytes(HDF5)
    rows = [
        {name: 0.5 for name in SCORE_FIELDS} | {"system": system, "case_id": case_id, "fold": fold}
        for fold, case_ids in enumerate(run.folds)
        for case_id in case_ids
        for system in SYSTEMS
    ]
    write_scores(run.folder / "scores.csv", rows)
    for fold in (0, 1):
        folders = {name: run.model_folder((name, fold)) for name in VARIANTS}
        digests = {name: sha256_of(folder.weights) for name, folder in folders.items()}
        made_from = {"weights": digests, "cases": {}}
        save_json(run.folder / "scores" / f"fold_{fold}" / "made_from.json", made_from)
    assert unscored(run) == []
    run.model_folder(("tunet", 1)).weights.write_bytes(HDF5 + b"other")
    os.utime(run.model_folder(("tunet", 1)).weights, (0, 0))  # as of a copy that keeps times
    assert unscored(run) == [f"{name}, fold 1" for name in systems_of(VARIANTS) if name in SYSTEMS]


def test_a_table_of_old_scores_says_so(run):
    with pytest.raises(DataError, match="nothing is scored yet; run `tunet evaluate` first"):
        steps.table(run.folder)
    for task in run.tasks():
        begin(run, task, 1).weights.write_bytes(HDF5)
    first = {"system": "tunet", "case_id": run.folds[0][0], "fold": 0}
    write_scores(run.folder / "scores.csv", [{name: 0.5 for name in SCORE_FIELDS} | first])
    printed = CliRunner().invoke(cli.app, ["table", str(run.folder)])
    said = " ".join(printed.output.split())
    assert printed.exit_code == 0
    assert "unet3d, fold 0" in said
    assert "tunet, fold 0" not in said
    assert "ensemble_postprocess, fold 1: trained, and not scored yet; run `tunet evaluate`" in said
    assert CliRunner().invoke(cli.app, ["table", str(run.folder), "--complete"]).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--task", "20"], "has trainings 0 to 19, not 20"),
        (["--task", "0", "--fold", "0"], "leave out --variant and --fold"),
    ],
)
def test_a_number_that_is_none(run, arguments, reason):
    result = CliRunner().invoke(cli.app, ["train", str(run.folder), *arguments])
    assert result.exit_code == 1
    assert reason in str(result.exception)


def test_no_slurm_no_queue(run, monkeypatch):
    monkeypatch.setenv("PATH", str(run.folder))
    assert status.slurm_queue(run) is None
    script = run.folder / "squeue"
    script.write_text(f"#!/bin/sh\necho '5|3|RUNNING|n1|{comment_of(run.folder)}'\n")
    script.chmod(0o755)
    assert status.slurm_queue(run).elements[3].job == "5"
    script.write_bytes(script.read_bytes() + b"echo '6|1|RUNNING|n1|f\xfcr M\xfcller'\n")
    assert status.slurm_queue(run).elements[3].job == "5", "others write what they like"
    script.write_text("#!/bin/sh\nexit 1\n")
    assert status.slurm_queue(run) is None


def test_the_table_of_a_run_that_may_not_be_written_is_printed(run, monkeypatch):
    for task in run.tasks():
        begin(run, task, 1).weights.write_bytes(HDF5)
    first = {"system": "tunet", "case_id": run.folds[0][0], "fold": 0}
    write_scores(run.folder / "scores.csv", [{name: 0.5 for name in SCORE_FIELDS} | first])
    (run.folder / "table_1.csv").mkdir()  # root may write into any folder, but not onto this one
    result = CliRunner().invoke(cli.app, ["table", str(run.folder)])
    assert result.exit_code == 0
    assert "TuNet" in result.output
    assert "table_1.csv: cannot write here" in result.output
