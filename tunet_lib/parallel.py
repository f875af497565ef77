"""One function over many cases, in several processes, whatever happens to one of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from typing import TypeVar

from tunet_lib.files import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


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
        Processes; each has one item in memory.

    Yields
    ------
    item, result
        As they are finished. ``result()`` gives what the function gave, or raises what it
        raised; a `DataError` if its process was killed, which happens where memory runs out.
        An item that was under way beside it is done again, alone.
    """
    if workers <= 1:
        for item in items:
            yield item, lambda item=item: function(item)  # type: ignore[misc]
        return
    waiting = list(items)
    while waiting:
        hit: list[Item] = []
        yield from _until_one_is_killed(function, waiting, hit, workers)
        for item in hit:
            yield item, lambda item=item: _alone(function, item)  # type: ignore[misc]


def _until_one_is_killed(
    function: Callable[[Item], Result], waiting: list[Item], hit: list[Item], workers: int
) -> Iterator[tuple[Item, Callable[[], Result]]]:
    """Work off `waiting`, never more at a time than there are processes; note who was hit."""
    pool = _pool(workers)
    active: dict[Future[Result], Item] = {}
    try:
        while (waiting and not hit) or active:
            while waiting and not hit and len(active) < workers:
                item = waiting.pop(0)
                try:
                    active[pool.submit(function, item)] = item
                except BrokenExecutor:
                    hit.append(item)
            done: set[Future[Result]] = wait(active, return_when=FIRST_COMPLETED).done
            for future in done:
                item = active.pop(future)
                if isinstance(future.exception(), BrokenExecutor):
                    hit.append(item)
                else:
                    yield item, future.result
    finally:  # also if whoever asked for the items wants no more
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(function: Callable[[Item], Result], item: Item) -> Result:
    try:
        with _pool(1) as pool:
            return pool.submit(function, item).result()
    except BrokenExecutor as error:
        raise DataError("its process was killed; was there enough memory?") from error


def _pool(workers: int) -> ProcessPoolExecutor:
    # Threads of a parent that has loaded TensorFlow do not survive a fork.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
