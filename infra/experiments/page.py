"""The experiments as one self-contained HTML page in the report's style, and as a summary in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.experiments import charts
from infra.report.pages import fill
from infra.report.render import count, est, num, seconds

Json = Mapping[str, Any]


def render_page(document: Json) -> str:
    """`experiments.json` → HTML; equal documents give equal pages."""
    shares = sorted({s["participation"] for s in document["settings"]}, reverse=True)
    drawn = {
        "by_megabyte": charts.by_megabyte(document),
        "options": charts.options(document),
        "savings": charts.savings(document),
        "gate": charts.by_round(document, shares[0], "gate_auroc"),
        **{f"by_round_{p:g}": charts.by_round(document, p) for p in shares},
    }
    return fill(
        Path(__file__).with_name("page.html.j2"),
        document,
        drawn,
        {
            "num": num,
            "est": est,
            "count": count,
            "seconds": seconds,
            "share": share,
            "share_est": share_est,
            "rounds": rounds,
            "signed": signed,
            "verdict": verdict,
        },
        shares=shares,
        answer=answer(document),
        titles=arm_titles(document),
    )


def arm_titles(document: Json) -> dict[str, str]:
    """What the page calls an arm, by name."""
    return {arm["name"]: arm["title"] for arm in (*document["plan"]["arms"], *document["plan"]["ablations"])}


def share(value: float | None) -> str:
    """A share in percent with its sign as written."""
    return "–" if value is None else f"{100 * value:.0f} %".replace("-", "−")


def share_est(value: Json) -> Any:
    """A share with its interval, the interval smaller."""
    from markupsafe import Markup

    if value["low"] is None:
        return share(value["value"])
    return Markup("{} <small>{} to {}</small>").format(
        share(value["value"]), share(value["low"]), share(value["high"])
    )


def signed(value: Json) -> Any:
    """A difference with its sign, and its interval."""
    from markupsafe import Markup

    def one(x: float) -> str:
        return f"{x:+.3f}".replace("-", "−")

    if value["low"] is None:
        return one(value["value"])
    return Markup("{} <small>{} to {}</small>").format(
        one(value["value"]), one(value["low"]), one(value["high"])
    )


def rounds(values: list[int | None]) -> str:
    """Rounds by seed; a dash where the target was never reached."""
    return ", ".join("–" if v is None else str(v) for v in values)


def verdict(value: Json, up: str = "fewer rounds", down: str = "more rounds") -> str:
    """What an interval of a saving, or of another difference, allows one to say."""
    if value["low"] is None:
        return "one seed says nothing"
    if value["low"] > 0:
        return up
    return down if value["high"] < 0 else "no difference shown"


def answer(document: Json) -> str:
    """The page's first sentence: what control variates did here, whatever it was."""
    comparison = next(
        (c for c in document["comparisons"] if (c["with"], c["without"]) == ("cv", "average")), None
    )
    if comparison is None:
        return "This run compares no control variates."
    overall, settings = comparison["overall"], comparison["settings"]
    verdicts = [verdict(s["saving"]) for s in settings]
    ends = ""
    if overall["low"] is not None:
        ends = f" (95 % interval: {fewer(overall['high'])} to {fewer(overall['low'])})"
    return (
        f"Over {len(settings)} settings, training with control variates took {fewer(overall['value'])} rounds to the target"
        f"{ends}; the paper claims {fewer(document['definitions']['claim'])}. Taken singly, "
        f"{verdicts.count('fewer rounds')} of the {len(settings)} settings show fewer rounds and "
        f"{verdicts.count('more rounds')} more; the others show no difference."
    )


def fewer(saved: float) -> str:
    """A saving in words."""
    return f"{100 * abs(saved):.0f} % {'fewer' if saved >= 0 else 'more'}"


def render_summary(document: Json) -> str:
    """`experiments.json` → Markdown."""
    titles = arm_titles(document)
    lines = ["# Control variates, proximal term and codec: convergence", "", answer(document), ""]
    world, plan = document["plan"]["world"], document["plan"]
    lines += [
        f"{plan['sites']} sites, {plan['rounds']} rounds, {len(plan['seeds'])} seeds, preset `{plan['preset']}`, "
        f"{plan['local']['steps']} local steps of {plan['local']['batch_size']} a round; synthetic cries of "
        f"{world['infants']['train']} training and {world['infants']['test']} held-out infants. "
        f"Target: {share(document['definitions']['target'])} of the best arm's final macro-F1 in the setting.", "",
    ]  # fmt: skip
    for setting in document["settings"]:
        lines += [
            f"## α = {setting['alpha']:g}, {share(setting['participation'])} of the sites a round "
            f"(target {setting['target']:.3f}, label skew {setting['skew']:.2f})", "",
            "| arm | lr | final macro-F1 | mean over rounds | rounds to target, by seed | MB to target | final gate AUROC |",
            "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for arm in setting["arms"]:
            to = arm["rounds_to_target"]
            columns = (
                f"{titles[arm['arm']]} (`{arm['arm']}`)", f"{arm['lr']:g}", _plain(arm["final"]), _plain(arm["mean_over_rounds"]),
                rounds(to["by_seed"]), num(to["mb"], 2), _plain(arm["final_gate"]),
            )  # fmt: skip
            lines.append(f"| {' | '.join(columns)} |")
        lines.append("")
    lines += [
        "## Paired comparisons", "",
        "| what | setting | rounds saved | final macro-F1 | macro-F1, mean over rounds |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for c in document["comparisons"]:
        for s in c["settings"]:
            lines.append(
                f"| {c['question']} | α = {s['alpha']:g}, {share(s['participation'])} | {_plain_share(s['saving'])} "
                f"| {_plain(s['final_difference'], sign=True)} | {_plain(s['mean_difference'], sign=True)} |"
            )
        lines.append(f"| {c['question']} | **all settings** | **{_plain_share(c['overall'])}** | | |")
    return "\n".join(lines) + "\n"


def _plain(value: Json, *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    text = format(value["value"], form)
    return text if value["low"] is None else f"{text} ({value['low']:{form}} to {value['high']:{form}})"


def _plain_share(value: Json) -> str:
    text = share(value["value"])
    return text if value["low"] is None else f"{text} ({share(value['low'])} to {share(value['high'])})"
