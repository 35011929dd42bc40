"""The ablation's tasks: the trainings, and the page."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from infra.experiments.ablate import Json, make_corpora, run_ablation
from infra.experiments.ablation import AblationPlan, Training
from infra.experiments.results import open_results
from infra.experiments.write import write_ablation
from tasks.progress import Board, StageProgress

CELLS = "ablation.jsonl"
Found = list[tuple[Training, Json]]


@task(name="ablation: trainings", persist_result=False)
def compare(plan: AblationPlan, folder: Path) -> Found:
    """Every training with its result; what is filed is not trained again."""
    with open_results(folder / CELLS) as results, StageProgress(Board(), "ablation") as progress:

        def tell(done: int, of: int, training: Training, result: Json) -> None:
            progress.update(
                done / of,
                f"{done} of {of}: {training.change.title}, difficulty {training.difficulty:g}, seed {training.seed}: "
                f"{result['recorded']['macro_f1']:.3f}",
            )

        make_corpora(plan, folder / "work", lambda text: progress.update(0.0, text))
        return run_ablation(plan, folder / "work", results, tell)


@task(name="ablation: page", persist_result=False)
def present(plan: AblationPlan, found: Found, folder: Path) -> Path:
    """Write ablation.json and ablation.html; returns the page."""
    return write_ablation(plan, found, folder / "work", folder)
