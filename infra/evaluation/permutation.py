"""Would labels that say nothing about the sound score as well? The reason head against labels permuted within platform.

Platform, that is codec and microphone, is the easiest thing to hear in a clip, and users of one platform may name other reasons
than those of another. Labels therefore never leave their platform (where the manifest names none: their site) when permuted, so
that a head which only hears the platform gains nothing. What changes places are infants or devices: see `models.permutation`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from infra.evaluation.protocol import Bench, Json, number
from models.permutation import movable, permute_macro_f1

UNIT = (
    "labels change places between infants or devices with equally many clips, as wholes, and between the clips of one; "
    "never across a {stratum}"
)
_BINS = 40
_MARGIN = 0.02


def permutation_metrics(clean: Bench, platforms: Mapping[str, str] | None = None) -> Json | None:
    """The permutation test of the reason head on the cries of `clean`; None without a reason head or such cries.

    Args:
        clean: clips as recorded, of a part that the head was not trained on.
        platforms: clip_id → platform as in the manifest. Where a cry has none, all are permuted within their sites.
    """
    cries = clean.cries
    if not clean.reasons or not cries.any():
        return None
    s = clean.scores
    stratum, name = _stratum(s.clip_id[cries], s.site[cries], platforms or {})
    truth, group = s.reason[cries].astype(int), s.group[cries]
    test = permute_macro_f1(
        truth,
        clean.reason_p[cries].argmax(1),
        len(clean.reasons),
        group=group,
        stratum=stratum,
        n=clean.config.permutations,
        seed=clean.config.seed,
    )
    # a constant answer scores the same under every relabelling: bins of no width would show nothing
    count, edges = np.histogram(
        test.null, bins=_BINS, range=(test.null.min() - _MARGIN, test.null.max() + _MARGIN)
    )
    return {
        "macro_f1": number(test.observed),
        "p": number(test.p),
        "permutations": len(test.null),
        "within": name,
        "strata": int(np.unique(stratum).size),
        "unit": UNIT.format(stratum=name),
        "movable": number(movable(group, stratum)),
        "null": {
            "mean": number(test.null.mean()),
            "quantile_95": number(np.quantile(test.null, 0.95)),
            "edges": [round(float(e), 5) for e in edges],
            "count": count.tolist(),
        },
    }


def _stratum(
    clip_id: npt.NDArray[np.str_], site: npt.NDArray[np.str_], platforms: Mapping[str, str]
) -> tuple[npt.NDArray[np.str_], str]:
    known = np.array([platforms.get(str(c), "") for c in clip_id], dtype=str)
    return (known, "platform") if (known != "").all() else (np.asarray(site), "site")
