"""A release on a manifest: every usable clip scored as a device would score it, then the report's numbers.

The folds of a release travel with it. On the very manifest it learned from, only the test part is scored by default, so that no
clip it has seen makes it look better than it is; on any other manifest, all clips are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from infra.edge.bundle import Bundle
from infra.edge.scorer import RawScore, Scorer
from infra.settings import LimitSettings
from models.errors import AudioError, ManifestError
from models.frames import PART_NAMES, TEST, UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

    from infra.data.manifest import Manifest
    from models.predict import ClipScores

Part = Literal["auto", "all", "train", "val", "test"]
ROLE_GATE: Mapping[str, int] = {"cry": 1, "ood_noncry": 0, "noise": 0}


@dataclass(frozen=True)
class ManifestScores:
    """Scores of the clips that could be scored, and what could not be."""

    scores: ClipScores
    part: str
    same_data: bool  # the manifest is the one that the release learned from
    errors: Mapping[str, str]  # path → message
    unknown_reasons: Mapping[str, int] = field(
        default_factory=dict
    )  # cries whose label the release does not know


def evaluate_bundle(
    bundle: Bundle,
    manifest: Manifest,
    *,
    part: Part = "auto",
    limits: LimitSettings | None = None,
    on_done: Callable[[int, int], None] | None = None,
    resamples: int = 1000,
) -> dict[str, Any]:
    """The evaluation document of `infra.evaluation`, with `release` provenance, the part scored and the clips left out.

    Raises:
        ManifestError: no labelled clip in that part.
        DataError: none of them could be scored.
    """
    from infra.data.manifest import columns_of
    from infra.evaluation.evaluate import evaluate
    from infra.evaluation.protocol import EvaluationConfig
    from infra.evaluation.slices import METADATA

    result = score_manifest(bundle, manifest, part=part, limits=limits, on_done=on_done)
    release = bundle.manifest
    described = columns_of(manifest.table, METADATA)
    document = evaluate(
        result.scores,
        {site: c.calibration() for site, c in release.calibrations.items()},
        default=release.default_calibration.calibration(),
        config=EvaluationConfig(resamples=resamples),
        system="release",
        metadata=described,
    )
    return {
        "bundle": {
            "digest": bundle.digest,
            "heads": list(release.heads),
            "data_digest": release.data.manifest_digest,
            "trained_on_synthetic": release.data.synthetic,
        },
        "manifest": {
            "digest": manifest.digest,
            "part": result.part,
            "same_data_as_training": result.same_data,
            "clips_scored": len(result.scores),
            "clips_failed": len(result.errors),
            "errors": dict(result.errors),
            "reasons_unknown_to_release": dict(result.unknown_reasons),
        },
        **document,
    }


def score_manifest(
    bundle: Bundle,
    manifest: Manifest,
    *,
    part: Part = "auto",
    limits: LimitSettings | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> ManifestScores:
    """Score the labelled clips of one part as recorded; a clip that cannot be decoded is left out and listed.

    Raises:
        ManifestError: no labelled clip in that part.
    """
    same = manifest.digest == bundle.manifest.data.manifest_digest
    chosen = ("test" if same else "all") if part == "auto" else part
    keep = manifest.table["role"].isin(ROLE_GATE).to_numpy()
    # all clips of another corpus are held out, whatever folds it may have for purposes of its own
    part_of = np.full(len(keep), TEST, np.int8) if chosen == "all" else _parts(bundle, manifest)
    if chosen != "all":
        keep = keep & (part_of == PART_NAMES.index(chosen))
    table = manifest.table[keep].reset_index(drop=True)
    if table.empty:
        raise ManifestError(
            f"{manifest.root}: no labelled clip in part {chosen!r}; choose another part, or check the roles"
        )
    scorer = Scorer(bundle)

    def score(path: str) -> RawScore | str:
        try:
            return scorer.raw_file(manifest.root / path, limits)
        except AudioError as err:
            return str(err)

    outcome: list[RawScore | str] = []
    # threads suffice: decoding and the graph both release the interpreter; each clip is scored alone, so order is moot
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for done, item in enumerate(pool.map(score, table["path"]), start=1):
            outcome.append(item)
            if on_done is not None:
                on_done(done, len(table))
    errors = {str(p): o for p, o in zip(table["path"], outcome, strict=True) if isinstance(o, str)}
    scored = np.array([not isinstance(o, str) for o in outcome])
    scores = _clip_scores(
        table[scored], [o for o in outcome if not isinstance(o, str)], scorer.reasons, part_of[keep][scored]
    )
    unknown = table[scored].query("role == 'cry'")["label"]
    unknown = unknown[~unknown.isin(scorer.reasons)] if scorer.reasons else unknown[:0]
    counts = {str(k): int(v) for k, v in sorted(unknown.value_counts().items())}
    return ManifestScores(scores, chosen, same, errors, counts)


def _parts(bundle: Bundle, manifest: Manifest) -> np.ndarray:
    from infra.data.splits import assign_folds, parts

    data = bundle.manifest.data
    folds = assign_folds(manifest.table, n_folds=data.n_folds, seed=data.fold_seed)
    return np.asarray(parts(folds, test_fold=data.test_fold, val_fold=data.val_fold))


def _clip_scores(
    table: pd.DataFrame, raw: list[RawScore], reasons: tuple[str, ...], part: np.ndarray
) -> ClipScores:
    from models.predict import ClipScores

    n = len(table)
    index = {name: k for k, name in enumerate(reasons)}
    gate = table["role"].map(ROLE_GATE).to_numpy().astype(np.int8)
    reason = np.array(
        [
            index.get(str(label), UNKNOWN) if g == 1 else UNKNOWN
            for label, g in zip(table["label"], gate, strict=True)
        ],
        np.int16,
    )

    def text(column: str) -> np.ndarray:
        return table[column].fillna("").to_numpy(str)

    return ClipScores(
        reasons=reasons,
        gate_logit=np.array([r.gate_logit for r in raw]),
        reason_logits=np.array([r.reason_logits for r in raw]).reshape(n, len(reasons)),
        energy=np.array([r.energy for r in raw]),
        n_frames=np.array([r.n_frames for r in raw], np.int32),
        view=np.zeros(n, np.int16),
        snr_db=np.full(n, np.nan, np.float32),
        site=text("site"),
        clip=np.arange(n, dtype=np.int32),
        clip_id=np.array([str(h)[:16] for h in table["sha256"]], dtype=str),
        group=text("group"),
        label=text("label"),
        part=part.astype(np.int8),
        gate=gate,
        reason=reason,
    )
