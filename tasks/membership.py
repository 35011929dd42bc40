"""What the release and the last round's sum give away of who took part: membership attacks on the run itself."""

from __future__ import annotations

import json

from infra.evaluation.membership import Trained, attack_training, infants_of
from infra.federation.base import load_base
from infra.federation.results import load_theta
from infra.stages import StageResult, fetch, resolve
from models.adapters import adapter_schema
from models.config import ModelConfig
from models.frames import TEST, TRAIN
from models.local_step import LocalConfig
from tasks.features import FRAMES
from tasks.runtime import runtime
from tasks.sites import PUBLIC
from tasks.stage import Job, stage

_FRAMES = 12  # of an infant: a gradient of each is taken, and a run has ten minutes


@stage("membership", code=("infra.evaluation.membership",), timeout_seconds=3600)
def membership(job: Job) -> StageResult:
    """Attack θ and the last round's sum; members are the training infants, others the test infants, of all sites together.

    Only a simulation can: it holds every site's frames.
    """
    rt = runtime()
    net, _ = load_base(
        job.file("base", "base.safetensors"),
        ModelConfig.from_dict(dict(job.config["network"])),
        tuple(job.config["reasons"]),
    )
    frames = {}
    for site, uri in job.local["features"].items():
        if site != PUBLIC:
            content = rt.site_content(site)
            frames[site] = content.fetch(resolve(content, uri).files[FRAMES])
    theta, before = (
        load_theta(job.file("federate", f"{name}.safetensors"), adapter_schema(net))
        for name in ("theta", "before")
    )
    document = attack_training(
        net,
        infants_of(frames, net, TRAIN, most=_FRAMES),
        infants_of(frames, net, TEST, most=_FRAMES),
        Trained(theta, [(before, before - theta)]),
        LocalConfig(**job.config["local"]),
        seed=job.seed,
    )
    (job.out / "membership.json").write_text(json.dumps(document, allow_nan=False))
    worst = max(document["attacks"].values(), key=lambda found: found["auc"]["value"])
    return StageResult(
        info={"note": f"best attack finds a member with an AUC of {worst['auc']['value']:.3f}"}
    )


def read_membership(uri: str) -> dict[str, object]:
    """The attacks' document."""
    content = runtime().content
    document: dict[str, object] = json.loads(
        fetch(content, resolve(content, uri), "membership.json").read_text()
    )
    return document
