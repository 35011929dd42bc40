"""Evaluation on the test part, which no selection touched: every number of the report that comes from scores."""

from __future__ import annotations

import json

from infra.evaluation.evaluate import evaluate as evaluate_scores
from infra.evaluation.slices import METADATA
from infra.stages import StageResult, fetch, resolve
from models.frames import TEST
from tasks.baselines import read_baselines, read_leaky
from tasks.corpus import read_columns
from tasks.gate import no_signal
from tasks.runtime import runtime
from tasks.score import read_calibrations, read_scores
from tasks.stage import Job, stage


@stage("evaluate", code=("infra.evaluation.evaluate", "infra.evaluation.storage"), timeout_seconds=3600)
def evaluate(job: Job) -> StageResult:
    """Judge the federated model beside its central twin and the baselines; decide whether the reason head may ship."""
    scores = read_scores(job.local["federated"]).of_part(TEST)
    others = {name: s.of_part(TEST) for name, s in read_baselines(job.local["baselines"]).items()}
    others["central"] = read_scores(job.local["central"]).of_part(TEST)
    document = evaluate_scores(
        scores,
        read_calibrations(job.local["federated"]),
        others,
        metadata=read_columns(job.local["corpus"], METADATA),
        no_signal=no_signal(job.local["gate"]),
        leaky=read_leaky(job.local["baselines"]),
    )
    # in the document's own order, which the report follows
    (job.out / "evaluation.json").write_text(json.dumps(document, allow_nan=False))
    release = document["release"]
    return StageResult(
        values={"ship_reasons": bool(release["ship_reason_head"])},
        info={"note": str(release.get("why", ""))[:100]},
    )


def read_evaluation(uri: str) -> dict[str, object]:
    """The evaluation document."""
    content = runtime().content
    document: dict[str, object] = json.loads(
        fetch(content, resolve(content, uri), "evaluation.json").read_text()
    )
    return document
