"""Site-local stages: the same work at every site, in parallel on Ray, each filed in the site's own folder.

What comes back are artifacts: digests and small values. Audio, features and measurements stay where they were made, in the site's
own content store; a real site runs the same functions inside its own process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.stages import Artifact, StageKey, StageResult, Workspace, lookup, make_key, run_stage
from infra.store.content import DirectoryContent
from tasks.progress import StageProgress
from tasks.runtime import runtime

PUBLIC = "public"
"""Folder name of the public audio, which has no site."""

SiteFunction = Callable[[Mapping[str, Any], Workspace], StageResult]


@dataclass(frozen=True)
class SiteWork:
    """One site's part of a stage: what goes into its key, and what it needs to find its data."""

    config: Mapping[str, Any]
    parents: Mapping[str, str]  # output digests
    arguments: Mapping[str, Any]  # travels to the worker, not part of the key


@dataclass(frozen=True)
class _Order:
    key: StageKey
    folder: Path
    function: SiteFunction
    arguments: Mapping[str, Any]


def _carry_out(order: _Order) -> Artifact:
    return run_stage(
        DirectoryContent(order.folder / "artifacts"),
        order.key,
        lambda space: order.function(order.arguments, space),
        scratch_root=order.folder / "scratch",
    )


def run_at_sites(
    stage: str,
    function: SiteFunction,
    work: Mapping[str, SiteWork],
    *,
    code: tuple[str, ...],
    seed: int = 0,
) -> dict[str, Artifact]:
    """Run `function` once a site, or take what the site has filed already.

    Args:
        stage: name under which sites file it.
        function: module-level; `(arguments, workspace) -> StageResult`; sees one site alone.
        work: by site name.
        code: modules that compute it (part of the key).
    """
    rt = runtime()
    done: dict[str, Artifact] = {}
    orders: dict[str, _Order] = {}
    for site, item in work.items():
        key = make_key(stage, code=code, config=item.config, parents=item.parents, seed=seed)
        found = lookup(rt.site_content(site), stage, key.digest)
        if found is not None:
            done[site] = found
        else:
            orders[site] = _Order(key, rt.site_folder(site), function, item.arguments)
    if not orders:
        rt.board.hit(stage)
    else:
        with StageProgress(rt.board, stage) as progress:
            made = rt.cluster().map(
                _carry_out,
                list(orders.values()),
                on_done=lambda k, n: progress.update(k / n, f"{k} of {n} sites"),
            )
        done.update(zip(orders, made, strict=True))
    return {site: done[site] for site in work}
