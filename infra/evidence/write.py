"""From the cells' scores to `evidence.json` and its pages. What is not trained yet is named, and the rest is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from infra.evaluation.protocol import EvaluationConfig
from infra.evaluation.storage import load_scores
from infra.evidence.abstention import abstention_evidence
from infra.evidence.arms import CENTRAL, FEDERATED, PLAIN, Plan
from infra.evidence.calibration import calibration_document
from infra.evidence.cell_files import CellFiles
from infra.evidence.cells import Arm, Cell
from infra.evidence.gate import Seeds, gate_document, left_out_document, out_of_fold
from infra.evidence.hearing import BEHAVIOUR, LONG_RECORDINGS, Heard
from infra.evidence.suspects import suspects_document
from infra.evidence.world import World, WorldConfig, load_world
from infra.report.abstention import render_abstention
from infra.report.behaviour import render_behaviour
from infra.report.calibration import render_calibration
from infra.report.gate_evidence import render_gate
from infra.report.long_recordings import render_long_recordings
from infra.report.pages import navigation
from infra.report.render import write_page
from infra.report.suspects import render_suspects
from models.errors import DataError
from models.gate_training import upload_bytes
from models.predict import ClipScores

Json = dict[str, Any]

PAGE = "evidence.html"
HEARD: Final = {BEHAVIOUR: "behaviour", LONG_RECORDINGS: "long_recordings"}  # the pages' names


def write_evidence(
    world: Path,
    config: WorldConfig,
    plan: Plan,
    cells: Path,
    heard: Heard,
    out: Path,
    on_work: Callable[[str], None] = lambda _what: None,
) -> Path:
    """Write everything that the trained cells support; returns the first page.

    Raises:
        DataError: no arm has all folds of a seed.
        OutputError: `out` cannot be written.
    """
    loaded = load_world(world)
    arms, missing = read_arms(loaded, plan, cells)
    if not arms:
        raise DataError(f"no arm in {cells} has a seed with all its folds: train first")
    on_work("the gate")
    document = _document(loaded, config, plan, cells, arms, missing, heard)
    shown = ["evidence", "abstention", "calibration", "suspects", *(HEARD[name] for name in heard.documents)]
    pages = _Pages(out, shown, plan.quick)
    pages.put("evidence", document, render_gate)
    lead = arms.get(FEDERATED.name) or next(iter(arms.values()))
    on_work("clips that look mislabelled")
    suspects = suspects_document(loaded, lead)
    pages.put("suspects", suspects, render_suspects, without="pictures")
    on_work("abstention")
    abstention = abstention_evidence(
        lead, name="recordings", command=plan.command, config=EvaluationConfig(resamples=plan.resamples)
    )
    pages.put("abstention", abstention, render_abstention)
    on_work("calibration")
    pages.put("calibration", calibration_document(lead, plan.command), render_calibration)
    on_work("sounds")
    for name, render in ((BEHAVIOUR, render_behaviour), (LONG_RECORDINGS, render_long_recordings)):
        if name in heard.documents:
            pages.put(HEARD[name], heard.documents[name], render)
        else:
            pages.remove(HEARD[name])
    return out / PAGE


@dataclass(frozen=True)
class _Pages:
    """Documents and pages in one folder, each page with links to the others."""

    folder: Path
    shown: Sequence[str]
    quick: bool

    def put(self, name: str, document: Json, render: Callable[..., str], without: str = "") -> None:
        """`name`.json, without a part that only the page needs, and `name`.html."""
        document = {**document, "quick": self.quick}
        kept = {key: value for key, value in document.items() if key != without}
        write_page(json.dumps(kept, indent=1, allow_nan=False) + "\n", self.folder / f"{name}.json")
        write_page(render(document, navigation(name, self.shown)), self.folder / f"{name}.html")

    def remove(self, name: str) -> None:
        """What an earlier run left, where this one has nothing to say."""
        for ending in ("json", "html"):
            (self.folder / f"{name}.{ending}").unlink(missing_ok=True)


def read_arms(world: World, plan: Plan, cells: Path) -> tuple[dict[str, Seeds], list[str]]:
    """Out-of-fold scores of every arm and seed that has all folds, and what is missing."""
    arms: dict[str, dict[int, ClipScores]] = {}
    missing = []
    for arm in (*plan.arms, *plan.once):
        for seed in plan.seeds_of(arm):
            paths = [_path(world, cell, cells) for cell in plan.cells(arm, seed)]
            if all(p.is_file() for p in paths):
                arms.setdefault(arm.name, {})[seed] = out_of_fold([load_scores(p) for p in paths])
            else:
                missing.append(f"{arm.name}, seed {seed}")
    return dict(arms), missing


def _path(world: World, cell: Cell, cells: Path) -> Path:
    return CellFiles.of(cell, world.digest, cells).scores


def _document(
    world: World,
    config: WorldConfig,
    plan: Plan,
    cells: Path,
    arms: dict[str, Seeds],
    missing: list[str],
    heard: Heard,
) -> Json:
    gate = gate_document(arms, plan.resamples)
    unheard = {arm.name: _left_out(world, plan, arm, cells, missing) for arm in plan.leave_out}
    left_out = {**unheard.pop(plan.leave_out[0].name), "seed": plan.seeds[0], "others": unheard}
    lead = CENTRAL.name if CENTRAL.name in arms else next(iter(arms))
    federated = next((arm for arm in plan.arms if arm.federated), None)
    net = world.network(CENTRAL.base)
    rows = world.rows
    cries = rows["role"] == "cry"
    return {
        "lead": lead,
        "synthetic": bool(rows["corpus"].str.startswith("synth").all()),
        "folds": plan.folds,
        "preset": config.preset,
        "parameters": sum(p.numel() for p in net.parameters()),
        "rounds": federated.training.rounds if federated else None,
        "upload_bytes": upload_bytes(net, federated.training, len(world.frames.learn) - 1)
        if federated
        else None,
        "counts": {
            "cries": int(cries.sum()),
            "groups_of_cries": int(rows["group"][cries].nunique()),
            "sites": len(world.frames.learn) - 1,
            "site_noncries": int((~cries & (rows["site"] != "")).sum()),
            "public_noncries": int((rows["site"] == "").sum()),
            "noise_classes": len(world.noise_classes),
        },
        "snrs": len({row["snr_db"] for arm in gate["arms"].values() for row in arm["noisy"]}),
        "gate": gate,
        "left_out": left_out,
        "bars": _bars(gate, left_out),
        "missing": "; ".join(missing),
        "unheard": heard.missing,
        "command": plan.command,
        "manifest": world.manifest,
        "world": world.digest,
        "config": config.to_dict(),
        "arms": [json.loads(json.dumps(asdict(arm))) for arm in (*plan.arms, *plan.once)],
    }


def _left_out(world: World, plan: Plan, arm: Arm, cells: Path, missing: list[str]) -> Json:
    """What an arm makes of each class of noise that it never heard."""
    scores = {}
    for cell in plan.left_out(arm, world.noise_classes):
        path = _path(world, cell, cells)
        if path.is_file():
            scores[cell.without] = load_scores(path)
        else:
            missing.append(f"{arm.name}, without {cell.without}")
    return left_out_document(scores, plan.resamples)


def _bars(gate: Json, left_out: Json) -> list[Json]:
    """What was asked of the gate before it was trained, and what came out."""
    out: list[Json] = []

    def bar(name: str, asked: float, measured: Json | None, *, text: str = "", points: bool = False) -> None:
        value = (measured or {}).get("value")
        out.append(
            {
                "name": name, "asked": text or f"≥ {asked:.3f}", "points": points,
                "measured": measured or {"value": None, "low": None, "high": None},
                "met": None if value is None else bool(value >= asked),
            }
        )  # fmt: skip

    for name in (CENTRAL.name, FEDERATED.name):
        arm = gate["arms"].get(name)
        if arm:
            bar(f"AUROC over all negatives, {name}", 0.970, arm["recorded"]["all"]["auroc"])
            bar(f"AUROC against the rejected uploads alone, {name}", 0.940, arm["recorded"]["site"]["auroc"])
            at_zero = [r for r in arm["noisy"] if r["noise"] == "public" and r["snr_db"] == 0.0]
            bar(
                f"AUROC with 0 dB noise on cries and non-cries, {name}",
                0.945,
                at_zero[0]["all"] if at_zero else None,
            )
            bar(f"AUROC of the energy, {name}", 0.950, arm["energy"]["all"])
    gap = gate["differences"].get(f"central − {FEDERATED.name}")
    if gap:
        recorded = next(r["all"] for r in gap if r["snr_db"] is None)
        ends = {
            "value": _minus(recorded["value"]),
            "low": _minus(recorded["high"]),
            "high": _minus(recorded["low"]),
        }
        bar("federated less central", -0.005, ends, text="≥ −0.5 points", points=True)
    gain = gate["differences"].get(f"central − {PLAIN.name}")
    if gain:
        for kind, title in (("public", "public noise"), ("site", "rejected uploads as noise")):
            at_zero = [r["all"] for r in gain if r["noise"] == kind and r["snr_db"] == 0.0]
            if at_zero:
                bar(
                    f"what the denoiser adds at 0 dB, {title}",
                    0.02,
                    at_zero[0],
                    text="≥ +2 points",
                    points=True,
                )
    bar("noise of a class never heard, mean AUROC", 0.930, left_out["mean"])
    return out


def _minus(value: float | None) -> float | None:
    return None if value is None else -float(np.round(value, 12))
