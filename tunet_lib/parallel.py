"""One function over many cases, in several processes, whatever happens to one of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
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
        Of one argument; with several workers, importable by another process.
    items
        What to call it on.
    workers
        Processes; each has one item in memory.

    Yields
    ------
    item, result
        As they are finished. ``result()`` gives what the function gave, or raises what it
        raised; a `DataError` if its process was killed, which happens where memory runs out.
        Items that were under way beside it are done again, one at a time.
    """
    if workers <= 1:
        for item in items:
            yield item, lambda item=item: function(item)  # type: ignore[misc]
        return
    hit: list[Item] = []
    with _pool(workers) as pool:
        futures = {pool.submit(function, item): item for item in items}
        for future in as_completed(futures):
            if isinstance(future.exception(), BrokenExecutor):
                hit.append(futures[future])
            else:
                yield futures[future], future.result
    for item in hit:
        yield item, lambda item=item: _alone(function, item)  # type: ignore[misc]


def _alone(function: Callable[[Item], Result], item: Item) -> Result:
    try:
        with _pool(1) as pool:
            return pool.submit(function, item).result()
    except BrokenExecutor as error:
        raise DataError("its process was killed; was there enough memory?") from error


def _pool(workers: int) -> ProcessPoolExecutor:
    # Threads of a parent that has loaded TensorFlow do not survive a fork.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
