"""Work in several processes of this machine: one piece of work each at a time, results as they come."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

from infra import quiet

Given = TypeVar("Given")
Item = TypeVar("Item")
Made = TypeVar("Made")


def in_processes(
    begin: Callable[[], Given], work: Callable[[Given, Item], Made], items: Sequence[Item]
) -> Iterator[tuple[Item, Made]]:
    """Each item with what `work` made of it, in the order in which they are finished.

    As many processes as this one may use cores (`taskset` limits it); with one core or one item, this process. What is made must
    not depend on which: `work` sets the number of threads that its arithmetic depends on.

    Args:
        begin: called once in each process; what it gives is handed to every piece of work there.
        work: a function of a module, as `begin` and the items are pickled.
        items: the work.

    Raises:
        Whatever `work` raises; what has not begun is then left undone.
    """
    if not items:
        return
    workers = min(len(os.sched_getaffinity(0)), len(items))
    if workers == 1:
        given = begin()
        for item in items:
            yield item, work(given, item)
        return
    # spawned, not forked: a fork of a process with threads (Prefect's, torch's) can deadlock
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _begin, (begin,)) as pool:
        under_way = {pool.submit(_work, work, item): item for item in items}
        try:
            for future in as_completed(under_way):
                yield under_way[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_given: Any = None


def _begin(begin: Callable[[], Any]) -> None:
    """In a worker, once."""
    global _given  # noqa: PLW0603 - what a worker works on
    quiet.apply()
    _given = begin()


def _work(work: Callable[[Any, Any], Made], item: Any) -> Made:
    return work(_given, item)
