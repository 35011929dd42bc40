"""The model card of a release: what it is for, what it learned from, how, how good it is and where it is not.

Source: Mitchell et al., Model Cards for Model Reporting, https://arxiv.org/abs/1810.03993. Everything in it comes from the
bundle's manifest, which has it from the run's own documents, so that they cannot disagree. What a release of before lacks is
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from infra.edge.card_markdown import bullets, interval, number, percent, plain, table
from infra.edge.card_parts import CARD_NAME, calibration, data, provenance, training
from infra.edge.release import BundleManifest

__all__ = ["CARD_NAME", "INTENDED_USE", "LIMITS", "NOT_A_DEVICE", "OUT_OF_SCOPE", "model_card"]

NOT_A_DEVICE: Final = (
    "Research software, not a medical device: no diagnosis, treatment or alarm may depend on it."
)
INTENDED_USE: Final = (
    "Research on infant cries, and listening aids whose users know that they err and stay within earshot.",
    "A fleet runs it only after a named clinician has signed it off for that fleet.",
)
OUT_OF_SCOPE: Final = (
    "Watching over an infant in place of a person, or calling for one.",
    "Saying what ails an infant, or that nothing does: silence of this model is no sign of well-being.",
    "Telling infants apart, or their sex, age or origin.",
    "Sounds other than those of infants of the age and places described under Data.",
)
LIMITS: Final = (
    "A cry's reason is what carers wrote down, which no one can check.",
    "Noise of kinds that training never heard is the hardest: expect false alarms from it.",
    "It was judged clip by clip on short recordings, not on nights.",
    "Scores are of microphones and rooms like those of the sites above; elsewhere calibrate first, or expect worse.",
)
_GATE, _REASON = "cry or not, AUROC", "reason, macro-F1"
_KINDS: Final = {
    "all": "all of them", "site": "other sounds of the sites", "public": "public noise of unheard classes",
}  # fmt: skip


def model_card(manifest: BundleManifest) -> str:
    """The card in Markdown."""
    evidence, reasons = manifest.evidence, bool(manifest.reasons)
    why = f", and why it may be ({', '.join(map(plain, manifest.reasons))})" if reasons else ""
    lines = [
        "# Infant-cry classifier",
        "",
        f"**{NOT_A_DEVICE}**",
        "",
        f"Hears one second of 16 kHz audio at a time and says whether it is an infant's cry{why}, or abstains.",
        "",
        "## Intended use",
        "",
        *bullets(INTENDED_USE),
        "",
        "### Out of scope",
        "",
        *bullets(OUT_OF_SCOPE),
        "",
        "## Data",
        "",
        *data(manifest),
        *training(evidence.get("training")),
        "## How good it is",
        "",
        *_headline(evidence, reasons=reasons),
        "",
        *_negatives(evidence.get("negatives")),
        *_sites(evidence.get("sites")),
        *_snr(evidence.get("snr"), reasons=reasons),
        *_metadata(evidence.get("slices"), reasons=reasons),
        *_false_alarms(evidence.get("false_alarms_by_label")),
        *calibration(manifest),
        "## Limits",
        "",
        *bullets(LIMITS),
        *bullets(_measured_limits(manifest)),
        *bullets(plain(note, 1000) for note in manifest.notes),
        "",
        *provenance(manifest),
    ]
    return "\n".join(lines)


def _headline(evidence: Mapping[str, Any], *, reasons: bool) -> Iterator[str]:
    found = evidence.get("headline")
    if not isinstance(found, Mapping):
        yield "It was not evaluated."
        return
    protocol = evidence.get("protocol")
    how = protocol.get("interval") if isinstance(protocol, Mapping) else None
    yield f"In brackets: {plain(how)}." if how else "95 % intervals by bootstrap over groups."
    yield ""
    names = {"gate_auroc": _GATE, "gate_fpr95": "cry or not, false alarms at 95 % sensitivity"}
    if reasons:
        names |= {"macro_f1": _REASON, "auc": "reason, AUC", "reason_ece": "reason, ECE after temperature"}
    values = ((label, interval(found.get(key))) for key, label in names.items() if key in found)
    yield from table(("", "value"), values)
    decision = evidence.get("decision")
    if isinstance(decision, Mapping):
        verb = "ships" if decision.get("ship_reason_head") else "is withheld"
        yield f"The reason head {verb}: {plain(decision.get('why'), 1000)}."


def _negatives(found: Any) -> Iterator[str]:
    """The gate against each kind of what is not a cry: one number over all of them hides the hardest."""
    if not found:
        return
    yield "### By kind of what is not a cry"
    yield ""
    rows = [
        (title, number(found[kind].get("clips"), 0), interval(found[kind]["auroc"]), interval(found[kind]["fpr95"]))
        for kind, title in _KINDS.items()
        if kind in found
    ]  # fmt: skip
    yield from table(("against", "clips", _GATE, "false alarms at 95 % sensitivity"), rows)


def _sites(rows: Any) -> Iterator[str]:
    """Without reasons: a site's few infants seldom have more than two of them, and a macro-F1 of those misleads."""
    if not rows:
        return
    yield "### By site"
    yield ""
    yield from table(
        ("site", "groups", "cries", _GATE),
        ((plain(r["site"]), str(r["groups"]), str(r["cries"]), interval(r["gate_auroc"])) for r in rows),
    )


def _snr(rows: Any, *, reasons: bool) -> Iterator[str]:
    if not rows:
        return
    yield "### By noise mixed in"
    yield ""
    head, names = _scores(reasons)
    yield from table(
        ("SNR", *head),
        (
            (
                "as recorded" if r["snr_db"] is None else f"{r['snr_db']:g} dB",
                *(interval(r[n]) for n in names),
            )
            for r in rows
        ),
    )


def _metadata(columns: Any, *, reasons: bool) -> Iterator[str]:
    """By platform, age and sex, where the manifest has them; against the sites' own sounds, as public noise has none of these."""
    head, names = _scores(reasons)
    for column, rows in (columns or {}).items():
        yield f"### By {plain(column)}"
        yield ""
        yield from table(
            (plain(column), "groups", "cries", *head),
            (
                (plain(r["value"]), str(r["groups"]), str(r["cries"]), *(interval(r[n]) for n in names))
                for r in rows
            ),
        )


def _scores(reasons: bool) -> tuple[Sequence[str], Sequence[str]]:
    """Heads and keys of what a slice tells."""
    return ((_GATE, _REASON), ("gate_auroc", "macro_f1")) if reasons else ((_GATE,), ("gate_auroc",))


def _false_alarms(rows: Any) -> Iterator[str]:
    if not rows:
        return
    yield "### False alarms by sound"
    yield ""
    yield from table(
        ("sound", "from", "clips", "called a cry"),
        (
            (plain(r["label"]), str(r["kind"]), str(r["clips"]), percent(r["called_cry"]))
            for r in sorted(rows, key=lambda r: (-(r["called_cry"] or 0.0), r["label"], r["kind"]))
        ),
    )


def _measured_limits(manifest: BundleManifest) -> Iterator[str]:
    """Limits that are numbers of this very run."""
    evidence, mel = manifest.evidence, manifest.model.get("log_mel")
    if isinstance(mel, Mapping) and isinstance(mel.get("f_max"), (int, float)):
        yield f"Nothing above {mel['f_max']:g} Hz is heard: what tells sounds apart only there is lost."
    found: Any = evidence.get("negatives") or {}
    unheard: Any = (found.get("public") or {}).get("auroc")
    if unheard and unheard.get("value") is not None:
        yield f"Against public noise of classes that training never heard, its AUROC is {interval(unheard)}."
    test: Any = evidence.get("permutation")
    if test and test.get("p") is not None:
        yield (
            f"Whether the labels carry a signal: dealing them out anew within each {plain(test.get('within', 'site'))} scores as "
            f"well with p = {test['p']:.3f}."
        )
    if manifest.data.synthetic:
        yield "All its numbers are of synthetic cries: they say that the pipeline works, not how infants cry."
