"""Champion against challenger: may a release take the place of the one that a channel points at?

Both score the same clips, none of which either has learned from. What counts is the paired difference, challenger minus champion,
with its interval by bootstrap over groups: the challenger is accepted where the lower end does not lie below −margin
(a non-inferiority test). A difference that the clips cannot tell is not in its favour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from infra.edge.bundle import Bundle
from infra.edge.evaluate import score_manifest
from infra.settings import LimitSettings
from models.errors import DataError
from models.predict import ClipScores

if TYPE_CHECKING:
    from infra.data.manifest import Manifest

MARGIN: Final = 0.05
"""What is given up at most, in AUROC and in macro-F1, on the ground of one comparison."""

Json = dict[str, Any]


def compare(
    champion: Bundle,
    challenger: Bundle,
    manifest: Manifest,
    *,
    margin: float = MARGIN,
    limits: LimitSettings | None = None,
    resamples: int = 1000,
) -> Json:
    """Both releases on the clips of a manifest that neither has learned from.

    Returns:
        champion, challenger, manifest: digests; clips, margin; gate_auroc, macro_f1: interval of the difference, or None where it
        is not compared; accepted, why.

    Raises:
        ManifestError, DataError: there is no such clip, or none that could be scored.
    """
    from infra.evaluation.evaluate import evaluate
    from infra.evaluation.protocol import EvaluationConfig

    scored = [score_manifest(b, manifest, limits=limits).scores for b in (champion, challenger)]
    old, new = _on_the_same_clips(*scored)
    if not len(new):
        raise DataError(
            f"{manifest.root}: no clip is new to both releases; name a manifest of other recordings"
        )
    document = evaluate(
        new,
        baselines={"champion": old},
        config=EvaluationConfig(resamples=resamples),
        system="challenger",
    )
    advantage = document["systems"]["champion"]["advantage"]
    heads = {"gate_auroc": advantage["gate_auroc"]}
    same_reasons = bool(challenger.manifest.reasons) and (
        champion.manifest.reasons == challenger.manifest.reasons
    )
    if same_reasons and advantage["macro_f1"] is not None:
        heads["macro_f1"] = advantage["macro_f1"]
    refused = [text for name, interval in heads.items() if (text := _objection(name, interval, margin))]
    return {
        "champion": champion.digest,
        "challenger": challenger.digest,
        "manifest": manifest.digest,
        "clips": len(new),
        "margin": margin,
        "gate_auroc": heads["gate_auroc"],
        "macro_f1": heads.get("macro_f1"),
        "accepted": not refused,
        "why": "; ".join(refused) or f"no lower end lies below {-margin:g}",
    }


def _objection(name: str, interval: Json | None, margin: float) -> str | None:
    if interval is None or interval["low"] is None:
        return f"{name}: these clips cannot tell the two apart or not (too few groups, or one side only)"
    if interval["low"] < -margin:
        return (
            f"{name}: {interval['value']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f}), "
            f"the lower end is below {-margin:g}"
        )
    return None


def _on_the_same_clips(old: ClipScores, new: ClipScores) -> tuple[ClipScores, ClipScores]:
    """Rows of the clips that both scored: where their splits differ, each leaves out what it has learned from."""

    def keys(scores: ClipScores) -> list[tuple[str, str]]:
        return [(str(s), str(c)) for s, c in zip(scores.site, scores.clip_id, strict=True)]

    mine, theirs = keys(old), keys(new)
    shared = set(mine) & set(theirs)
    return (
        old.select(np.array([k in shared for k in mine], bool)),
        new.select(np.array([k in shared for k in theirs], bool)),
    )
