"""Stages: pure work whose result is filed under what went into it.

A stage's *key* is the digest of its name, configuration, seed, parents' output digests and code. Its *record*, written last,
holds the digests of its files and its small values; a record's existence means that the stage is complete, so a hit costs one
look-up and a killed run leaves nothing that could be mistaken for a result. The *output digest* covers files and values only:
a stage that is recomputed to the same bytes leaves its children valid.

    scratch/<stage>-<key>/out/…     files of the stage, uploaded when it returns
    scratch/<stage>-<key>/…         whatever it wants to find again after a kill (a journal, checkpoints)
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from infra.digest import digest_json
from infra.provenance import code_digest
from infra.store.content import ContentStore
from models.errors import CryfedError, StoreError

SCHEMA = 1


@dataclass(frozen=True)
class StageKey:
    """What goes into a stage; `digest` names it."""

    stage: str
    config: Mapping[str, Any]
    parents: Mapping[str, str]
    seed: int
    code: str

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the result."""
        return digest_json(
            {
                "schema": SCHEMA,
                "stage": self.stage,
                "config": dict(self.config),
                "parents": dict(self.parents),
                "seed": self.seed,
                "code": self.code,
            }
        )


@dataclass(frozen=True)
class Artifact:
    """A completed stage: where it is filed, what it holds."""

    stage: str
    key: str
    digest: str
    files: Mapping[str, str]  # relative name → sha256
    values: Mapping[str, Any]  # small, deterministic, part of the digest
    info: Mapping[str, Any] = field(default_factory=dict)  # times and the like, outside the digest
    hit: bool = False

    @property
    def uri(self) -> str:
        """`stage:<name>/<key>#<output digest>`: enough to find the record and to check it."""
        return f"stage:{self.stage}/{self.key}#{self.digest}"


@dataclass(frozen=True)
class StageResult:
    """What a stage's function returns beside the files it wrote."""

    values: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workspace:
    """Where a running stage writes."""

    out: Path
    scratch: Path


def make_key(
    stage: str,
    *,
    code: tuple[str, ...],
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    seed: int = 0,
    resources: tuple[Path, ...] = (),
) -> StageKey:
    """Key of a stage; `parents` are output digests, `code` the modules that compute it."""
    return StageKey(stage, config, parents, seed, code_digest(code, resources))


def lookup(content: ContentStore, stage: str, key: str) -> Artifact | None:
    """The completed stage under this key, or None."""
    record = content.get_record(stage, key)
    if record is None:
        return None
    artifact = Artifact(
        stage, key, record["digest"], record["files"], record["values"], record.get("info", {}), hit=True
    )
    expected = _output_digest(stage, artifact.files, artifact.values)
    if expected != artifact.digest:
        raise StoreError(
            f"record stages/{stage}/{key}.json does not match its own digest: delete it and run again"
        )
    return artifact


def resolve(content: ContentStore, uri: str) -> Artifact:
    """The artifact a URI names.

    Raises:
        StoreError: not a stage URI, not in this store, or recomputed to something else since.
    """
    try:
        scheme, rest = uri.split(":", 1)
        location, digest = rest.split("#", 1)
        stage, key = location.split("/", 1)
    except ValueError:
        raise StoreError(f"{uri!r} is not a stage URI (stage:<name>/<key>#<digest>)") from None
    artifact = lookup(content, stage, key) if scheme == "stage" else None
    if artifact is None:
        raise StoreError(
            f"{uri} is not in this store: run the flow that makes it, or point settings at its store"
        )
    if artifact.digest != digest:
        raise StoreError(
            f"{uri} was recomputed to another result ({artifact.digest[:12]}…): run the flow again"
        )
    return artifact


def run_stage(
    content: ContentStore,
    key: StageKey,
    compute: Callable[[Workspace], StageResult],
    *,
    scratch_root: Path,
) -> Artifact:
    """Return the filed result of `key`, computing and filing it first where it is missing.

    One process at a time works on a key (file lock); a second one waits and takes the first one's result.
    """
    name = key.digest
    if (done := lookup(content, key.stage, name)) is not None:
        return done
    scratch = scratch_root / f"{key.stage}-{name[:16]}"
    scratch_root.mkdir(parents=True, exist_ok=True)
    with FileLock(scratch_root / f"{key.stage}-{name[:16]}.lock"):
        if (done := lookup(content, key.stage, name)) is not None:
            return done
        out = scratch / "out"
        if out.exists():  # a killed run's half-written files
            shutil.rmtree(out)
        out.mkdir(parents=True)
        started = time.monotonic()
        try:
            result = compute(Workspace(out, scratch))
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty: a journal that the next attempt resumes from
                scratch.rmdir()
            raise
        seconds = time.monotonic() - started
        files = {
            p.relative_to(out).as_posix(): content.put_file(p) for p in sorted(out.rglob("*")) if p.is_file()
        }
        digest = _output_digest(key.stage, files, result.values)
        info = {**result.info, "seconds": round(seconds, 3)}
        content.put_record(
            key.stage,
            name,
            {
                "schema": SCHEMA,
                "stage": key.stage,
                "key": name,
                "inputs": {
                    "config": dict(key.config),
                    "parents": dict(key.parents),
                    "seed": key.seed,
                    "code": key.code,
                },
                "files": files,
                "values": dict(result.values),
                "digest": digest,
                "info": info,
            },
        )
        shutil.rmtree(scratch, ignore_errors=True)
    return Artifact(key.stage, name, digest, files, dict(result.values), info)


def fetch(content: ContentStore, artifact: Artifact, name: str) -> Path:
    """Local, verified path of one file of an artifact; treat it as read-only.

    Raises:
        StoreError: the artifact has no such file.
    """
    try:
        return content.fetch(artifact.files[name])
    except KeyError:
        raise StoreError(
            f"stage {artifact.stage} has no file {name!r}, only {sorted(artifact.files)}"
        ) from None


def materialise(content: ContentStore, artifact: Artifact, folder: Path) -> None:
    """Copy every file of an artifact into `folder` under its own name."""
    for name, digest in artifact.files.items():
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise CryfedError(f"stage {artifact.stage} holds a file outside its folder: {name!r}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(content.fetch(digest), target)


def _output_digest(stage: str, files: Mapping[str, str], values: Mapping[str, Any]) -> str:
    return digest_json({"stage": stage, "files": dict(files), "values": dict(values)})


def digests(uris: Mapping[str, str]) -> dict[str, str]:
    """Output digests of stage URIs, by name: what goes into a key where the URIs themselves are places."""
    return {name: uri.rsplit("#", 1)[1] for name, uri in uris.items()}
