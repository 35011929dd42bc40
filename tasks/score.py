"""Scores and calibration at every site: the network over the site's own validation and test clips.

What may leave a site is its calibration (a temperature, a threshold). The scores stay in its folder; a simulation reads
them there to print its tables, which is the one thing here that a real federation could not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task

from infra.evaluation.storage import load_scores
from infra.federation.local.frames import FRAMES
from infra.federation.local.score import CALIBRATION, SCORES, Trained
from infra.federation.local.work import SCORE_CODE, score_clips, scoring
from infra.stages import Artifact, fetch, resolve
from models.calibration import SiteCalibration
from models.predict import ClipScores, concat_scores
from tasks.runtime import runtime
from tasks.sites import PUBLIC, SiteWork, run_at_sites


@task(name="calibrate", retries=1, retry_delay_seconds=2, timeout_seconds=3600, persist_result=False)
def calibrate(
    system: str, network: dict[str, Any], reasons: list[str], features: dict[str, str], base: str, theta: str
) -> dict[str, str]:
    """Score and calibrate a system at every site, on Ray; returns artifact URIs by site.

    Args:
        system: what is scored; any but "federated" is a yardstick, scored on clips as recorded.
        network: `ModelConfig.to_dict()`.
        reasons: label set.
        features: features URI by site.
        base: URI of the pretraining stage.
        theta: URI of the stage that trained adapters and heads.
    """
    rt = runtime()
    base_file = resolve(rt.content, base).files["base.safetensors"]
    theta_file = resolve(rt.content, theta).files["theta.safetensors"]
    trained = Trained(
        network,
        tuple(reasons),
        rt.content.fetch(base_file),
        rt.content.fetch(theta_file),
        clean_only=system != "federated",
    )
    stage = "calibrate" if system == "federated" else f"score-{system}"
    work = {}
    for site, uri in features.items():
        content = rt.site_content(site)
        frames = resolve(content, uri)
        item = scoring(
            trained,
            content.root / "blobs" / "sha256" / frames.files[FRAMES],
            site=None if site == PUBLIC else site,
            parents={"features": frames.digest, "base": base_file, "theta": theta_file},
            stage=stage,
        )
        work[site] = SiteWork(**item.inputs)
    made = run_at_sites(stage, score_clips, work, code=SCORE_CODE)
    return {site: artifact.uri for site, artifact in made.items()}


def read_scores(uris: Mapping[str, str]) -> ClipScores:
    """All sites' scores of one system, in the order of their names."""
    rt = runtime()
    parts = []
    for site in sorted(uris):
        content = rt.site_content(site)
        parts.append(load_scores(fetch(content, resolve(content, uris[site]), SCORES)))
    return concat_scores(parts)


def read_calibrations(uris: Mapping[str, str]) -> dict[str, SiteCalibration]:
    """Every site's calibration."""
    found: dict[str, SiteCalibration] = {}
    for site, uri in sorted(uris.items()):
        artifact: Artifact = resolve(runtime().site_content(site), uri)
        if artifact.values[CALIBRATION] is not None:
            found[site] = SiteCalibration.from_dict(artifact.values[CALIBRATION])
    return found
