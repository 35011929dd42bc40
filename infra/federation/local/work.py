"""A site's computations as stages: keyed by what goes in, filed in the site's own folder, the same wherever they run.

    artifact = carry_out(measuring(rows, root, limits), folder)      in the site's own process
    run_at_sites("measure", measure_clips, …work.inputs…)            in the pipeline, on Ray

Equal inputs give equal keys in both, so a site's folder serves either.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from infra.data.audio import ClipLimits
from infra.federation.local import frames, measure, probe, score, verdict
from infra.stages import Artifact, StageKey, StageResult, Workspace, make_key, run_stage
from infra.store.content import DirectoryContent
from models.errors import OutputError

DOCS: Final = "data_docs"

# the modules that compute each stage; their import closure is part of its key
MEASURE_CODE: Final = ("infra.federation.local.measure",)
PROBE_CODE: Final = ("infra.federation.local.probe",)
VERDICT_CODE: Final = ("infra.federation.local.verdict",)
FRAMES_CODE: Final = ("infra.federation.local.frames",)
SCORE_CODE: Final = ("infra.federation.local.score",)


@dataclass(frozen=True)
class Work:
    """One stage at one site: what names it, and what computes it."""

    stage: str
    code: tuple[str, ...]  # modules that compute it
    config: Mapping[str, Any]
    parents: Mapping[str, str]  # output digests
    function: Callable[[Mapping[str, Any], Workspace], StageResult]
    arguments: Mapping[str, Any]  # where its data lie; not part of the key

    @property
    def inputs(self) -> dict[str, Any]:
        """`config`, `parents` and `arguments`: what a scheduler of its own, such as the pipeline's, needs beside the function."""
        return {"config": self.config, "parents": self.parents, "arguments": self.arguments}

    @property
    def key(self) -> StageKey:
        """What the result is filed under."""
        return make_key(self.stage, code=self.code, config=self.config, parents=self.parents)


def site_store(folder: Path) -> DirectoryContent:
    """A site's own artifacts."""
    return DirectoryContent(folder / "artifacts")


def carry_out(work: Work, folder: Path) -> Artifact:
    """The filed result of `work`, computed first where the site's folder has none.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        (folder / "scratch").mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"cannot write the site's folder {folder}: {err.strerror}; choose another"
        ) from None
    return run_stage(
        site_store(folder),
        work.key,
        lambda space: work.function(work.arguments, space),
        scratch_root=folder / "scratch",
    )


def measuring(rows: pd.DataFrame, root: Path, limits: ClipLimits) -> Work:
    """Measure the clips of `rows`."""
    arguments = {"rows": rows, "root": root, "limits": limits}
    config = measure.config(rows, root, limits)
    return Work("measure", MEASURE_CODE, config, {}, measure_clips, arguments)


def probing(
    rows: pd.DataFrame,
    parts: npt.NDArray[np.int8],
    root: Path,
    limits: ClipLimits,
    reasons: tuple[str, ...],
) -> Work:
    """Probe whether the reasons of the cries in `rows` can be told apart."""
    cries = probe.select(rows, parts, reasons)
    arguments = {"cries": cries, "root": root, "limits": limits, "reasons": reasons}
    config = probe.config(cries, root, limits, reasons)
    return Work("probe", PROBE_CODE, config, {}, probe_clips, arguments)


def judging(
    site: str,
    rows: pd.DataFrame,
    parts: npt.NDArray[np.int8],
    measured: Artifact,
    probed: Artifact,
    folder: Path,
) -> Work:
    """Judge one site's rows by what was measured and probed of them, which lies in the site's folder."""
    store = site_store(folder)
    arguments = {
        "site": site,
        "rows": rows,
        "parts": parts,
        "measurements": store.fetch(measured.files[measure.MEASUREMENTS]),
        "probe": store.fetch(probed.files[probe.PROBE]),
        "store": store,
    }
    return Work(
        "site-gate",
        VERDICT_CODE,
        verdict.config(site, rows, parts),
        {"measure": measured.digest, "probe": probed.digest},
        judge_clips,
        arguments,
    )


def extracting(
    clips: frames.Clips,
    noise: frames.Clips,
    rendering: frames.Rendering,
    limits: ClipLimits,
    *,
    noise_facts: list[list[str]] | None = None,
) -> Work:
    """Extract frames of `clips`; `noise_facts` are those of `noise`, where the caller has them already."""
    facts = noise.facts() if noise_facts is None else noise_facts
    return Work(
        "features",
        FRAMES_CODE,
        frames.config(rendering, clips.facts(), facts),
        {},
        extract_frames,
        {"clips": clips, "noise": noise, "rendering": rendering, "limits": limits},
    )


def scoring(
    trained: score.Trained,
    frames_file: Path,
    *,
    site: str | None,
    parents: Mapping[str, str],
    stage: str = "calibrate",
) -> Work:
    """Score a site's clips and fit its calibration.

    Args:
        trained: the network.
        frames_file: the site's frames.
        site: its name; None scores alone.
        parents: output digest of `features`, SHA-256 of the files `base` and `theta`.
        stage: name to file it under.
    """
    arguments = {"trained": trained, "frames": frames_file, "site": site}
    return Work(stage, SCORE_CODE, score.config(trained), parents, score_clips, arguments)


def measure_clips(arguments: Mapping[str, Any], space: Workspace) -> StageResult:
    """Stage function of `measuring`."""
    return StageResult(values=measure.compute(space.out, **arguments))


def probe_clips(arguments: Mapping[str, Any], space: Workspace) -> StageResult:
    """Stage function of `probing`."""
    return StageResult(values=probe.compute(space.out, **arguments))


def judge_clips(arguments: Mapping[str, Any], space: Workspace) -> StageResult:
    """Stage function of `judging`. Data Docs carry the time: they are filed beside the result, not as part of it."""
    given = dict(arguments)
    store: DirectoryContent = given.pop("store")
    docs = space.scratch / DOCS
    values = verdict.compute(space.out, docs, **given)
    archive = Path(shutil.make_archive(str(space.scratch / "docs"), "zip", docs))
    return StageResult(values=values, info={DOCS: store.put_file(archive)})


def extract_frames(arguments: Mapping[str, Any], space: Workspace) -> StageResult:
    """Stage function of `extracting`."""
    return StageResult(values=frames.compute(space.out, **arguments))


def score_clips(arguments: Mapping[str, Any], space: Workspace) -> StageResult:
    """Stage function of `scoring`."""
    return StageResult(values=score.compute(space.out, **arguments))
