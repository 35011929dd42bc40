"""The journal goes on where it stopped, and says so where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infra.federation.journal import Journal
from models.errors import FederationError, IntegrityError, OutputError

JOB = "a" * 64


def _fill(folder: Path, rounds: int) -> None:
    with Journal(folder, JOB) as journal:
        for number in range(len(journal.closed) + 1, rounds + 1):
            journal.append(number, "open", attempt=0, epoch=0, sites=["ward1"])
            journal.close_round(
                number, {"theta": np.full(3, number, np.float32)}, {"round": number}, {"seconds": 0.5}
            )


def test_resumes_after_the_last_closed_round(tmp_path: Path) -> None:
    _fill(tmp_path, 4)
    with Journal(tmp_path, JOB) as journal:
        assert [c.round for c in journal.closed] == [1, 2, 3, 4]
        assert journal.closed[-1].record == {"round": 4}
        state = journal.last_state()
        assert state is not None
        np.testing.assert_array_equal(state["theta"], np.full(3, 4, np.float32))
        np.testing.assert_array_equal(journal.state_of(2)["theta"], np.full(3, 2, np.float32))
    assert sorted(p.name for p in tmp_path.glob("state-*")) == [
        "state-000002.safetensors",
        "state-000003.safetensors",
        "state-000004.safetensors",
    ]


def test_an_opened_round_is_not_a_closed_one(tmp_path: Path) -> None:
    _fill(tmp_path, 1)
    with Journal(tmp_path, JOB) as journal:
        assert journal.begun(2).attempts == 0
        journal.append(2, "open", attempt=0, epoch=0, sites=[])
        journal.append(2, "open", attempt=1, epoch=1, sites=[])
    with Journal(tmp_path, JOB) as journal:
        assert [c.round for c in journal.closed] == [1]
        assert (journal.begun(2).attempts, journal.epoch, journal.begun(2).stage) == (2, 1, None)
        assert journal.begun(3).attempts == 0


def test_a_filed_stage_outlives_the_process_until_its_round_is_closed(tmp_path: Path) -> None:
    with Journal(tmp_path, JOB) as journal:
        journal.append(1, "open", attempt=0, epoch=0, sites=[])
        journal.file_stage(1, "shared", b"one", attempt=0)
        journal.file_stage(1, "survivors", b"two", attempt=0, failures={})
    with Journal(tmp_path, JOB) as journal:
        stage = journal.begun(1).stage
        assert stage is not None
        assert (stage["stage"], journal.stage_blob(1)) == ("survivors", b"two")
    (tmp_path / "survivors-000001.bin").write_bytes(b"other")
    with Journal(tmp_path, JOB) as journal:
        with pytest.raises(IntegrityError, match="round 1"):
            journal.stage_blob(1)
        journal.append(1, "open", attempt=1, epoch=0, sites=[])
        assert journal.begun(1).stage is None  # another attempt has stages of its own
    _fill(tmp_path, 1)
    assert list(tmp_path.glob("*.bin")) == []


def test_the_closing_comes_last(tmp_path: Path) -> None:
    _fill(tmp_path, 2)
    with Journal(tmp_path, JOB) as journal:
        assert journal.closing is None
        journal.append(3, "open", attempt=0, epoch=0, sites=[])
        journal.file_stage(3, "shared", b"x", attempt=0)
        journal.close({"validation": None})
    with Journal(tmp_path, JOB) as journal:
        assert journal.closing == {"validation": None}
        assert len(journal.closed) == 2
    assert list(tmp_path.glob("*.bin")) == []


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    _fill(tmp_path, 2)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    _fill(tmp_path, 2)  # round 2 is repeated
    with Journal(tmp_path, JOB) as journal:
        assert [c.round for c in journal.closed] == [1, 2]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_journal_torn_in_its_first_line_starts_over(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b'{"job": "aaa')
    with Journal(tmp_path, JOB) as journal:
        assert journal.closed == ()
        assert journal.last_state() is None
    _fill(tmp_path, 1)


def test_a_damaged_line_names_itself(tmp_path: Path) -> None:
    _fill(tmp_path, 2)
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"{broken\n", *lines[2:]]))
    with pytest.raises(FederationError, match="damaged at line 2"):
        Journal(tmp_path, JOB)
    path.write_bytes(b"".join([lines[0], *lines[3:]]))  # round 1 is gone
    with pytest.raises(FederationError, match="round 2 after 0"):
        Journal(tmp_path, JOB)


def test_another_job_is_refused(tmp_path: Path) -> None:
    _fill(tmp_path, 1)
    with pytest.raises(FederationError, match="rounds of another job"):
        Journal(tmp_path, "b" * 64)
    _fill(tmp_path, 2)  # the refusal left the lock free and the journal whole


@pytest.mark.parametrize("damage", ["flip", "gone"])
def test_an_altered_state_is_refused(tmp_path: Path, damage: str) -> None:
    _fill(tmp_path, 2)
    path = tmp_path / "state-000002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data) if damage == "flip" else path.unlink()
    with Journal(tmp_path, JOB) as journal, pytest.raises(IntegrityError, match="round 2"):
        journal.last_state()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path, JOB), pytest.raises(FederationError, match="another process"):
        Journal(tmp_path, JOB, lock_wait_s=0.05)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="checkpoint folder"):
        Journal(tmp_path / "file" / "checkpoint", JOB)
