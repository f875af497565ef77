import os
import signal
import subprocess
import sys
import time

import pytest

from tunet_lib.files import DataError
from tunet_lib.parallel import each


def square_or_fail(number):
    if number == 3:
        raise DataError("three")
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory runs out
    return number * number, os.getpid()


def collect(items, workers):
    good, bad = {}, {}
    for item, result in each(square_or_fail, items, workers):
        try:
            good[item] = result()
        except DataError as error:
            bad[item] = str(error)
    return good, bad


def test_in_this_process():
    good, bad = collect([1, 2, 3, 4], workers=1)
    assert good == {n: (n * n, os.getpid()) for n in (1, 2, 4)}
    assert bad == {3: "three"}


@pytest.mark.slow
def test_a_killed_process_takes_no_other_item_with_it():
    good, bad = collect(range(9), workers=2)
    assert {n: value for n, (value, _) in good.items()} == {
        n: n * n for n in range(9) if n not in (3, 5)
    }
    assert os.getpid() not in {pid for _, pid in good.values()}
    assert bad == {3: "three", 5: "its process was killed; was there enough memory?"}
    # Two workers, and one in the place of the killed.
    assert len({pid for _, pid in good.values()}) <= 3


def append_and_wait(job):
    folder, number = job
    with (folder / f"{number}").open("a") as stream:
        stream.write("done\n")
    time.sleep(0.3)
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_what_is_under_way_beside_a_killed_process_is_done_once(tmp_path):
    killed = []
    for (_, number), result in each(append_and_wait, [(tmp_path, n) for n in range(4)], 2):
        try:
            assert result() == number
        except DataError:
            killed.append(number)
    assert killed == [1]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys("0123", "done\n")


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [1, 9])
def test_nothing_is_left_running_or_said_at_the_end(wanted):
    """python/cpython#125492, #83279: "Bad file descriptor" when all was done."""
    code = f"""
import itertools, math, multiprocessing
from tunet_lib.parallel import each
results = each(math.sqrt, range(9), workers=2)
assert len([result() for _, result in itertools.islice(results, {wanted})]) == {wanted}
results.close()
assert not multiprocessing.active_children()
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_without_shared_memory_all_is_done_in_this_process(monkeypatch):
    """ya-runtime-vm#71, apptainer/apptainer#875: no usable /dev/shm."""

    def refuse(*_):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("_multiprocessing.SemLock", refuse)
    good, bad = collect([1, 2, 3, 4], workers=2)
    assert {pid for _, pid in good.values()} == {os.getpid()}
    assert bad == {3: "three"}


@pytest.mark.parametrize("workers", [1, 2])
def test_no_items_no_results(workers):
    assert list(each(square_or_fail, [], workers=workers)) == []


def test_in_this_process_nothing_is_done_before_its_result_is_asked_for():
    done = []
    results = each(done.append, [1, 2])
    _, result = next(results)
    assert done == []
    result()
    assert done == [1]


WAITING = """
import signal, sys, time
from tunet_lib.parallel import each

if __name__ == "__main__":
    signal.signal(signal.SIGINT, getattr(signal, sys.argv[1]))
    print("ready", flush=True)
    try:
        for _, result in each(time.sleep, [float(sys.argv[2])] * 3, 2):
            result()
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


def waiting(folder, handler, time_s):
    script = folder / "waiting.py"
    script.write_text(WAITING)
    run = subprocess.Popen(
        [sys.executable, str(script), handler, str(time_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert run.stdout.readline() == b"ready\n"
    return run


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signals to a group")
@pytest.mark.parametrize("after_s", [0.1, 0.5, 3])
def test_ctrl_c_ends_all_processes_at_once_and_one_speaks(tmp_path, after_s):
    run = waiting(tmp_path, "default_int_handler", 60)
    time.sleep(after_s)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    assert run.communicate(timeout=30)[0] == b"stopped\n"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signals to a group")
def test_where_ctrl_c_is_ignored_no_process_ends_by_it(tmp_path):
    """In the background of a script, or under nohup."""
    run = waiting(tmp_path, "SIG_IGN", 4)
    time.sleep(3)
    os.killpg(run.pid, signal.SIGINT)
    assert run.communicate(timeout=60)[0] == b""
    assert run.returncode == 0
