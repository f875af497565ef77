import os
import signal

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
    # At most the two that were under way had a process of their own, beside four workers.
    assert len({pid for _, pid in good.values()}) <= 5


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
