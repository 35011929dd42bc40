"""What the network has to beat: the majority class, and logistic regression and an SVM on MFCC statistics of the same clips.

All are fitted on the training part of all sites together, which a federation could not do: they are given the easier job. They
come as `ClipScores`, so that the evaluation treats every system alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.data.mfcc import N_STATISTICS
from models.errors import DataError
from models.frames import TRAIN, UNKNOWN, SiteFrames
from models.metrics import Floats, Ints
from models.predict import ClipScores

Scorer = Callable[[Floats], Floats]
Fit = Callable[[Floats, Ints], Scorer]
_ABSENT = -30.0  # logit of a reason that the training part doesn't have


@dataclass(frozen=True)
class ClipTable:
    """Clips of all sites with their statistics. Arrays of length n as in `models.frames`; `x` (n, 80)."""

    reasons: tuple[str, ...]
    x: npt.NDArray[np.float32]
    site: npt.NDArray[np.str_]
    clip: npt.NDArray[np.int32]
    clip_id: npt.NDArray[np.str_]
    group: npt.NDArray[np.str_]
    label: npt.NDArray[np.str_]
    part: npt.NDArray[np.int8]
    gate: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int16]


def clip_table(sites: Sequence[SiteFrames], statistics: Mapping[str, npt.NDArray[np.float32]]) -> ClipTable:
    """Join the clips of the sites' frames with statistics by `clip_id`.

    Raises:
        DataError: no site, or a clip has no statistics.
    """
    if not sites:
        raise DataError("no site's frames to compare against")
    ids = np.concatenate([s.clip_id for s in sites])
    missing = [str(i) for i in ids if str(i) not in statistics]
    if missing:
        raise DataError(f"{len(missing)} clips have no MFCC statistics, the first is {missing[0]}")
    return ClipTable(
        reasons=sites[0].reasons,
        x=np.stack([statistics[str(i)] for i in ids])
        if ids.size
        else np.zeros((0, N_STATISTICS), np.float32),
        site=np.concatenate([np.full(len(s.clip_id), s.site) for s in sites]),
        clip=np.concatenate([np.arange(len(s.clip_id), dtype=np.int32) for s in sites]),
        clip_id=ids,
        group=np.concatenate([s.group for s in sites]),
        label=np.concatenate([s.label for s in sites]),
        part=np.concatenate([s.part for s in sites]),
        gate=np.concatenate([s.gate for s in sites]),
        reason=np.concatenate([s.reason for s in sites]),
    )


def majority(table: ClipTable) -> ClipScores:
    """Always the most frequent reason of the training part; a gate that knows nothing."""
    n, c = len(table.clip_id), len(table.reasons)
    train = (table.part == TRAIN) & (table.gate == 1) & (table.reason != UNKNOWN)
    counts = np.bincount(table.reason[train].astype(int), minlength=c)
    logits = np.tile(np.log((counts + 1.0) / (counts.sum() + c)), (n, 1)) if c else np.zeros((n, 0))
    return _scores(table, np.zeros(n), logits)


def logistic_regression(table: ClipTable, seed: int = 0) -> ClipScores:
    """Standardised statistics, L2 with C = 1, classes balanced; one model for the gate, one for the reason.

    Rows of every part are scored; only the training part was fitted on.
    """
    return _two_models(table, partial(fit_logistic, seed=seed))


def support_vector_machine(table: ClipTable) -> ClipScores:
    """An SVM with RBF kernel (C = 1, γ = 1 / D) in place of the logistic regression; its logits are margins, no probabilities."""
    return _two_models(table, fit_svm)


def fit_logistic(x: Floats, y: Ints, *, seed: int = 0) -> Scorer:
    """Logistic regression on standardised features: x (m, D) → log-probabilities (m, classes of y)."""
    from sklearn.linear_model import LogisticRegression

    model = _standardised(
        LogisticRegression(C=1.0, class_weight="balanced", max_iter=5000, random_state=seed)
    )
    model.fit(x, y)
    return lambda rows: np.asarray(model.predict_log_proba(rows))


def fit_svm(x: Floats, y: Ints) -> Scorer:
    """An RBF SVM on standardised features: x (m, D) → one-against-rest margins (m, classes of y)."""
    from sklearn.svm import SVC

    model = _standardised(SVC(C=1.0, gamma="auto", class_weight="balanced", decision_function_shape="ovr"))
    model.fit(x, y)

    def margins(rows: Floats) -> Floats:
        out = np.asarray(model.decision_function(rows))
        return np.stack([-out, out], 1) / 2 if out.ndim == 1 else out

    return margins


def _standardised(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


def _two_models(table: ClipTable, fit: Fit) -> ClipScores:
    train = table.part == TRAIN
    gate = _fit_predict(table.x, table.gate.astype(int), train & (table.gate >= 0), 2, fit)
    cries = train & (table.gate == 1) & (table.reason != UNKNOWN)
    logits = _fit_predict(table.x, table.reason.astype(int), cries, len(table.reasons), fit)
    return _scores(table, gate[:, 1] - gate[:, 0], logits)


def _fit_predict(
    x: npt.NDArray[np.float32], y: Ints, train: npt.NDArray[np.bool_], n_classes: int, fit: Fit
) -> Floats:
    """Logits (n, C) up to a constant; equal ones where the training part has fewer than two classes."""
    present = np.unique(y[train])
    if present.size < 2:
        return np.zeros((len(y), n_classes))
    scorer = fit(x[train].astype(np.float64), y[train])
    out = np.full((len(y), n_classes), _ABSENT)
    out[:, present] = np.maximum(scorer(x.astype(np.float64)), _ABSENT)
    return out


def _scores(table: ClipTable, gate_logit: Floats, reason_logits: Floats) -> ClipScores:
    n = len(table.clip_id)
    top = reason_logits.max(1) if reason_logits.shape[1] else np.zeros(n)
    return ClipScores(
        reasons=table.reasons,
        gate_logit=np.asarray(gate_logit, np.float64),
        reason_logits=np.asarray(reason_logits, np.float64),
        energy=-np.asarray(top, np.float64),
        n_frames=np.ones(n, np.int32),
        view=np.zeros(n, np.int16),
        snr_db=np.full(n, np.nan, np.float32),
        site=table.site,
        clip=table.clip,
        clip_id=table.clip_id,
        group=table.group,
        label=table.label,
        part=table.part,
        gate=table.gate,
        reason=table.reason,
    )
