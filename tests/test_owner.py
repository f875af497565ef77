"""Whoever starts a training last owns its folder; whoever was there before saves nothing more."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_training import (
    KILLED,
    TUNET,
    assert_same_weights,
    epochs_in,
    split_of,
    start,
    weights_in,
    without_time,
)
from tiny import tiny_config, write_cases

from tunet_lib import owner as owner_module
from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError, atomic_path, load_json, save_json
from tunet_lib.owner import OWNER_NAME, read_owner, take_over
from tunet_lib.process import Process
from tunet_lib.training import train


def test_the_one_who_came_last_is_the_owner_and_the_other_says_who_that_is(tmp_path, monkeypatch):
    first = take_over(tmp_path)
    first.check()
    assert read_owner(tmp_path) == first
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    second = take_over(tmp_path)
    second.check()
    message = f"was taken over by {second}; this copy stops"
    with pytest.raises(DataError, match=re.escape(message)):
        first.check()
    for part in (second.process.host, str(second.process.pid), "job 4711", "restart 2"):
        assert part in str(second)
    first.leave()
    assert read_owner(tmp_path) == second
    second.leave()
    assert read_owner(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_where_the_later_one_has_finished_the_earlier_one_stops(tmp_path):
    first = take_over(tmp_path)
    take_over(tmp_path).leave()
    with pytest.raises(DataError, match="finished, or given up, by a later start"):
        first.check()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{" * 10, '{"process": 3, "token": 1}'])
def test_a_damaged_note_is_never_taken_for_ones_own(tmp_path, text):
    owner = take_over(tmp_path)
    (tmp_path / OWNER_NAME).write_text(text)
    with pytest.raises(DataError, match=OWNER_NAME):
        owner.check()
    take_over(tmp_path).check()  # a new start is not kept from it


def test_all_who_start_at_once_but_one_have_lost(tmp_path):
    owners = []
    threads = [
        threading.Thread(target=lambda: owners.append(take_over(tmp_path))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost = 0
    for owner in owners:
        try:
            owner.check()
        except DataError:
            lost += 1
    assert (len(owners), lost) == (8, 7)
    assert json.loads((tmp_path / OWNER_NAME).read_text())["token"] in {o.token for o in owners}


def save_guarded(path, value, owner):
    with atomic_path(path, before=owner.check) as temporary:
        temporary.write_text(json.dumps(value))


@pytest.mark.parametrize("host", ["this one", "another"])
def test_no_moment_is_left_between_the_look_and_the_save(tmp_path, monkeypatch, host):
    """The first has looked and is about to rename when the second takes over, and finishes."""
    if host == "another":
        monkeypatch.setattr(owner_module, "this_process", lambda: Process("elsewhere", 5, 7))
    first = take_over(tmp_path)
    save_json(tmp_path / "history.json", "before")
    looks = []

    def look():
        first.check()
        if not looks:
            looks.append(take_over(tmp_path))
            save_guarded(tmp_path / "history.json", "of the second", looks[0])

    with (
        pytest.raises(DataError, match=re.escape(f"taken over by {first.process}")),
        atomic_path(tmp_path / "history.json", before=look) as temporary,
    ):
        temporary.write_text("of the first")
    assert load_json(tmp_path / "history.json") == "of the second"
    looks[0].check()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", OWNER_NAME]


def test_a_file_that_is_taken_away_while_it_is_written(tmp_path):
    first = take_over(tmp_path)

    def save():
        with atomic_path(tmp_path / "weights", before=first.check) as temporary:
            temporary.write_text("half")
            take_over(tmp_path)

    with pytest.raises(DataError, match="taken over by"):
        save()
    assert [path.name for path in tmp_path.iterdir()] == [OWNER_NAME]


# Takes a folder over at a given moment, and saves three files, one after the other.
RACER = """
import json, sys, time
from pathlib import Path
from tunet_lib.files import DataError, atomic_path
from tunet_lib.owner import take_over
folder = Path(sys.argv[1])
for start_s in map(float, sys.argv[2:]):
    while time.time() < start_s:
        pass
    here = folder / str(start_s)
    owner = take_over(here)
    try:
        for saved in range(1, 4):
            with atomic_path(here / "saved.json", before=owner.check) as temporary:
                temporary.write_text(json.dumps([owner.token, saved]))
    except DataError as error:
        assert "taken over by" in str(error), error
"""


def test_processes_that_start_at_the_same_instant(tmp_path):
    """Whoever has its name in the note has saved last, and has saved all."""
    starts = [str(time.time() + 2 + 0.2 * number) for number in range(20)]
    for moment in starts:
        (tmp_path / moment).mkdir()
    command = [sys.executable, "-c", RACER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    racers = [
        subprocess.Popen([*command, *starts], env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for racer in racers:
        _, said = racer.communicate(timeout=60)
        assert racer.returncode == 0, said.decode()
    for moment in starts:
        token = read_owner(tmp_path / moment).token
        assert load_json(tmp_path / moment / "saved.json") == [token, 3]
        assert not list((tmp_path / moment).glob(".tmp-*"))


def test_an_earlier_copy_saves_nothing_after_a_later_start(tmp_path):
    """The old copy is in the midst of an epoch when the new one starts, and ends."""
    cases = write_cases(tmp_path / "prepared", 3)
    config, variant = tiny_config(levels=1, epochs=3), VARIANTS["unet2d"]
    folder = tmp_path / "model"

    def start_again(log):
        if log["epoch"] == 1:
            train(variant, config, split_of(cases), folder=folder)
            files.update({path: path.read_bytes() for path in folder.iterdir()})

    files = {}
    with pytest.raises(DataError, match="by a later start; this copy stops"):
        train(variant, config, split_of(cases), folder=folder, on_epoch=start_again)
    assert {path: path.read_bytes() for path in folder.iterdir()} == files
    straight = train(variant, config, split_of(cases), folder=tmp_path / "straight")
    assert len(straight) == 3
    assert_same_weights(weights_in(folder), weights_in(tmp_path / "straight"))


@pytest.mark.slow
def test_two_starts_of_one_training_at_once_and_the_weights_are_those_of_one(tmp_path):
    cases = write_cases(tmp_path / "prepared", 4)
    folder = tmp_path / "model"
    first = start(folder, tmp_path / "prepared", "from outside")
    try:
        while epochs_in(folder) < 1:
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # a node that seems lost
        second = start(folder, tmp_path / "prepared", "undisturbed")
        while epochs_in(folder) < 3 and second.poll() is None:
            time.sleep(0.01)
        first.send_signal(signal.SIGCONT)  # and comes back
        assert second.wait(300) == 0
        assert first.wait(300) == 1
    finally:
        first.kill()
    straight = train(TUNET, KILLED, split_of(cases, 1), folder=tmp_path / "straight")
    assert_same_weights(weights_in(folder), weights_in(tmp_path / "straight"))
    again = train(TUNET, KILLED, split_of(cases, 1), folder=folder)
    assert without_time(again) == without_time(straight)
    left = [sorted(path.name for path in f.iterdir()) for f in (folder, tmp_path / "straight")]
    assert left[0] == left[1]
