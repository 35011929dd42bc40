"""Stages: what is in a key, when a result counts, and what a kill leaves behind."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from infra.stages import StageKey, StageResult, Workspace, digests, lookup, materialise, resolve, run_stage
from infra.store.content import DirectoryContent
from models.errors import StoreError


def key(**changed: Any) -> StageKey:
    parts: dict[str, Any] = {
        "stage": "s",
        "config": {"a": 1},
        "parents": {"p": "0" * 64},
        "seed": 1,
        "code": "c",
    }
    return StageKey(**{**parts, **changed})


def write_text(text: str, calls: list[str] | None = None) -> Any:
    def compute(space: Workspace) -> StageResult:
        if calls is not None:
            calls.append(text)
        (space.out / "result.txt").write_text(text)
        return StageResult(values={"length": len(text)}, info={"note": "not part of the digest"})

    return compute


@pytest.fixture
def content(tmp_path: Path) -> DirectoryContent:
    return DirectoryContent(tmp_path / "content")


@pytest.mark.parametrize(
    "changed",
    [{"stage": "t"}, {"config": {"a": 2}}, {"parents": {"p": "1" * 64}}, {"seed": 2}, {"code": "d"}],
)
def test_everything_that_goes_in_is_in_the_key(changed: dict[str, Any]) -> None:
    assert key(**changed).digest != key().digest


def test_a_second_run_computes_nothing(content: DirectoryContent, tmp_path: Path) -> None:
    calls: list[str] = []
    first = run_stage(content, key(), write_text("x", calls), scratch_root=tmp_path / "scratch")
    second = run_stage(content, key(), write_text("y", calls), scratch_root=tmp_path / "scratch")
    assert calls == ["x"]
    assert (first.digest, first.uri) == (second.digest, second.uri)
    assert second.hit
    assert not list((tmp_path / "scratch").glob("*/"))


def test_equal_bytes_have_equal_digests_whatever_went_in(content: DirectoryContent, tmp_path: Path) -> None:
    one = run_stage(content, key(seed=1), write_text("x"), scratch_root=tmp_path)
    two = run_stage(content, key(seed=2), write_text("x"), scratch_root=tmp_path)
    assert one.digest == two.digest
    assert one.uri != two.uri


def test_a_failed_stage_leaves_no_record_and_starts_from_clean_files(
    content: DirectoryContent, tmp_path: Path
) -> None:
    def fail(space: Workspace) -> StageResult:
        (space.out / "half.txt").write_text("half")
        (space.scratch / "journal").write_text("round 3")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run_stage(content, key(), fail, scratch_root=tmp_path / "scratch")
    assert lookup(content, "s", key().digest) is None

    def resume(space: Workspace) -> StageResult:
        assert (space.scratch / "journal").read_text() == "round 3"
        return write_text("whole")(space)

    made = run_stage(content, key(), resume, scratch_root=tmp_path / "scratch")
    assert set(made.files) == {"result.txt"}


def test_a_stage_that_refuses_its_input_leaves_nothing(content: DirectoryContent, tmp_path: Path) -> None:
    def refuse(space: Workspace) -> StageResult:
        (space.out / "half.txt").write_text("half")
        raise StoreError("not this input")

    with pytest.raises(StoreError, match="not this input"):
        run_stage(content, key(), refuse, scratch_root=tmp_path / "scratch")
    assert not list((tmp_path / "scratch").glob("*/"))


def test_of_two_runners_one_computes(content: DirectoryContent, tmp_path: Path) -> None:
    calls: list[str] = []
    together = threading.Barrier(2)

    def runner() -> None:
        together.wait()
        run_stage(content, key(), write_text("x", calls), scratch_root=tmp_path / "scratch")

    threads = [threading.Thread(target=runner) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["x"]


def test_an_altered_record_is_refused(content: DirectoryContent, tmp_path: Path) -> None:
    run_stage(content, key(), write_text("x"), scratch_root=tmp_path / "scratch")
    (path,) = (content.root / "stages" / "s").glob("*.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "values": {"length": 99}}))
    with pytest.raises(StoreError, match="does not match its own digest"):
        lookup(content, "s", key().digest)


def test_a_uri_finds_its_artifact_and_nothing_else(content: DirectoryContent, tmp_path: Path) -> None:
    made = run_stage(content, key(), write_text("x"), scratch_root=tmp_path / "scratch")
    assert resolve(content, made.uri).files == made.files
    assert digests({"a": made.uri}) == {"a": made.digest}
    for uri, message in (
        ("nonsense", "not a stage URI"),
        (made.uri.replace(made.key, "f" * 64), "not in this store"),
        (made.uri.replace(made.digest, "f" * 64), "recomputed to another result"),
    ):
        with pytest.raises(StoreError, match=message):
            resolve(content, uri)


def test_files_are_copied_out_under_their_names(content: DirectoryContent, tmp_path: Path) -> None:
    made = run_stage(content, key(), write_text("x"), scratch_root=tmp_path / "scratch")
    materialise(content, made, tmp_path / "out")
    assert (tmp_path / "out" / "result.txt").read_text() == "x"
