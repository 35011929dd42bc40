"""The card's parts about how a release came to be: data, training, calibration, provenance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from infra.edge.card_markdown import bullets, number, plain, table
from infra.edge.release import BundleManifest, CalibrationDocument

CARD_NAME: Final = "model_card.md"


def data(manifest: BundleManifest) -> Iterator[str]:
    """What it learned from and was tested on: corpora, licences, sites, groups, parts."""
    known, counts = manifest.data, manifest.evidence.get("counts")
    facts: Any = manifest.evidence.get("data") or {}
    kind = (
        "SYNTHETIC recordings: the numbers say nothing about infants"
        if known.synthetic
        else "real recordings"
    )
    lines = [f"Learned from {kind}.", f"Manifest of clips: `{known.manifest_digest}`."]
    if known.corpora:
        lines.append(f"Corpora: {', '.join(map(plain, known.corpora))}.")
    lines.append(
        f"Split by group (an infant or a recording device) into {known.n_folds} folds: fold {known.test_fold} was tested on and "
        f"never trained or selected on, fold {known.val_fold} selected and calibrated."
    )
    if isinstance(counts, Mapping):
        lines.append(
            f"Tested on {counts['clips']} clips of {counts['sites']} sites: {counts['cries']} cries of "
            f"{counts['groups_of_cries']} groups, {counts['site_noncries']} other sounds of the same sites, "
            f"{counts['public_noncries']} of public noise."
        )
    lines.append(f"Calibrated for {len(manifest.calibrations)} sites, and pooled for any other.")
    yield from bullets(lines)
    yield ""
    if facts.get("corpora"):
        rows = (
            (plain(r["corpus"]), plain(r["licence"] or "not stated"), str(r["clips"]), str(r["groups"]))
            for r in facts["corpora"]
        )
        yield from table(("corpus", "licence", "clips", "groups"), rows)
    if facts.get("parts"):
        parts: Iterable[Sequence[str]] = (
            (plain(name), *(str(part[key]) for key in ("groups", "cries", "noncries", "public")))
            for name, part in facts["parts"].items()
        )  # fmt: skip
        yield from table(("part", "groups", "cries", "other sounds of the sites", "public noise"), parts)
    if facts.get("sites"):
        sites: Iterable[Sequence[str]] = (
            (plain(r["site"]), *(str(r[key]) for key in ("groups", "cries", "noncries"))) for r in facts["sites"]
        )  # fmt: skip
        yield from table(("site, all parts", "groups", "cries", "other sounds"), sites)


def training(found: Any) -> Iterator[str]:
    """How it was trained, phase by phase: rounds, what travelled and how, privacy."""
    if not found:
        return
    yield "## How it was trained"
    yield ""
    yield "Denoiser, tokenizer and backbone were pretrained on public and synthetic audio; recordings never left their site."
    yield ""
    for phase in found:
        yield from bullets([_phase(phase)])
    yield ""


def _phase(phase: Mapping[str, Any]) -> str:
    codec = phase.get("codec")
    width = f"{codec['bits']} bits a number" if codec else "float32"
    masks = "under masks that cancel in the sum over sites" if phase.get("secure") else "not masked"
    extras = [
        name
        for name, used in (
            ("control variates", phase.get("control_variates")),
            (f"a proximal term (μ = {phase.get('prox_mu') or 0:g})", phase.get("prox_mu")),
        )
        if used
    ]
    privacy = phase.get("privacy")
    noise = f"differential privacy: {plain(privacy)}" if privacy else "no differential privacy on record"
    size = phase.get("upload_bytes")
    upload = f", {size / 1e6:.2f} MB a site and round" if size else ""
    return (
        f"{plain(phase['name'])}: {phase['rounds']} rounds over {phase['sites']} sites; {phase['parameters']:,} numbers travel, "
        f"{width}, {masks}{upload}; {' and '.join(extras) or 'plain averaging'}; {noise}."
    )


def calibration(manifest: BundleManifest) -> Iterator[str]:
    """Per site: temperature, bias and threshold, and the calibration error that they leave on the test part."""
    if not manifest.calibrations:
        return
    yield "## Calibration by site"
    yield ""
    yield "Fitted on each site's own validation clips; the gate's ECE is that on its test clips, before and after."
    yield ""
    sites: Any = manifest.evidence.get("sites") or []
    error = {r["site"]: r.get("gate_ece") or {} for r in sites}
    known = [*sorted(manifest.calibrations.items()), ("", manifest.default_calibration)]
    reasons = bool(manifest.reasons)
    head = (
        "site",
        "fitted on",
        "T",
        "bias",
        "threshold",
        *(("T, reasons",) if reasons else ()),
        "ECE before",
        "after",
    )
    yield from table(head, (_calibrated(name, c, error.get(name, {}), reasons) for name, c in known))
    spreads: Any = manifest.evidence.get("calibration_spread") or {}
    spread = spreads.get("gate_ece_after")
    if spread:
        yield (
            f"Across sites the gate's ECE after calibration is {number(spread['mean'])} on average, from {number(spread['min'])} "
            f"to {number(spread['max'])}."
        )
        yield ""


def _calibrated(
    name: str, c: CalibrationDocument, error: Mapping[str, Any], reasons: bool
) -> tuple[str, ...]:
    fitted = f"{c.n_cries} cries, {c.n_noncries} others" if c.gate_fitted else "too few clips: defaults"
    of_reasons = (f"{c.reason_temperature:.2f}" if c.reason_fitted else "1, a default",) if reasons else ()
    return (
        plain(name) if name else "any other", fitted if name else "pooled", f"{c.gate_temperature:.2f}",
        f"{c.gate_bias:+.2f}".replace("-", "−"), f"{c.gate_threshold:.2f}", *of_reasons,
        number(error.get("before")), number(error.get("after")),
    )  # fmt: skip


def provenance(manifest: BundleManifest) -> Iterator[str]:
    """Digests that lead back to what it was made from."""
    found = manifest.provenance
    parents: Any = found.get("parents") or {}
    yield "## Provenance"
    yield ""
    lines = [f"Seed {found['seed']}."] if found.get("seed") is not None else []
    lines.append(f"Graph `model.onnx`: `{manifest.files['model.onnx'].sha256}`.")
    lines += [f"{plain(name)}: `{plain(digest)}`" for name, digest in sorted(parents.items())]
    yield from bullets(lines)
    yield ""
