"""A stage as a Prefect task: what its key holds, that Prefect's cache never outlives the store, what is tried again.

Against a real Prefect server and a real store, both for this file alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infra.servers import prefect_server
from infra.settings import Settings, load_settings
from infra.stages import StageResult, lookup, resolve
from models.errors import AudioError, CryfedError
from tasks.runtime import Runtime, open_runtime
from tasks.stage import Job, StageTask, stage

CODE = ("infra.digest",)
PARENT = f"stage:corpus/{'1' * 64}#{'2' * 64}"

calls: list[str] = []


@stage("test-write", code=CODE, retries=1)
def write(job: Job) -> StageResult:
    """Write one file."""
    calls.append(job.config["text"])
    (job.out / "result.txt").write_text(job.config["text"])
    return StageResult(values={"length": len(job.config["text"])})


@stage("test-read", code=CODE)
def read(job: Job) -> StageResult:
    """Read what another stage wrote."""
    text = job.file("written", "result.txt").read_text()
    return StageResult(values={"read": text, "seed": job.seed})


@stage("test-fail", code=CODE, retries=1)
def fail(job: Job) -> StageResult:
    """Fail in one way or another."""
    calls.append(job.config["how"])
    if job.config["how"] == "once" and calls.count("once") == 2:
        return StageResult()
    raise (AudioError if job.config["how"] == "verdict" else RuntimeError)("a.wav: truncated")


def test_a_key_holds_what_goes_in_and_not_where_it_lies() -> None:
    key = write.key(config={"text": "a"}, parents={"corpus": PARENT}, seed=1).digest
    assert write.key(config={"text": "a"}, parents={"corpus": PARENT}, seed=1).digest == key
    moved = PARENT.replace("1" * 64, "3" * 64)  # computed under another key to the same bytes
    assert write.key(config={"text": "a"}, parents={"corpus": moved}, seed=1).digest == key
    other = PARENT.replace("2" * 64, "3" * 64)
    for changed in (
        write.key(config={"text": "b"}, parents={"corpus": PARENT}, seed=1),
        write.key(config={"text": "a"}, parents={"corpus": other}, seed=1),
        write.key(config={"text": "a"}, parents={"table": PARENT}, seed=1),
        write.key(config={"text": "a"}, parents={"corpus": PARENT}, seed=2),
        read.key(config={"text": "a"}, parents={"corpus": PARENT}, seed=1),
    ):
        assert changed.digest != key


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server for this file; this process is its client whatever it was before."""
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
        temporary_settings,
    )

    with prefect_server.session(tmp_path_factory.mktemp("prefect")) as server:
        own = {
            PREFECT_API_URL: server.api_url,
            PREFECT_API_AUTH_STRING: server.auth,
            PREFECT_HOME: str(server.home),
            PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
        }
        with temporary_settings(own):
            yield


@pytest.fixture(scope="module")
def shared(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("work")
    with open_runtime(Settings(work_dir=folder, runs_dir=folder / "runs")) as rt:
        yield rt


@pytest.fixture
def rt(shared: Runtime) -> Runtime:
    calls.clear()
    return shared


@pytest.mark.slow
def test_it_computes_once_and_is_taken_from_the_store_then(rt: Runtime) -> None:
    uri = write(config={"text": "once"}, local={"where": "/a"})
    assert write(config={"text": "once"}, local={"where": "/b"}) == uri
    assert calls == ["once"]
    assert resolve(rt.content, uri).values == {"length": 4}
    again = read(config={}, parents={"written": uri}, seed=5)
    assert resolve(rt.content, again).values == {"read": "once", "seed": 5}


@pytest.mark.slow
def test_prefects_cache_does_not_outlive_the_record(rt: Runtime) -> None:
    uri = write(config={"text": "lost"})
    key = write.key(config={"text": "lost"}, parents={}).digest
    rt.store._minio.remove_object(rt.store.bucket, f"stages/test-write/{key}.json")
    assert lookup(rt.content, "test-write", key) is None
    assert write(config={"text": "lost"}) == uri
    assert calls == ["lost", "lost"]
    assert lookup(rt.content, "test-write", key) is not None


@pytest.mark.slow
@pytest.mark.parametrize(("how", "error", "tried"), [("verdict", AudioError, 1), ("always", RuntimeError, 2)])
def test_our_own_errors_are_verdicts_and_others_are_tried_again(
    rt: Runtime, how: str, error: type[Exception], tried: int
) -> None:
    with pytest.raises(error, match=r"^a\.wav: truncated$"):
        fail(config={"how": how})
    assert calls == [how] * tried
    assert lookup(rt.content, "test-fail", fail.key(config={"how": how}, parents={}).digest) is None


@pytest.mark.slow
def test_a_passing_trouble_is_survived(rt: Runtime) -> None:
    fail(config={"how": "once"})
    assert calls == ["once", "once"]


@pytest.mark.slow
def test_code_that_changes_under_a_running_flow_is_refused(
    rt: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    key_of = StageTask.key

    def edited(self: StageTask, **inputs: object) -> object:
        asked.append(1)
        return key_of(self, **{**inputs, "seed": len(asked)})  # as if another edit had come before every look

    monkeypatch.setattr(StageTask, "key", edited)
    with pytest.raises(CryfedError, match="code of stage test-write changed while the flow ran"):
        write(config={"text": "edited"})
    assert calls == []


def test_a_task_outside_of_a_runtime_says_what_is_missing() -> None:
    from tasks import runtime

    with ExitStack() as stack:
        if runtime._current is not None:
            stack.enter_context(pytest.MonkeyPatch.context()).setattr(runtime, "_current", None)
        with pytest.raises(RuntimeError, match="inside `open_runtime"):
            runtime.runtime()


def test_the_runtime_is_one_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import runtime

    outer = object()
    monkeypatch.setattr(runtime, "_current", outer)
    with open_runtime(load_settings()) as inner:
        assert inner is outer
    assert runtime._current is outer
