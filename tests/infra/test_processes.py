"""Work in several processes: the same results as in one, and an error ends it."""

from __future__ import annotations

import os

import pytest

from infra.processes import in_processes


def begin() -> int:
    return 10


def work(given: int, item: int) -> tuple[int, int]:
    if item == 13:
        raise ValueError("unlucky")
    return given * item, os.getpid()


@pytest.mark.parametrize("cores", [1, 3])
def test_every_item_once_with_what_was_made_of_it(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    made = list(in_processes(begin, work, [1, 2, 3, 4]))
    assert sorted((item, value) for item, (value, _) in made) == [(1, 10), (2, 20), (3, 30), (4, 40)]
    assert (os.getpid() in {pid for _, (_, pid) in made}) == (cores == 1)


@pytest.mark.parametrize("cores", [1, 2])
def test_an_error_of_the_work_is_raised(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    with pytest.raises(ValueError, match="unlucky"):
        list(in_processes(begin, work, [13, 1]))


def test_one_item_needs_no_other_process_and_none_needs_nothing() -> None:
    ((_, (_, pid)),) = in_processes(begin, work, [2])
    assert pid == os.getpid()
    assert list(in_processes(lambda: pytest.fail("begun for nothing"), work, [])) == []
