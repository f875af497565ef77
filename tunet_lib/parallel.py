"""One function over many cases, in several processes, whatever happens to one of them.

A killed process breaks the pool that it belongs to, in concurrent.futures and in joblib alike,
and one of pebble's may leave the others waiting for a lock that it held. So each process is a
pool of its own, and shares nothing with another.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from tunet_lib.files import DataError, DataWarning, notes_taken
from tunet_lib.process import end_with_parent, hold_interrupts

Item = TypeVar("Item")
Result = TypeVar("Result")


class KilledError(DataError):
    """A process was killed, as happens where memory runs out; its item may be fine."""


def each(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1
) -> Iterator[tuple[Item, Callable[[], Result]]]:
    """Call a function on each item, in this process or in several.

    Parameters
    ----------
    function
        Of one argument; with several workers, importable by another process. A script that
        is run as such must then guard its own code by ``if __name__ == "__main__":``.
    items
        What to call it on.
    workers
        Processes; each has one item in memory. Where the system gives processes nothing to
        share (no ``/dev/shm``), or would load the user's ``random.py`` for Python's, all is done
        in this one.

    Yields
    ------
    item, result
        As they are finished. ``result()`` gives what the function gave, or raises what it
        raised; a `KilledError` if its process was killed.
        No other item notices. What the function warned of elsewhere is warned of here as well.
    """
    try:
        several = workers > 1 and not _is_shadowed()
        pools = [_one_process() for _ in range(workers)] if several else []
    except (OSError, NotImplementedError):
        pools = []
    if pools:
        yield from _in_processes(function, items, pools)
        return
    for item in items:
        yield item, lambda item=item: function(item)  # type: ignore[misc]


def _in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], pools: list[ProcessPoolExecutor]
) -> Iterator[tuple[Item, Callable[[], Result]]]:
    idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
    for pool in pools:
        idle.put(pool)

    def call(item: Item) -> tuple[Result, list[str]]:
        pool = idle.get()
        try:
            return pool.submit(_call, function, item).result()
        except BrokenExecutor as error:
            pool.shutdown()
            pool = _one_process()
            raise KilledError("its process was killed; was there enough memory?") from error
        finally:
            idle.put(pool)

    threads = ThreadPoolExecutor(len(pools), initializer=hold_interrupts)
    others = {child.pid for child in multiprocessing.active_children()}
    try:
        futures = {threads.submit(call, item): item for item in items}
        for future in as_completed(futures):
            yield futures.pop(future), functools.partial(_result, future)
    except KeyboardInterrupt:
        threads.shutdown(wait=False, cancel_futures=True)
        # A process that was not there yet has heard of nothing.
        while not all(future.done() for future in futures):
            for child in multiprocessing.active_children():
                if child.pid not in others:
                    child.terminate()
            time.sleep(0.05)
        raise
    finally:  # also if whoever asked for the items wants no more
        threads.shutdown(cancel_futures=True)
        while not idle.empty():
            idle.get().shutdown()


def _call(function: Callable[[Item], Result], item: Item) -> tuple[Result, list[str]]:
    with notes_taken() as notes:
        result = function(item)
    return result, notes


def _result(future: Future[tuple[Result, list[str]]]) -> Result:
    result, notes = future.result()
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    return result


def _is_shadowed() -> bool:
    """Say whether a new process would load a file of the working folder in place of Python's own.

    Before Python 3.11, and there unless PYTHONSAFEPATH is set, it looks there first.

    Warns
    -----
    DataWarning
        It would, and which file.
    """
    if sys.version_info >= (3, 11) and os.environ.get("PYTHONSAFEPATH"):
        return False
    here = Path()
    found = {path.stem: path for path in here.glob("*.py")}
    found |= {path.parent.name: path.parent for path in here.glob("*/__init__.py")}
    shadowing = sorted(str(found[name]) for name in found.keys() & sys.stdlib_module_names)
    if shadowing:
        warnings.warn(
            f"{', '.join(shadowing)} in the working folder would be taken for a module of Python; "
            "all is done in one process",
            DataWarning,
            stacklevel=3,
        )
    return bool(shadowing)


def _one_process() -> ProcessPoolExecutor:
    # Threads of a parent that has loaded TensorFlow do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent)
