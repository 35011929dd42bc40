"""The paper's claims beside what this run measured, and under which conditions.

Source of the claims: arXiv 2512.13880, "Privacy-Enhancing Infant Cry Classification with Federated Transformers and Denoising
Regularization".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]


def paper_table(metrics: Json) -> list[dict[str, str]]:
    """Rows of claim, claimed, measured, conditions; a thing that this run did not measure says so."""
    evaluation = metrics.get("evaluation") or {}
    return [
        _accuracy(metrics, evaluation),
        _calibration(evaluation),
        _upload(metrics.get("federation") or {}),
        _latency(metrics.get("export") or {}),
        _control_variates(metrics.get("federation") or {}),
        _denoising(metrics, evaluation),
    ]


def _row(claim: str, claimed: str, measured: str | None, conditions: str) -> dict[str, str]:
    return {
        "claim": claim,
        "claimed": claimed,
        "measured": measured or "not measured in this run",
        "conditions": conditions,
    }


def _with_interval(value: Json | None) -> str:
    if not value or value["value"] is None:
        return "–"
    ends = f" ({value['low']:.3f}–{value['high']:.3f})" if value["low"] is not None else ""
    return f"{value['value']:.3f}{ends}"


def _accuracy(metrics: Json, evaluation: Json) -> dict[str, str]:
    reason, counts = evaluation.get("reason"), evaluation.get("counts") or {}
    kind = "synthetic cries" if (metrics.get("data") or {}).get("synthetic") else "recorded cries"
    measured = f"{_with_interval(reason['macro_f1'])} / {_with_interval(reason['auc'])}" if reason else None
    conditions = (
        f"{counts.get('cries_with_reason', 0)} {kind} of {reason['macro_f1']['groups']} infants or devices "
        "that no site trained on; split by group before any augmentation"
        if reason
        else "no reason head was judged"
    )
    return _row("Reason macro-F1 / AUC", "0.938 / 0.962", measured, conditions)


def _calibration(evaluation: Json) -> dict[str, str]:
    reason = evaluation.get("reason")
    if not reason:
        return _row("ECE after temperature scaling", "0.032", None, "no reason head was judged")
    c = reason["calibration"]
    constant = ((evaluation.get("systems") or {}).get("majority") or {}).get("reason_ece")
    guess = f", a constant guess of the training shares {constant:.3f}" if constant is not None else ""
    return _row(
        "ECE after temperature scaling",
        "0.032",
        _with_interval(c["after"]["ece"]),
        f"temperature per site; adaptive bins {c['after']['adaptive_ece']:.3f}; exactly right confidences would show "
        f"{c['ece_if_calibrated']:.3f} on this many clips{guess}",
    )


def _upload(federation: Json) -> dict[str, str]:
    rounds = federation.get("rounds") or []
    sizes = [n for r in rounds for n in r["bytes_up"].values()]
    if not sizes:
        return _row("Upload per site and round", "3.3 MB", None, "")
    codec = travels(federation)
    count = federation.get("parameters")
    return _row(
        "Upload per site and round",
        "3.3 MB (36–42 MB before)",
        f"{sum(sizes) / len(sizes) / 1e6:.2f} MB",
        f"adapters and heads only, {count:,} parameters, {codec}" if count else codec,
    )


def travels(federation: Json) -> str:
    """How a site's update travels, in words."""
    plan = federation.get("plan") or {}
    codec = plan.get("codec")
    width = f"{codec['bits']} bits each after a public rotation" if codec else "float32"
    masks = "summed under masks that only cancel in the sum" if plan.get("secure") else "not masked"
    return f"{width}, {masks}"


def _latency(export: Json) -> dict[str, str]:
    latency = export.get("latency_ms") or {}
    return _row(
        "Latency of a one-second frame",
        "96 ms median, Jetson Nano, TensorRT FP16",
        f"{latency['p50']:.1f} ms median" if "p50" in latency else None,
        f"{export.get('latency_on', 'ONNX Runtime, one thread of this machine')}; not a Jetson"
        if latency
        else "no Jetson here",
    )


def _control_variates(federation: Json) -> dict[str, str]:
    used = bool((federation.get("plan") or {}).get("control_variates"))
    return _row(
        "Control variates",
        "25 % fewer rounds",
        None,
        "needs a comparison over several seeds" if used else "this run averages with a proximal term",
    )


def _denoising(metrics: Json, evaluation: Json) -> dict[str, str]:
    gain = (metrics.get("ablation") or {}).get("denoiser_macro_f1_at_0_db")
    at_zero = next((r for r in evaluation.get("snr") or [] if r["snr_db"] == 0), None)
    noisy = at_zero["macro_f1"] if at_zero else None
    conditions = (
        f"macro-F1 at 0 dB is {_with_interval(noisy)} with the denoiser, on noise unseen in training"
        if noisy
        else ""
    )
    return _row(
        "Denoising",
        "+2.1 macro-F1 points at 0 dB",
        f"{100 * gain:+.1f} points" if gain is not None else None,
        conditions,
    )
