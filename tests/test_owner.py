"""Whoever starts a training last owns its folder; whoever was there before saves nothing more."""

import json
import re
import signal
import threading
import time

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

from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError
from tunet_lib.owner import OWNER_NAME, read_owner, take_over
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
