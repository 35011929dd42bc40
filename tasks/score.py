"""Scores and calibration at every site: the network over the site's own validation and test clips.

What may leave a site is its calibration (a temperature, a threshold). The scores stay in its folder; a simulation reads
them there to print its tables, which is the one thing here that a real federation could not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from infra.data.features import load_frames
from infra.evaluation.storage import load_scores, save_scores
from infra.federation.base import load_base
from infra.federation.files import decode_arrays
from infra.stages import Artifact, StageResult, Workspace, resolve
from models.adapters import set_vector
from models.calibration import SiteCalibration, calibrate_site
from models.config import ModelConfig
from models.frames import TEST, VAL
from models.predict import ClipScores, concat_scores, predict
from tasks.runtime import runtime
from tasks.sites import PUBLIC, SiteWork, run_at_sites

_CODE = (
    "models.predict",
    "models.calibration",
    "infra.evaluation.storage",
    "infra.data.features",
    "infra.federation.base",
)


@task(name="calibrate", retries=1, retry_delay_seconds=2, timeout_seconds=3600, persist_result=False)
def calibrate(
    system: str, network: dict[str, Any], reasons: list[str], features: dict[str, str], base: str, theta: str
) -> dict[str, str]:
    """Score and calibrate a system at every site, on Ray; returns artifact URIs by site.

    Args:
        system: what is scored, e.g. "federated"; only a name.
        network: `ModelConfig.to_dict()`.
        reasons: label set.
        features: features URI by site.
        base: URI of the pretraining stage.
        theta: URI of the stage that trained adapters and heads.
    """
    rt = runtime()
    base_file = resolve(rt.content, base).files["base.safetensors"]
    theta_file = resolve(rt.content, theta).files["theta.safetensors"]
    arguments = {
        "network": network,
        "reasons": reasons,
        "base": str(rt.content.fetch(base_file)),
        "theta": str(rt.content.fetch(theta_file)),
    }
    work = {}
    for site, uri in features.items():
        content = rt.site_content(site)
        frames = resolve(content, uri)
        work[site] = SiteWork(
            config={"network": network, "reasons": reasons},
            parents={"features": frames.digest, "base": base_file, "theta": theta_file},
            arguments={
                **arguments,
                "site": site,
                "frames": str(content.root / "blobs" / "sha256" / frames.files["frames.safetensors"]),
            },
        )
    name = "calibrate" if system == "federated" else f"score-{system}"
    made = run_at_sites(name, _score, work, code=_CODE)
    return {site: artifact.uri for site, artifact in made.items()}


def _score(arguments: Mapping[str, Any], space: Workspace) -> StageResult:
    net, _ = load_base(
        Path(arguments["base"]), ModelConfig.from_dict(arguments["network"]), tuple(arguments["reasons"])
    )
    theta = Path(arguments["theta"])
    set_vector(net, decode_arrays(theta.read_bytes(), str(theta))["theta"].astype(np.float32))
    frames = load_frames(Path(arguments["frames"]))
    keep = np.isin(frames.part[frames.clip], (VAL, TEST))
    scores = predict(net, frames.select(keep))
    save_scores(scores, space.out / "scores.safetensors")
    if arguments["site"] == PUBLIC:
        return StageResult(values={"calibration": None})
    calibration = calibrate_site(scores.of_part(VAL), site=arguments["site"])
    return StageResult(values={"calibration": calibration.to_dict()})


def read_scores(uris: Mapping[str, str]) -> ClipScores:
    """All sites' scores of one system, in the order of their names."""
    rt = runtime()
    parts = []
    for site in sorted(uris):
        content = rt.site_content(site)
        parts.append(load_scores(content.fetch(resolve(content, uris[site]).files["scores.safetensors"])))
    return concat_scores(parts)


def read_calibrations(uris: Mapping[str, str]) -> dict[str, SiteCalibration]:
    """Every site's calibration."""
    found: dict[str, SiteCalibration] = {}
    for site, uri in sorted(uris.items()):
        artifact: Artifact = resolve(runtime().site_content(site), uri)
        if artifact.values["calibration"] is not None:
            found[site] = SiteCalibration.from_dict(artifact.values["calibration"])
    return found
