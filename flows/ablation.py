"""What each component is worth, and how hard the synthetic benchmark is.

    corpora → trainings → page

Every finished training is on disk; a run that was killed resumes where it stopped.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from infra.experiments import plans
from tasks.ablation import compare, present


@flow(name="ablation", persist_result=False)
def ablation(out: Path, quick: bool = False) -> str:
    """Run the plan, or a quick look at the machinery whose scores mean nothing; returns the page's path.

    Raises:
        ConflictError: another run writes to the folder.
        OutputError: the folder cannot be written.
    """
    plan = plans.ABLATION_QUICK if quick else plans.ABLATION
    return str(present(plan, compare(plan, out), out))
