"""The paper's table: what it claims, what was measured on the synthetic benchmark and on real clips, and why they differ.

Source of the claims: arXiv 2512.13880, "Privacy-Enhancing Infant Cry Classification with Federated Transformers and Denoising
Regularization".

One table for two readers: a run's own report, which knows that run alone, and `cryfed reproduce`, which knows all that was
measured. A cell is a number with its interval, protocol, seed, n and the command that makes it, or the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from infra.report import paper_cells as cells
from infra.report.paper_cells import Cell, Json, absent

NOT_HERE: Final = "not measured in this run; `cryfed reproduce` measures it"
NO_CONVERGENCE: Final = "not measured: convergence is compared where labels are known to carry a signal"


@dataclass(frozen=True)
class Sources:
    """Documents that the table is made of; each may be missing, and `missing` says why by name.

    Attributes:
        synthetic, real: `metrics.json` of a run on either kind of clips.
        ablation: `ablation.json`; experiments: `experiments.json`; evidence: `evidence.json`.
        latency: "synthetic", "real" and "paper" → `infra.edge.latency.measure_latency`; the last also `upload_bytes` and
            `parameters` of the paper's size.
        missing: why a document is not there.
    """

    synthetic: Json | None = None
    real: Json | None = None
    ablation: Json | None = None
    experiments: Json | None = None
    evidence: Json | None = None
    latency: Mapping[str, Json] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def why_not(self, name: str) -> Cell:
        """A cell that says why there is no number."""
        return absent(self.missing.get(name, NOT_HERE))


def sources_of_run(metrics: Json) -> Sources:
    """What one run knows: its own column."""
    return (
        Sources(synthetic=metrics) if (metrics.get("data") or {}).get("synthetic") else Sources(real=metrics)
    )


def paper_document(sources: Sources) -> dict[str, Any]:
    """The table as JSON: `source`, `columns` and `rows` of claim, claimed, synthetic, real and why."""
    return {
        "source": "arXiv 2512.13880",
        "columns": {name: _column(sources, name) for name in ("synthetic", "real")},
        "rows": [
            _scores(sources, "Reason macro-F1", "0.938", "macro_f1"),
            _scores(sources, "Reason AUC", "0.962", "auc"),
            _calibration(sources),
            _denoiser(sources),
            _rounds(sources),
            _saving(sources),
            _upload(sources),
            _latency(sources),
        ],
    }


def _row(claim: str, claimed: str, synthetic: Cell, real: Cell, why: str) -> dict[str, Any]:
    return {"claim": claim, "claimed": claimed, "synthetic": synthetic, "real": real, "why": why}


def _column(sources: Sources, name: str) -> dict[str, Any]:
    """Which run a column is of."""
    metrics: Json | None = getattr(sources, name)
    if metrics is None:
        return {"absent": sources.missing.get(name, NOT_HERE)}
    run = metrics.get("run") or {}
    return {
        "run": run.get("id"),
        "created": run.get("created"),
        "release": (run.get("release") or {}).get("digest"),
        "seed": cells.seed_of(metrics),
        "preset": (metrics.get("model") or {}).get("preset"),
    }


def _both(sources: Sources, make: Any) -> tuple[Cell, Cell]:
    """A cell of either run."""
    return (
        sources.why_not("synthetic") if sources.synthetic is None else make(sources.synthetic),
        sources.why_not("real") if sources.real is None else make(sources.real),
    )


def _scores(sources: Sources, claim: str, claimed: str, key: str) -> dict[str, Any]:
    synthetic, real = _both(sources, lambda m: cells.reason_score(m, key))
    if key == "auc":
        return _row(claim, claimed, synthetic, real, "As above.")
    notes = [] if sources.real is None else cells.signal_notes(sources.real)
    why = (
        "The paper's split is not stated; oversampling before a random split gives such scores on shuffled labels too. Here no "
        "infant or device is on both sides. The synthesiser's reasons can be heard by construction, at a difficulty that is a "
        "setting. "
    ) + " ".join(notes)
    return _row(claim, claimed, synthetic, real, why.strip())


def _calibration(sources: Sources) -> dict[str, Any]:
    synthetic, real = _both(sources, cells.reason_ece)
    notes = [note for m in (sources.synthetic, sources.real) if m is not None for note in cells.ece_notes(m)]
    why = "A small ECE is no merit by itself: on imbalanced labels a constant answer has one. " + " ".join(
        notes
    )
    return _row("ECE after temperature scaling", "0.032", synthetic, real, why.strip())


def _denoiser(sources: Sources) -> dict[str, Any]:
    synthetic = (
        sources.why_not("ablation")
        if sources.ablation is None
        else cells.denoiser_synthetic(sources.ablation)
    )
    real = sources.why_not("evidence") if sources.evidence is None else cells.denoiser_real(sources.evidence)
    return _row(
        "Denoiser at 0 dB",
        "+2.1 points of macro-F1",
        synthetic,
        real,
        "The paper mixes in ESC-50 noise; whether its classes were heard in training is not stated. Here they were not. On "
        "real clips the gate's AUROC stands in for macro-F1, as their reasons cannot be checked.",
    )  # fmt: skip


def _of_experiments(sources: Sources, cell: Callable[[Any], Any]) -> Any:
    return sources.why_not("experiments") if sources.experiments is None else cell(sources.experiments)


def _rounds(sources: Sources) -> dict[str, Any]:
    synthetic = _of_experiments(sources, cells.rounds_to_converge)
    real = absent(NO_CONVERGENCE)
    return _row(
        "Rounds to converge",
        "50 rounds were run",
        synthetic,
        real,
        "The paper gives no target. Here it is 95 % of the best arm's final macro-F1, held over three rounds.",
    )


def _saving(sources: Sources) -> dict[str, Any]:
    synthetic = _of_experiments(sources, cells.rounds_saved)
    real = absent(NO_CONVERGENCE)
    return _row(
        "Rounds saved by control variates",
        "25 %",
        synthetic,
        real,
        "One figure there, without seeds or settings. Here every arm has a learning rate of its own, and seeds are paired: what "
        "a badly tuned baseline would lose is no gain of the method.",
    )  # fmt: skip


def _upload(sources: Sources) -> dict[str, Any]:
    synthetic, real = _both(sources, cells.upload)
    paper = sources.latency.get("paper")
    size = ""
    if paper:
        size = (
            f" At the paper's size ({paper['parameters']:,} numbers travel) the levels of one site and round take "
            f"{paper['upload_bytes'] / 1e6:.2f} MB, computed, without the masks' keys."
        )
    return _row(
        "Upload a site and round",
        "3.3 MB (36–42 MB before)",
        synthetic,
        real,
        f"Adapters and heads alone, as there; the default network is smaller than the paper's.{size}",
    )


def _latency(sources: Sources) -> dict[str, Any]:
    synthetic, real = _both(sources, cells.latency_of_run)
    for name, made in (
        ("synthetic", sources.latency.get("synthetic")),
        ("real", sources.latency.get("real")),
    ):
        if made is not None and name == "synthetic":
            synthetic = cells.latency(made)
        elif made is not None:
            real = cells.latency(made)
    paper, size = sources.latency.get("paper"), ""
    if paper:
        size = (
            f" A network of the paper's size takes {paper['p50']:.1f} ms ({paper['low']:.1f}–{paper['high']:.1f}) here, "
            "its weights untrained, which costs the same."
        )
    return _row(
        "Latency of a one-second frame",
        "96 ms median, Jetson Nano, TensorRT FP16",
        synthetic,
        real,
        "Not measured on a Nano: no Jetson was at hand. What was timed is the released graph in float32, ONNX Runtime, one "
        f"thread of this machine.{size}",
    )  # fmt: skip


def cells_of(document: Json) -> Sequence[tuple[str, str, Cell]]:
    """Every cell that holds a number, with its claim and column."""
    return [
        (row["claim"], column, row[column])
        for row in document["rows"]
        for column in ("synthetic", "real")
        if "absent" not in row[column]
    ]
