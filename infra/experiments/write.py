"""What a run leaves: every number as JSON, the page, and the summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.experiments.ablate import simple_model
from infra.experiments.ablation import AblationPlan, Training
from infra.experiments.ablation_page import render_ablation
from infra.experiments.ablation_summary import summarise_ablation
from infra.experiments.cells import Plan
from infra.experiments.page import render_page, render_summary
from infra.experiments.run import rates_of
from infra.experiments.summarise import summarise
from infra.experiments.world import WorldConfig, load_world
from infra.federation.files import write_atomic
from models.frames import TEST, TRAIN, VAL

Json = dict[str, Any]


def write_document(
    world: Path,
    config: WorldConfig,
    plan: Plan,
    tuned: Sequence[Json],
    measured: Sequence[Json],
    folder: Path,
) -> Path:
    """`experiments.json`, `experiments.html` and `summary.md` in `folder`; returns the page's path.

    Raises:
        OutputError: the folder cannot be written.
    """
    loaded = load_world(world)
    cells = plan.measured(rates_of(plan.tuning(), tuned))
    facts = {
        **config.to_dict(),
        "digest": loaded.digest,
        "infants": {name: len(loaded.infants(part)) for name, part in (("train", TRAIN), ("val", VAL), ("test", TEST))},
        "parameters": measured[0]["parameters"],
    }  # fmt: skip
    document = summarise(
        plan,
        facts,
        list(zip(plan.tuning(), tuned, strict=True)),
        list(zip(cells, measured, strict=True)),
    )
    page = folder / "experiments.html"
    document = json.loads(json.dumps(document, allow_nan=False))
    write_atomic(folder / "experiments.json", (json.dumps(document, indent=1) + "\n").encode())
    write_atomic(folder / "summary.md", render_summary(document).encode())
    write_atomic(page, render_page(document).encode())
    return page


def write_ablation(
    plan: AblationPlan, found: Sequence[tuple[Training, Json]], corpora: Path, folder: Path
) -> Path:
    """`ablation.json` and `ablation.html` in `folder`; returns the page's path. `corpora` holds what `make_corpora` made.

    Raises:
        OutputError: the folder cannot be written.
    """
    simple = {d: simple_model(plan.synth(d), corpora) for d in plan.difficulties}
    document = json.loads(json.dumps(summarise_ablation(plan, found, simple), allow_nan=False))
    page = folder / "ablation.html"
    write_atomic(folder / "ablation.json", (json.dumps(document, indent=1) + "\n").encode())
    write_atomic(page, render_ablation(document).encode())
    return page
