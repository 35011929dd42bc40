"""A Prefect task around a stage: retries, timeout, progress and a cache that the store decides.

    @stage("pretrain", code=("models.pretrain",), timeout_seconds=1800)
    def pretrain(job: Job) -> StageResult: ...

    uri = pretrain(config={...}, parents={"corpus": corpus_uri}, seed=7)

Tasks take and return plain JSON (configuration, URIs); bytes go through the store. The cache key that Prefect sees is the
stage's own key. Prefect's cache is refreshed whenever the store no longer holds the record, so a hit is never a hollow one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State

from infra.stages import (
    Artifact,
    StageKey,
    StageResult,
    Workspace,
    fetch,
    lookup,
    make_key,
    resolve,
    run_stage,
)
from models.errors import CryfedError
from tasks.progress import StageProgress
from tasks.runtime import runtime


@dataclass(frozen=True)
class Job:
    """What a stage's function gets."""

    config: Mapping[str, Any]
    parents: Mapping[str, Artifact]
    seed: int
    space: Workspace
    progress: StageProgress
    local: Mapping[str, Any] = field(default_factory=dict)  # paths and addresses: not part of the key

    @property
    def out(self) -> Path:
        """Folder for the stage's files."""
        return self.space.out

    def file(self, parent: str, name: str) -> Path:
        """Local, verified path of a parent's file; read-only."""
        return fetch(runtime().content, self.parents[parent], name)


Body = Callable[[Job], StageResult]


def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Our own errors are verdicts on the input: trying again would only repeat them."""
    try:
        state.result(raise_on_failure=True)
    except CryfedError:
        return False
    except Exception:
        return True
    return True


class StageTask:
    """A stage as a callable that returns the URI of its artifact."""

    def __init__(
        self,
        body: Body,
        name: str,
        *,
        code: tuple[str, ...],
        retries: int,
        timeout_seconds: float,
        resources: tuple[Path, ...],
    ) -> None:
        self.body, self.name, self.code, self.resources = body, name, code, resources
        self._task: Task[..., str] = Task(
            self._run,
            name=name,
            description=(body.__doc__ or "").strip().splitlines()[0] if body.__doc__ else None,
            task_run_name=name,
            retries=retries,
            retry_delay_seconds=2,
            retry_condition_fn=_worth_retrying,
            timeout_seconds=timeout_seconds,
            persist_result=True,
            result_serializer="json",
            cache_key_fn=lambda _context, arguments: str(arguments["key"]),
        )

    def __call__(
        self,
        *,
        config: Mapping[str, Any],
        parents: Mapping[str, str] | None = None,
        seed: int = 0,
        local: Mapping[str, Any] | None = None,
    ) -> str:
        """Run or reuse the stage.

        Args:
            config: JSON; part of the key.
            parents: name → URI; their output digests are part of the key.
            seed: part of the key.
            local: JSON that says where things are on this machine; not part of the key.
        """
        uris = dict(parents or {})
        key = self.key(config=config, parents=uris, seed=seed)
        rt = runtime()
        hit = lookup(rt.content, self.name, key.digest)
        if hit is not None:
            rt.board.hit(self.name)
        uri: str = self._task.with_options(refresh_cache=hit is None)(
            key=key.digest, config=dict(config), parents=uris, seed=seed, local=dict(local or {})
        )
        return uri

    def key(self, *, config: Mapping[str, Any], parents: Mapping[str, str], seed: int = 0) -> StageKey:
        """The stage's key for these inputs."""
        digests = {name: uri.rsplit("#", 1)[1] for name, uri in parents.items()}
        return make_key(
            self.name, code=self.code, config=config, parents=digests, seed=seed, resources=self.resources
        )

    def _run(
        self, key: str, config: dict[str, Any], parents: dict[str, str], seed: int, local: dict[str, Any]
    ) -> str:
        rt = runtime()
        stage_key = self.key(config=config, parents=parents, seed=seed)
        if stage_key.digest != key:
            raise CryfedError(
                f"the code of stage {self.name} changed while the flow ran: start the flow again"
            )
        resolved = {name: resolve(rt.content, uri) for name, uri in parents.items()}

        def compute(space: Workspace) -> StageResult:
            with StageProgress(rt.board, self.name) as progress:
                result = self.body(Job(config, resolved, seed, space, progress, local))
                progress.update(1.0, str(result.info.get("note", "")))
                return result

        artifact = run_stage(rt.content, stage_key, compute, scratch_root=rt.scratch)
        _describe(artifact)
        return artifact.uri


def _describe(artifact: Artifact) -> None:
    rows = [
        {"what": k, "value": str(v)}
        for k, v in artifact.values.items()
        if isinstance(v, str | int | float | bool)
    ]
    rows.append({"what": "output digest", "value": artifact.digest})
    rows.extend({"what": f"file {name}", "value": digest} for name, digest in artifact.files.items())
    create_table_artifact(
        table=rows, key=artifact.stage, description=f"Stage {artifact.stage}: {artifact.uri}"
    )


def stage(
    name: str,
    *,
    code: tuple[str, ...],
    retries: int = 1,
    timeout_seconds: float = 1800,
    resources: tuple[Path, ...] = (),
) -> Callable[[Body], StageTask]:
    """Make a Prefect task of a stage's function.

    Args:
        code: the modules that compute the stage; their import closure is part of its key.
        resources: other files it reads, such as templates.
    """

    def wrap(body: Body) -> StageTask:
        return StageTask(
            body, name, code=code, retries=retries, timeout_seconds=timeout_seconds, resources=resources
        )

    return wrap
