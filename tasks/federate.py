"""Federated training of adapters and heads: Flower on Ray, in a process of its own, resumed from its journal after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra.federation.job import FederationJob, SiteSpec
from infra.federation.launch import run_federation
from infra.stages import StageResult, resolve
from tasks.runtime import runtime
from tasks.sites import PUBLIC
from tasks.stage import Job, stage


@stage(
    "federate", code=("infra.federation.rounds", "infra.federation.site"), retries=2, timeout_seconds=6 * 3600
)
def federate(job: Job) -> StageResult:
    """Train θ over the sites; file θ, θ before the last round, the history of rounds and the bytes that travelled."""
    rt = runtime()
    sites = []
    for site, uri in job.local["features"].items():
        if site == PUBLIC:
            continue
        content = rt.site_content(site)
        frames = content.root / "blobs" / "sha256" / resolve(content, uri).files["frames.safetensors"]
        sites.append(SiteSpec(name=site, features=frames, folder=rt.site_folder(site) / "federation"))
    order = FederationJob(
        sites=tuple(sites),
        base_model=job.file("pretrain", "base.safetensors"),
        checkpoint_dir=job.space.scratch / "checkpoints",
        out_dir=job.space.scratch / "result",
        seed=job.seed,
        **{k: v for k, v in job.config.items() if k != "features"},
    )

    def follow(event: Any) -> None:
        if event["event"] == "round":
            done = event["round"] / order.rounds
            note = f"round {event['round']} of {order.rounds}"
            scores = event["validation"] or {}
            for name, key in (("reason", "reason_macro_f1"), ("gate", "gate_macro_f1")):
                if scores.get(key) is not None:
                    note += f"  {name} {scores[key]:.3f}"
            note += "".join(f"  alarm: {alarm['kind']}" for alarm in event["alarms"])
            job.progress.update(done, note)
        elif event["event"] == "start":
            job.progress.update(event["resumed_at"] / order.rounds, "starting")

    result = run_federation(order, ray_address=rt.cluster().address, on_event=follow)
    for source in (result.theta, result.before, result.history):
        (job.out / source.name).write_bytes(Path(source).read_bytes())
    timings = json.loads(result.timings.read_text())
    return StageResult(
        values={"theta": result.theta_digest, "job": result.job_digest, "rounds": order.rounds},
        info={"timings": timings, "note": f"{order.rounds} rounds at {len(sites)} sites"},
    )
