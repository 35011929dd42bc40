"""Announcements: once per manifest, in order, and a malformed one stands in nobody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.store import incoming
from infra.store.client import ObjectStore
from models.errors import StoreError

A, B, C = "a" * 64, "b" * 64, "c" * 64


def test_announced_once_until_its_outcome_is_recorded_once(store: ObjectStore, tmp_path: Path) -> None:
    assert incoming.announce(store, tmp_path / "b.csv", B)
    assert incoming.announce(store, tmp_path / "sub" / ".." / "a.csv", A)
    assert not incoming.announce(store, tmp_path / "elsewhere.csv", A)
    assert [(w.digest, w.manifest, w.fault) for w in incoming.waiting(store)] == [
        (A, tmp_path / "a.csv", ""),
        (B, tmp_path / "b.csv", ""),
    ]
    assert incoming.find_outcome(store, A) is None
    assert incoming.record_outcome(store, f"{A}.json", {"passed": True})
    assert not incoming.record_outcome(store, f"{A}.json", {"passed": False})
    assert incoming.find_outcome(store, A) == {"passed": True}
    assert [w.digest for w in incoming.waiting(store)] == [B]


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("notes.txt", b"hello", "is not a SHA-256 digest"),
        (f"{A}.json", b"\xff\x00", "is not a JSON object"),
        (f"{A}.json", b'["manifest"]', "is not a JSON object"),
        (f"{A}.json", b"{}", "manifest"),
        (f"{A}.json", b'{"manifest": "relative.csv"}', "names no absolute path"),
        (f"{A}.json", b'{"manifest": 7}', "names no absolute path"),
        (f"{A}.json", b'{"manifest": "/a\\u0000b"}', "names no absolute path"),
        (f"{A}.json", b"[" * 10_000, "is not a JSON object"),
        (f"{A}.json", b" " * (incoming.MAX_ANNOUNCEMENT_BYTES + 1), "larger than an announcement"),
    ],
)
def test_malformed_ones_say_why_and_the_others_are_served(
    store: ObjectStore, tmp_path: Path, name: str, data: bytes, fault: str
) -> None:
    store.put(incoming.INCOMING + name, data)
    incoming.announce(store, tmp_path / "c.csv", C)
    found = {w.name: w for w in incoming.waiting(store)}
    assert fault in found[name].fault
    assert (found[f"{C}.json"].digest, found[f"{C}.json"].fault) == (C, "")
    incoming.record_outcome(store, name, {"passed": False, "error": found[name].fault})
    assert [w.digest for w in incoming.waiting(store)] == [C]


def test_what_is_no_digest_cannot_be_announced(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a SHA-256 digest"):
        incoming.announce(store, tmp_path, "../gated/x")
