"""The cells of the paper's table: each reads one number out of one document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]
Cell = dict[str, Any]


def absent(why: str) -> Cell:
    """A cell without a number."""
    return {"absent": why}


def cell(
    value: Json, *, unit: str = "", digits: int = 3, sign: bool = False, protocol: str, seed: Any, n: str, command: str,
    note: str = "",
) -> Cell:  # fmt: skip
    """A number as it is told, and all that it takes to make it again.

    Args:
        value: `value`, `low` and `high`; the ends are a 95 % interval unless `protocol` says otherwise, or None.
        unit: after the number; digits: behind the point; sign: show a plus.
        protocol: what was measured, on what, and what the interval is.
        seed: that of the run, or those of the trainings.
        n: how many of what.
        command: what a person types.
        note: what must stand beside the number.
    """
    if value.get("value") is None:
        return absent("undefined: the clips do not support it")
    form = f"{'+' if sign else ''}.{digits}f"

    def told(x: float) -> str:
        return format(x, form).replace("-", "−")

    low, high = value.get("low"), value.get("high")
    return {
        "value": value["value"], "low": low, "high": high, "unit": unit,
        "text": f"{told(value['value'])}{f' {unit}' if unit else ''}",
        "ends": None if low is None or high is None else f"{told(low)} to {told(high)}",
        "protocol": protocol, "seed": seed, "n": n, "command": command, "note": note,
    }  # fmt: skip


def seed_of(metrics: Json) -> Any:
    """The seed of a run."""
    return (metrics.get("parameters") or {}).get("seed")


def command_of(metrics: Json) -> str:
    """What makes a run."""
    parameters = metrics.get("parameters") or {}
    words = ["cryfed retrain"]
    if parameters.get("manifest"):
        words.append("--manifest CLIPS")
    words += [
        f"--{name} {parameters[name]}"
        for name in ("preset", "rounds", "seed")
        if parameters.get(name) is not None
    ]
    return " ".join(words)


def _kind(metrics: Json) -> str:
    return "synthetic cries" if (metrics.get("data") or {}).get("synthetic") else "recorded cries"


def _groups(value: Json) -> str:
    return f"{value.get('groups', '–')} infants or devices"


def _interval(evaluation: Json) -> str:
    return str((evaluation.get("protocol") or {}).get("interval", "95 % interval by bootstrap over groups"))


def reason_score(metrics: Json, key: str) -> Cell:
    """Macro-F1 or AUC of the reasons on the test part."""
    evaluation = metrics.get("evaluation") or {}
    reason = evaluation.get("reason")
    if not reason:
        return absent("no reason head was judged")
    ships = (evaluation.get("release") or {}).get("ship_reason_head")
    part = "of the test part, no group of which was trained or selected on"
    return cell(
        reason[key],
        protocol=f"{_kind(metrics)} {part}; {_interval(evaluation)}",
        seed=seed_of(metrics),
        n=f"{reason['clips']} cries of {_groups(reason[key])}",
        command=command_of(metrics),
        note="" if ships else "withheld by the release gate",
    )


def reason_ece(metrics: Json) -> Cell:
    """ECE of the top reason after a temperature per site."""
    evaluation = metrics.get("evaluation") or {}
    reason = evaluation.get("reason")
    if not reason:
        return absent("no reason head was judged")
    after = reason["calibration"]["after"]
    return cell(
        after["ece"],
        protocol=f"{_kind(metrics)} of the test part; temperature per site from its validation clips; ten bins of equal width "
        f"(adaptive bins {_three(after['adaptive_ece'])}); {_interval(evaluation)}",
        seed=seed_of(metrics),
        n=f"{reason['clips']} cries of {_groups(after['ece'])}",
        command=command_of(metrics),
    )  # fmt: skip


def signal_notes(metrics: Json) -> Iterator[str]:
    """Whether a run's labels carry a signal, as its permutation test says."""
    test = (metrics.get("evaluation") or {}).get("permutation") or {}
    if test.get("p") is not None:
        yield (
            "Labels of the real clips are what carers wrote down; dealt out anew at random they score as well with p = "
            f"{test['p']:.3f}."
        )


def ece_notes(metrics: Json) -> Iterator[str]:
    """What an ECE of these clips is worth."""
    evaluation = metrics.get("evaluation") or {}
    reason = evaluation.get("reason")
    if not reason:
        return
    constant = ((evaluation.get("systems") or {}).get("majority") or {}).get("reason_ece")
    guess = f" and a constant guess of the training shares {constant:.3f}" if constant is not None else ""
    right = _three(reason["calibration"]["ece_if_calibrated"])
    yield f"Exactly right confidences would show {right} on as many {_kind(metrics)}{guess}."


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def denoiser_synthetic(ablation: Json) -> Cell:
    """Points of macro-F1 at 0 dB that the recipe has above itself without the denoiser."""
    found = next((c for c in ablation["changes"] if c["name"] == "no_denoiser"), None)
    if found is None:
        return absent("the ablation has no arm without the denoiser")
    return cell(
        flipped(found["difference"]["noisy_macro_f1"], 100.0),
        unit="points of macro-F1", digits=1, sign=True,
        protocol=f"recipe less the same without denoiser, preset {ablation['plan']['preset']}, at {ablation['noisy_db']:g} dB "
        "under noise of unheard classes; paired by seed, which redraws pretraining too; 95 % interval of the mean over seeds"
        + _caution(ablation),
        seed=", ".join(map(str, found["seeds"])),
        n=f"{len(found['seeds'])} seeds, {ablation['infants']['test']} held-out infants",
        command=ablation["command"],
    )  # fmt: skip


def denoiser_real(evidence: Json) -> Cell:
    """Points of the gate's AUROC at 0 dB that the central arm has above the one without the denoiser."""
    gate = evidence["gate"]
    rows = gate["differences"].get("central − no-denoiser") or []
    at_zero = next((r["all"] for r in rows if r["noise"] == "public" and r["snr_db"] == 0.0), None)
    if at_zero is None:
        return absent("the evidence holds no arm without the denoiser: let `cryfed evidence` finish")
    counts, arm = evidence["counts"], gate["arms"].get("no-denoiser") or {}
    return cell(
        flipped(at_zero, 100.0, sign=1.0),
        unit="points of gate AUROC", digits=1, sign=True,
        protocol="central less the same without denoiser, grouped folds, public noise at 0 dB on cries and non-cries; paired "
        "bootstrap over devices, 95 %" + _caution(evidence),
        seed=", ".join(map(str, arm.get("seeds", []))),
        n=f"{counts['cries']} cries of {counts['groups_of_cries']} devices",
        command=evidence["command"],
    )  # fmt: skip


def flipped(value: Json, scale: float, sign: float = -1.0) -> dict[str, float | None]:
    """A difference the other way round (sign −1), scaled; its ends change places with it."""
    if value["value"] is None:
        return {"value": None, "low": None, "high": None}
    ends = [value["low"], value["high"]]
    scaled = sorted(sign * scale * e for e in ends) if None not in ends else [None, None]
    return {"value": sign * scale * value["value"], "low": scaled[0], "high": scaled[1]}


def _caution(document: Json) -> str:
    return "; A QUICK LOOK, WHICH MEANS NOTHING" if document.get("quick") else ""


def rounds_to_converge(experiments: Json) -> Cell:
    """Rounds to the target of the arm with control variates, in the least skewed setting where all sites are asked."""
    from infra.experiments.summarise import mean_interval

    settings = sorted(experiments["settings"], key=lambda s: (-s["participation"], -s["alpha"]))
    found = next(((s, a) for s in settings for a in s["arms"] if a["arm"] == "cv"), None)
    if found is None:
        return absent("the experiments have no arm with control variates")
    setting, arm = found
    plan, by_seed = experiments["plan"], arm["rounds_to_target"]["by_seed"]
    never = sum(r is None for r in by_seed)
    return cell(
        mean_interval([float(plan["rounds"] + 1 if r is None else r) for r in by_seed]),
        unit="rounds", digits=0,
        protocol=f"control variates, α = {setting['alpha']:g}, {setting['participation']:.0%} of {plan['sites']} sites a round, "
        f"preset {plan['preset']}; target macro-F1 {setting['target']:.3f}; 95 % interval of the mean over seeds"
        + (f"; {never} seeds never reached it and count as {plan['rounds'] + 1}" if never else "")
        + _caution(experiments),
        seed=", ".join(map(str, arm["seeds"])),
        n=f"{len(by_seed)} seeds of at most {plan['rounds']} rounds",
        command=_experiments_command(experiments),
    )  # fmt: skip


def rounds_saved(experiments: Json) -> Cell:
    """Share of the rounds that control variates save, over all settings."""
    found = next(
        (c for c in experiments["comparisons"] if (c["with"], c["without"]) == ("cv", "average")), None
    )
    if found is None:
        return absent("the experiments compare no control variates")
    settings = found["settings"]
    return cell(
        flipped(found["overall"], 100.0, sign=1.0),
        unit="%", digits=0, sign=True,
        protocol="control variates against averaging, rounds to the target, geometric mean over settings (one kind of sites "
        "and share of them a round each), paired by seed; 95 % interval over seeds; negative: more rounds"
        + _caution(experiments),
        seed=", ".join(map(str, settings[0]["seeds"])),
        n=f"{len(settings)} settings × {len(settings[0]['seeds'])} seeds",
        command=_experiments_command(experiments),
    )  # fmt: skip


def _experiments_command(experiments: Json) -> str:
    return str(experiments.get("command", "cryfed experiments"))


def upload(metrics: Json) -> Cell:
    """Mean upload of a site and round, everything counted; its ends are the least and the most."""
    federation = metrics.get("federation") or {}
    sizes = [n / 1e6 for r in federation.get("rounds") or [] for n in r["bytes_up"].values()]
    if not sizes:
        return absent("no federated round was run")
    count = federation.get("parameters")
    what = f"{count:,} numbers, " if count else ""
    return cell(
        {"value": sum(sizes) / len(sizes), "low": min(sizes), "high": max(sizes)},
        unit="MB", digits=2,
        protocol=f"adapters and heads, {what}{travels(federation)}; every byte of the round is counted; the ends are the least "
        "and the most, no interval",
        seed=seed_of(metrics),
        n=f"{len(federation['rounds'])} rounds, {len(sizes)} uploads",
        command=command_of(metrics),
    )  # fmt: skip


def travels(federation: Json) -> str:
    """How a site's update travels, in words."""
    plan = federation.get("plan") or {}
    codec = plan.get("codec")
    width = f"{codec['bits']} bits each after a public rotation" if codec else "float32"
    masks = "summed under masks that only cancel in the sum" if plan.get("secure") else "not masked"
    return f"{width}, {masks}"


def latency_of_run(metrics: Json) -> Cell:
    """What a run timed when it exported its graph."""
    export = metrics.get("export") or {}
    found = export.get("latency_ms") or {}
    if "p50" not in found:
        return absent("no graph was exported")
    return latency(found, clips="clips of the corpus", seed=seed_of(metrics), command=command_of(metrics))


def latency(
    found: Json, *, clips: str = "frames of noise", seed: Any = 0, command: str = "cryfed reproduce"
) -> Cell:
    """A measurement of `infra.edge.latency`."""
    return cell(
        {"value": found["p50"], "low": found.get("low"), "high": found.get("high")},
        unit="ms median", digits=1,
        protocol=f"ONNX Runtime, float32, one thread, one frame at a time, on {found.get('on', 'this machine')}; 95th percentile "
        f"{found['p95']:.1f} ms; order-statistic interval of the median, 95 %; not a Jetson",
        seed=seed,
        n=f"{found.get('n', '–')} {clips}",
        command=command,
    )  # fmt: skip
