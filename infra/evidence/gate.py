"""The gate's document: ranking by arm, noise and kind of negatives, federated against central, with and without the denoiser.

Every clip has one score per seed, of a network that met nothing of its group. A statistic is computed within each fold, whose
clips one network judged, and averaged over folds and seeds; its interval is the percentile interval of that average over
resampled groups (a device or a recording is drawn with all of its clips, in all seeds alike). Differences are paired: the same
resamples for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.evaluation.protocol import NEGATIVES, negatives
from infra.evidence.frames import SNRS, public_view, site_view
from infra.evidence.signals import within_folds
from models import metrics as m
from models.bootstrap import Interval, group_bootstrap
from models.errors import DataError
from models.predict import ClipScores, concat_scores

Json = dict[str, Any]
Seeds = Mapping[int, ClipScores]

RESAMPLES, SEED = 1000, 0


def out_of_fold(cells: Sequence[ClipScores]) -> ClipScores:
    """The folds of one arm and seed in one: every clip and view once, in one order for all arms and seeds.

    Raises:
        DataError: a clip was judged twice.
    """
    joined = concat_scores(cells)
    keys = [
        f"{s}\x1f{c}\x1f{v:04d}" for s, c, v in zip(joined.site, joined.clip_id, joined.view, strict=True)
    ]
    if len(set(keys)) != len(keys):
        raise DataError("a clip was judged in two folds: cells of different arms or seeds were joined")
    return joined.select(np.argsort(np.array(keys)))


def gate_document(arms: Mapping[str, Seeds], resamples: int = RESAMPLES) -> Json:
    """Numbers of every arm, and what the arms differ by.

    Args:
        arms: out-of-fold scores by arm name and seed; "central" is what the others are set against.
        resamples: of the bootstrap.
    """
    out: Json = {
        "protocol": __doc__.split("\n\n", 1)[1].replace("\n", " ").strip(),
        "arms": {name: _arm(seeds, resamples) for name, seeds in arms.items()},
        "differences": {},
    }
    reference = arms.get("central")
    if reference:
        for name, seeds in arms.items():
            if seeds is not reference:
                out["differences"][f"central − {name}"] = _difference(reference, seeds, resamples)
    return out


def left_out_document(scores: Mapping[str, ClipScores], resamples: int = RESAMPLES) -> Json:
    """Public noise of classes that training never heard: AUROC of each class against the cries of the cell's fold, and the mean.

    Args:
        scores: by class, of the cell that was trained without it.
    """
    classes: Json = {}
    kept: dict[str, ClipScores] = {}
    for name, cell in scores.items():
        kept[name] = rows = cell.select((cell.view == 0) & ((cell.gate == 1) | (cell.label == name)))
        classes[name] = {
            "clips": int((rows.gate == 0).sum()),
            "auroc": _interval({0: rows}, m.auroc, resamples).to_dict(),
        }
    values = {name: c["auroc"]["value"] for name, c in classes.items() if c["auroc"]["value"] is not None}
    worst = min(values, key=values.__getitem__) if values else None
    return {"classes": classes, "mean": _mean_over_classes(kept, resamples), "worst": worst}


def _mean_over_classes(kept: Mapping[str, ClipScores], resamples: int) -> Json:
    if not kept:
        return {"value": None, "low": None, "high": None, "groups": 0}
    joined = concat_scores(list(kept.values()))
    of = np.repeat(np.arange(len(kept)), [len(rows) for rows in kept.values()])

    def mean(w: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        return np.mean(
            [
                m.auroc(
                    joined.gate_logit[of == k],
                    joined.gate[of == k] == 1,
                    None if w is None else w[:, of == k],
                )
                for k in range(len(kept))
            ],
            axis=0,
        )

    return group_bootstrap(mean, joined.group, seed=SEED, resamples=resamples).to_dict()


def _arm(seeds: Seeds, resamples: int) -> Json:
    first = next(iter(seeds.values()))
    clean = {s: v.select(v.view == 0) for s, v in seeds.items()}
    return {
        "seeds": sorted(seeds),
        "cries": int((next(iter(clean.values())).gate == 1).sum()),
        "recorded": {
            which: {
                "clips": int(negatives(next(iter(clean.values())), which).sum()),
                "auroc": _of(clean, which, m.auroc, resamples),
                "fpr95": _of(clean, which, m.fpr_at_tpr, resamples),
                "average_precision": _of(clean, which, m.average_precision, resamples),
                "auroc_by_seed": {str(s): round(float(_auroc_of(v, which)), 5) for s, v in clean.items()},
            }
            for which in NEGATIVES
        },
        "noisy": [
            {
                "noise": kind, "snr_db": snr,
                **{which: _of(rows, which, m.auroc, resamples) for which in NEGATIVES},
            }
            for kind, view_of in (("public", public_view), ("site", site_view))
            for snr in SNRS
            for view in [view_of(snr)]
            if (first.view == view).any()
            for rows in [{s: v.select(v.view == view) for s, v in seeds.items()}]
        ],
        "energy": {which: _of(clean, which, m.auroc, resamples, energy=True) for which in NEGATIVES},
    }  # fmt: skip


def _difference(reference: Seeds, other: Seeds, resamples: int) -> list[Json]:
    """Paired differences of AUROC over the seeds that both have, as recorded and at each SNR."""
    shared = sorted(set(reference) & set(other))
    views = sorted(set(next(iter(other.values())).view.tolist()))
    out = []
    for view in views:
        pairs = [(_view(reference[s], view), _view(other[s], view)) for s in shared]
        row: Json = {"view": view, "noise": _kind(view), "snr_db": _snr(view)}
        for which in NEGATIVES:
            kept = []
            for a, b in pairs:
                if not np.array_equal(a.clip_id, b.clip_id):
                    raise DataError("arms were judged on different clips: they cannot be compared")
                keep = (a.gate == 1) | negatives(a, which)
                kept.append((a.select(keep), b.select(keep)))

            def gain(
                w: npt.NDArray[np.float64] | None, kept: list[tuple[ClipScores, ClipScores]] = kept
            ) -> npt.NDArray[np.float64]:
                return np.mean([_within(m.auroc, a, w) - _within(m.auroc, b, w) for a, b in kept], axis=0)

            row[which] = group_bootstrap(gain, kept[0][0].group, seed=SEED, resamples=resamples).to_dict()
        out.append(row)
    return out


def _view(scores: ClipScores, view: int) -> ClipScores:
    return scores.select(scores.view == view)


def _kind(view: int) -> str:
    return "recorded" if view == 0 else "public" if view <= len(SNRS) else "site"


def _snr(view: int) -> float | None:
    return None if view == 0 else SNRS[(view - 1) % len(SNRS)]


def _auroc_of(scores: ClipScores, which: str) -> npt.NDArray[np.float64]:
    keep = (scores.gate == 1) | negatives(scores, which)
    return _within(m.auroc, scores.select(keep), None)


def _within(
    metric: Any, scores: ClipScores, w: npt.NDArray[np.float64] | None, *, energy: bool = False
) -> npt.NDArray[np.float64]:
    """A metric of the cries against the rest, the mean over folds."""
    score = -scores.energy if energy else scores.gate_logit
    return within_folds(metric, score, scores.gate == 1, scores.part, w)


def _of(seeds: Seeds, which: str, metric: Any, resamples: int, *, energy: bool = False) -> Json:
    kept = {s: v.select((v.gate == 1) | negatives(v, which)) for s, v in seeds.items()}
    return _interval(kept, metric, resamples, energy=energy).to_dict()


def _interval(seeds: Seeds, metric: Any, resamples: int, *, energy: bool = False) -> Interval:
    statistics = [partial(_within, metric, v, energy=energy) for v in seeds.values()]

    def mean(w: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        return np.mean([statistic(w) for statistic in statistics], axis=0)

    return group_bootstrap(mean, next(iter(seeds.values())).group, seed=SEED, resamples=resamples)
