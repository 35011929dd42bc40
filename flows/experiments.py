"""How fast the federation learns: with and without control variates, proximal term and codec, over seeds and kinds of sites.

    data → learning rates → comparison → page

Every finished training is on disk; a run that was killed resumes where it stopped.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from infra.experiments import plans
from tasks.experiments import measure, prepare, present, tune


@flow(name="experiments", persist_result=False)
def experiments(out: Path, quick: bool = False, small: bool = False) -> str:
    """Run the plan, or a quick look at the machinery that shows nothing else, or control variates alone; returns the page's path.

    Raises:
        ConflictError: another run writes to the folder.
        OutputError: the folder cannot be written.
    """
    plan, config = (plans.QUICK, plans.QUICK_WORLD) if quick else (plans.FULL, plans.FULL_WORLD)
    if small and not quick:
        plan = plans.SMALL
    world = prepare(config, out)
    tuned = tune(world, plan, out)
    measured = measure(world, plan, tuned, out)
    return str(present(world, config, plan, tuned, measured, out))
