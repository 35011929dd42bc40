"""The model card of a release: what it is for, what it learned from, how good it is and where it is not.

Source: Mitchell et al., Model Cards for Model Reporting, https://arxiv.org/abs/1810.03993. Everything in it comes from the
bundle's manifest, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from infra.edge.release import BundleManifest

CARD_NAME: Final = "model_card.md"

NOT_A_DEVICE: Final = (
    "Research software, not a medical device: no diagnosis, treatment or alarm may depend on it."
)
INTENDED_USE: Final = (
    "Research on infant cries, and listening aids whose users know that they err and stay within earshot.",
    "A fleet runs it only after a named clinician has signed it off for that fleet.",
)
LIMITS: Final = (
    "A cry's reason is what carers wrote down, which no one can check.",
    "Noise of kinds that training never heard is the hardest: expect false alarms from it.",
    "It was judged clip by clip on short recordings, not on nights.",
    "Scores are of microphones and rooms like those of the sites above; elsewhere calibrate first, or expect worse.",
)


def model_card(manifest: BundleManifest) -> str:
    """The card in Markdown."""
    data, evidence = manifest.data, manifest.evidence
    kind = (
        "SYNTHETIC recordings: the numbers say nothing about infants" if data.synthetic else "real recordings"
    )
    why = f", and why it may be ({', '.join(manifest.reasons)})" if manifest.reasons else ""
    lines = [
        "# Infant-cry classifier",
        "",
        f"**{NOT_A_DEVICE}**",
        "",
        f"Hears one second of 16 kHz audio at a time and says whether it is an infant's cry{why}, or abstains.",
        "",
        "## Intended use",
        "",
        *_bullets(INTENDED_USE),
        "",
        "## Data",
        "",
        f"- Learned from {kind}.",
        *_bullets(_data(manifest)),
        "",
        "## How good it is",
        "",
        *_headline(evidence, reasons=bool(manifest.reasons)),
        "",
        *_sites(evidence.get("sites")),
        *_snr(evidence.get("snr"), reasons=bool(manifest.reasons)),
        *_false_alarms(evidence.get("false_alarms_by_label")),
        "## Limits",
        "",
        *_bullets(LIMITS),
        *_bullets(manifest.notes),
        "",
    ]
    return "\n".join(lines)


def _data(manifest: BundleManifest) -> Iterator[str]:
    data, counts = manifest.data, manifest.evidence.get("counts")
    yield f"Manifest of clips: `{data.manifest_digest}`."
    if data.corpora:
        yield f"Corpora: {', '.join(data.corpora)}."
    yield (
        f"Split by group (an infant or a recording device) into {data.n_folds} folds: fold {data.test_fold} was tested on and "
        f"never trained or selected on, fold {data.val_fold} selected and calibrated."
    )
    if isinstance(counts, Mapping):
        yield (
            f"Tested on {counts['clips']} clips of {counts['sites']} sites: {counts['cries']} cries of "
            f"{counts['groups_of_cries']} groups, {counts['site_noncries']} other sounds of the same sites, "
            f"{counts['public_noncries']} of public noise."
        )
    yield f"Calibrated for {len(manifest.calibrations)} sites, and pooled for any other."


def _headline(evidence: Mapping[str, Any], *, reasons: bool) -> Iterator[str]:
    found = evidence.get("headline")
    if not isinstance(found, Mapping):
        yield "It was not evaluated."
        return
    yield "95 % intervals by bootstrap over groups."
    yield ""
    names = {
        "gate_auroc": "cry or not, AUROC",
        "gate_fpr95": "cry or not, false alarms at 95 % sensitivity",
    }
    if reasons:
        names |= {"macro_f1": "reason, macro-F1", "auc": "reason, AUC"}
    yield from _table(("", "value"), [(label, _interval(found.get(key))) for key, label in names.items()])
    decision = evidence.get("decision")
    if isinstance(decision, Mapping):
        verb = "ships" if decision.get("ship_reason_head") else "is withheld"
        yield ""
        yield f"The reason head {verb}: {decision.get('why')}."


def _sites(rows: Any) -> Iterator[str]:
    """Without reasons: a site's few infants seldom have more than two of them, and a macro-F1 of those misleads."""
    if not rows:
        return
    yield "### By site"
    yield ""
    table = [(str(r["site"]), str(r["groups"]), str(r["cries"]), _interval(r["gate_auroc"])) for r in rows]
    yield from _table(("site", "groups", "cries", "cry or not, AUROC"), table)
    yield ""


def _snr(rows: Any, *, reasons: bool) -> Iterator[str]:
    if not rows:
        return
    yield "### By noise mixed in"
    yield ""
    names = ("gate_auroc", "macro_f1") if reasons else ("gate_auroc",)
    table = [
        ("as recorded" if r["snr_db"] is None else f"{r['snr_db']:g} dB", *(_interval(r[n]) for n in names))
        for r in rows
    ]
    yield from _table(("SNR", "cry or not, AUROC", "reason, macro-F1")[: 1 + len(names)], table)
    yield ""


def _false_alarms(rows: Any) -> Iterator[str]:
    if not rows:
        return
    yield "### False alarms by sound"
    yield ""
    table = [
        (str(r["label"]), str(r["kind"]), str(r["clips"]), _percent(r["called_cry"]))
        for r in sorted(rows, key=lambda r: (-(r["called_cry"] or 0.0), r["label"], r["kind"]))
    ]
    yield from _table(("sound", "from", "clips", "called a cry"), table)
    yield ""


def _bullets(lines: Any) -> Iterator[str]:
    # notes are people's own words: kept to one line each, so that they cannot become headings
    return (f"- {' '.join(str(line).split())}" for line in lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def _interval(value: Any) -> str:
    if not isinstance(value, Mapping) or value.get("value") is None:
        return "–"
    text = f"{value['value']:.3f}"
    return text if value.get("low") is None else f"{text} ({value['low']:.3f}–{value['high']:.3f})"


def _percent(value: Any) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
