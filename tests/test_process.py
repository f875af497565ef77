"""Which process lives, and which ends with its parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from tunet_lib import process
from tunet_lib.process import this_process


def test_this_process_lives_and_another_with_its_number_does_not():
    own = this_process()
    assert own.pid == os.getpid()
    assert not own.is_dead()
    assert replace(own, start_s=own.start_s - 100).is_dead()
    assert not replace(own, start_s=own.start_s + 1).is_dead()  # the clock was set


def test_a_process_that_has_ended_is_dead_before_and_after_it_is_waited_for():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    found = replace(
        this_process(), pid=child.pid, start_s=int(psutil.Process(child.pid).create_time())
    )
    assert not found.is_dead()
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert found.is_dead()
    child.wait()
    assert found.is_dead()


def test_of_another_host_nothing_is_known():
    assert not replace(this_process(), host="elsewhere", pid=2**22 + 1).is_dead()


def test_a_container_counts_its_processes_by_itself(monkeypatch):
    monkeypatch.setattr(process.socket, "gethostname", lambda: "no de/1")
    monkeypatch.setattr(process.os, "readlink", lambda _: "pid:[4026531836]")
    assert process._host() == "no_de_1"
    monkeypatch.setattr(process.os, "readlink", lambda _: "pid:[4026532007]")
    assert process._host() == "no_de_1.4026532007"


def wait_and_tell(connection):
    process.end_with_parent()
    connection.send(os.getpid())
    time.sleep(60)


@pytest.mark.slow
def test_a_process_of_a_pool_ends_when_its_parent_alone_is_killed():
    code = """
import multiprocessing, time
from test_process import wait_and_tell
mine, its = multiprocessing.Pipe()
multiprocessing.get_context("spawn").Process(target=wait_and_tell, args=(its,)).start()
print(mine.recv(), flush=True)
time.sleep(60)
"""
    here = os.path.dirname(__file__)
    path = os.pathsep.join([here, os.path.dirname(here)])
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    end_s = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_process_without_such_a_parent_goes_on():
    assert multiprocessing.parent_process() is None
    process.end_with_parent()


def test_a_mac_has_one_name_in_all_networks(monkeypatch):
    monkeypatch.setattr(process.sys, "platform", "darwin")
    monkeypatch.setattr(process.uuid, "getnode", lambda: 0x0A1B2C3D4E5F)
    monkeypatch.setattr(process.os, "readlink", lambda _: "pid:[4026531836]")
    assert process._host() == "mac-0a1b2c3d4e5f"
    monkeypatch.setattr(process.uuid, "getnode", lambda: 1 << 40)  # drawn at random
    monkeypatch.setattr(process.socket, "gethostname", lambda: "laptop")
    assert process._host() == "laptop"
