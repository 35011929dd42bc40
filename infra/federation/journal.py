"""The federation's write-ahead journal: what a killed run needs to go on, and nothing it could mistake for progress.

    checkpoint_dir/
      lock                      one process at a time
      journal.jsonl             one JSON object a line, appended and synced
      state-000004.safetensors  the server's state after round 4 (the last three are kept: a rejected round goes back two)
      survivors-000005.bin      the secure aggregation of a round that is not closed, as of its last filed stage

A round writes `open` before anything is sent, a *filed* stage (`shared`, `survivors`) with its state before the consequences
leave, and `closed` after the server's state is in place. After the last round comes `closing`, what the sites say of the last
θ. A line torn by a crash is dropped; a line whose file does not match its digest is an error, because no crash of ours can
cause it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from infra.digest import digest_bytes
from infra.federation.files import Arrays, decode_arrays, encode_arrays, write_atomic
from models.errors import FederationError, IntegrityError, OutputError

_KEEP_STATES = 3
_LOCK_WAIT_S = 20.0  # an orphan of a killed run notices and leaves well within this


@dataclass(frozen=True)
class ClosedRound:
    """One finished round: its number, its record, and where its state lies."""

    round: int
    state_digest: str
    record: Mapping[str, Any]  # deterministic: part of history.json
    timing: Mapping[str, Any]  # seconds; never part of a digest


@dataclass(frozen=True)
class Begun:
    """What a killed run left of a round that is not closed: attempts so far, epoch of control variates, the filed stage."""

    attempts: int = 0
    epoch: int = 0
    stage: Mapping[str, Any] | None = None


class Journal:
    """Open journal of one job; use as a context manager.

    Raises:
        FederationError: the folder holds another job's journal, is in use, or the journal is damaged in the middle.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, job_digest: str, *, lock_wait_s: float = _LOCK_WAIT_S) -> None:
        self._folder = folder
        self._job = job_digest
        self._closing: Mapping[str, Any] | None = None
        self._nonce = secrets.token_hex(16)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / "lock")
            self._lock.acquire(timeout=lock_wait_s)
        except Timeout:
            raise FederationError(
                f"another process is running the federation of {folder}: wait for it, or stop it and run again"
            ) from None
        except OSError as err:
            raise OutputError(
                f"cannot write the checkpoint folder {folder}: {err.strerror}; choose another"
            ) from None
        try:
            self._closed, self._begun, torn_at = self._read()
            self._file = self._open(torn_at)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    @property
    def run(self) -> str:
        """Name of this run of the job, 64 hex digits: another one wherever the job is federated from the start again."""
        return digest_bytes(f"{self._job}\x1f{self._nonce}".encode())

    @property
    def closed(self) -> tuple[ClosedRound, ...]:
        """Finished rounds, in order."""
        return tuple(self._closed)

    @property
    def epoch(self) -> int:
        """The epoch of control variates that the journal has reached."""
        return max(self._begun.epoch, self._closed[-1].record.get("epoch", 0) if self._closed else 0)

    def begun(self, round_number: int) -> Begun:
        """What is known of a round that is not closed yet."""
        return self._begun if round_number == len(self._closed) + 1 else Begun()

    def append(self, round_number: int, stage: str, **data: Any) -> None:
        """Write one line of a round and sync it, before the stage's effects leave the process."""
        entry = {"round": round_number, "stage": stage, **data}
        self._write(entry)
        self._begun = _after(self._begun, entry)

    def file_stage(self, round_number: int, stage: str, blob: bytes, **data: Any) -> None:
        """File a stage's state, then its line; nothing that follows from it may leave before this returns."""
        write_atomic(self._stage_path(round_number, stage), blob)
        self.append(round_number, stage, blob=digest_bytes(blob), **data)

    def stage_blob(self, round_number: int) -> bytes:
        """The state of the last filed stage, verified.

        Raises:
            IntegrityError: it is missing or altered.
        """
        filed = self.begun(round_number).stage or {}
        path = self._stage_path(round_number, str(filed.get("stage")))
        data = path.read_bytes() if path.is_file() else b""
        if digest_bytes(data) != filed.get("blob"):
            raise IntegrityError(
                f"{path} is not what the journal recorded for round {round_number}: restore it"
            )
        return data

    def close(self, record: Mapping[str, Any]) -> None:
        """Write what the sites say of the last θ: nothing comes after it."""
        number = len(self._closed) + 1
        self.append(number, "closing", record=dict(record))
        self._closing = dict(record)
        self._forget_stages(number)

    @property
    def closing(self) -> Mapping[str, Any] | None:
        """What `close` wrote."""
        return self._closing

    def close_round(
        self, round_number: int, arrays: Arrays, record: Mapping[str, Any], timing: Mapping[str, Any]
    ) -> ClosedRound:
        """File the state, then the `closed` line; prune states that no resume can need."""
        data = encode_arrays(arrays)
        done = ClosedRound(round_number, digest_bytes(data), dict(record), dict(timing))
        write_atomic(self._state_path(round_number), data)
        self.append(round_number, "closed", state=done.state_digest, record=done.record, timing=done.timing)
        self._closed.append(done)
        self._begun = Begun(epoch=int(record.get("epoch", 0)))
        self._forget_stages(round_number)
        for old in self._closed[:-_KEEP_STATES]:
            self._state_path(old.round).unlink(missing_ok=True)
        return done

    def last_state(self) -> Arrays | None:
        """The state after the last closed round, verified, or None before the first; raises as `state_of`."""
        return self.state_of(len(self._closed)) if self._closed else None

    def state_of(self, round_number: int) -> Arrays:
        """The state after one of the last closed rounds, verified.

        Raises:
            IntegrityError: the state file is missing or is not what the journal recorded.
        """
        done, path = self._closed[round_number - 1], self._state_path(round_number)
        data = path.read_bytes() if path.is_file() else b""
        if digest_bytes(data) != done.state_digest:
            raise IntegrityError(
                f"{path} is not the state that the journal recorded for round {done.round}: restore it, or delete "
                f"{self._folder} to federate from the start"
            )
        return decode_arrays(data, str(path))

    def _state_path(self, round_number: int) -> Path:
        return self._folder / f"state-{round_number:06d}.safetensors"

    def _stage_path(self, round_number: int, stage: str) -> Path:
        return self._folder / f"{stage}-{round_number:06d}.bin"

    def _forget_stages(self, round_number: int) -> None:
        for path in self._folder.glob(f"*-{round_number:06d}.bin"):
            path.unlink()

    @property
    def _path(self) -> Path:
        return self._folder / "journal.jsonl"

    def _read(self) -> tuple[list[ClosedRound], Begun, int | None]:
        """Closed rounds, what was begun after them, and the offset of a torn last line."""
        if not self._path.is_file():
            return [], Begun(), None
        raw = self._path.read_bytes()
        end = raw.rfind(b"\n") + 1
        closed: list[ClosedRound] = []
        begun = Begun()
        for number, line in enumerate(raw[:end].splitlines(), start=1):
            try:
                entry = json.loads(line)
                if number == 1:
                    self._check_job(entry["job"])
                    self._nonce = str(entry["nonce"])
                elif entry["stage"] == "closed":
                    done = ClosedRound(entry["round"], entry["state"], entry["record"], entry["timing"])
                    if done.round != len(closed) + 1:
                        raise ValueError(f"round {done.round} after {len(closed)}")
                    closed.append(done)
                    begun = Begun(epoch=int(done.record.get("epoch", 0)))
                elif entry["stage"] == "closing":
                    self._closing = dict(entry["record"])
                else:
                    begun = _after(begun, entry)
            except (ValueError, KeyError, TypeError) as err:
                raise FederationError(
                    f"{self._path} is damaged at line {number} ({err}): delete {self._folder} to federate from the start"
                ) from None
        return closed, begun, end if end < len(raw) else None

    def _check_job(self, found: str) -> None:
        if found != self._job:
            raise FederationError(
                f"{self._folder} holds the rounds of another job ({found[:12]}… instead of {self._job[:12]}…): something "
                "that decides the result has changed; give this job a checkpoint folder of its own"
            )

    def _open(self, torn_at: int | None) -> IO[bytes]:
        try:
            if torn_at is not None:
                os.truncate(self._path, torn_at)
            # one journal stays open for the whole run
            file = self._path.open("ab")
        except OSError as err:
            raise OutputError(
                f"cannot write {self._path}: {err.strerror}; choose another checkpoint folder"
            ) from None
        if file.tell() == 0:
            self._file = file
            self._write({"job": self._job, "nonce": self._nonce})
        return file

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry, sort_keys=True, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _after(begun: Begun, entry: Mapping[str, Any]) -> Begun:
    if entry["stage"] == "open":
        return replace(begun, attempts=int(entry["attempt"]) + 1, epoch=int(entry["epoch"]), stage=None)
    return replace(begun, stage=entry) if "blob" in entry else begun
