"""A site's variate waits for the server's word, outlives its process, and says when it is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.federation.site_state import Pending, SiteState, SiteStore
from models.errors import IntegrityError, OutputError, VariatesOutOfStep

RUN = "a" * 64


def sent(number: int, value: float, state: SiteState) -> SiteState:
    pending = Pending(number, np.full(3, value), np.zeros(4096, np.uint16), np.zeros(20, np.uint32))
    return replace(state, pending=pending)


def test_it_commits_on_the_servers_word_and_not_before() -> None:
    state = sent(1, 1.0, SiteState.initial(3))
    assert state.settle(0, 0, "s").own[0] == 0.0  # round 1 was not counted
    after = state.settle(0, 1, "s")
    assert (after.own[0], after.committed, after.pending) == (1.0, 1, None)
    assert after.settle(0, 1, "s") == after  # the word may come again


def test_an_update_that_was_not_counted_leaves_no_trace() -> None:
    state = sent(1, 1.0, SiteState.initial(3)).settle(0, 1, "s")
    state = sent(2, 2.0, state)
    state = sent(3, 3.0, state.settle(0, 1, "s"))  # round 2 was lost, round 3 replaces it
    assert state.settle(0, 3, "s").own[0] == 3.0


def test_a_lost_variate_is_said() -> None:
    fresh = SiteState.initial(3)
    with pytest.raises(
        VariatesOutOfStep, match="holds its control variate of round 0, the server counted it in round 4"
    ):
        fresh.settle(0, 4, "s")
    state = sent(1, 1.0, fresh).settle(0, 1, "s")
    with pytest.raises(VariatesOutOfStep):  # an old copy of the folder came back
        state.settle(0, 0, "s")
    with pytest.raises(VariatesOutOfStep, match="epoch"):
        replace(state, epoch=2).settle(1, 1, "s")


def test_a_new_epoch_begins_from_zero() -> None:
    state = replace(sent(1, 1.0, SiteState.initial(3)).settle(0, 1, "s"), tallied=4, loss=0.5)
    after = state.settle(1, 0, "s")
    assert (after.epoch, after.own[0], after.committed, after.tallied, after.loss) == (1, 0.0, 0, 4, 0.5)


def test_it_outlives_the_process(tmp_path: Path) -> None:
    store = SiteStore(tmp_path, RUN)
    state = replace(sent(2, 1.5, SiteState.initial(3)), tallied=1, loss=0.25)
    store.save(state)
    again = SiteStore(tmp_path, RUN).load(3)
    assert again.pending is not None
    assert (again.pending.round, again.pending.variate[0], again.loss) == (2, 1.5, 0.25)
    assert np.isnan(again.loss_before)
    assert SiteStore(tmp_path, "b" * 64).load(3).pending is None  # another run begins anew
    assert [p.name for p in store.folder.iterdir()] == ["variates.safetensors"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = SiteStore(tmp_path, RUN)
    store.save(SiteState.initial(3))
    (path,) = store.folder.iterdir()
    with pytest.raises(IntegrityError, match="the network has"):
        store.load(4)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(IntegrityError, match=r"variates\.safetensors"):
        store.load(3)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="site's folder"):
        SiteStore(blocked, RUN).save(SiteState.initial(3))


def test_old_runs_give_way(tmp_path: Path) -> None:
    for k in range(6):
        SiteStore(tmp_path, f"{k}" * 64).save(SiteState.initial(3))
    assert len(list(tmp_path.glob("runs/*/variates.safetensors"))) == 4
    assert (tmp_path / "runs" / ("5" * 16)).is_dir()
