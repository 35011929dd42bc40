"""The paper's table: claimed, measured on the synthetic benchmark, measured on real clips, and why they differ.

    retrain (synthetic) → retrain (real) → ablation → experiments → evidence → latency → table

It makes what is missing and reads what is there: run folders with the same parameters, finished trainings, documents. Killed and
run again, it goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.ablation import ablation
from flows.evidence import evidence
from flows.experiments import experiments
from flows.parameters import ReproduceParameters, RetrainParameters
from flows.retrain import retrain
from infra.settings import load_settings
from tasks.reproduce import find_run, tabulate, time_graphs

_SMALLEST: dict[str, Any] = {
    "preset": "tiny", "rounds": 3,
    "synth": {
        "sites": 3, "infants_per_site": 5, "cries_per_infant": 2, "noncries_per_site": 8, "public_noise": 30,
        "clip_seconds": 1.5,
    },
}  # fmt: skip


@flow(name="reproduce", persist_result=False)
def reproduce(parameters: ReproduceParameters | None = None) -> str:
    """Make the table; returns its page's path.

    Raises:
        CryfedError: a part cannot be made; what was made before it is kept.
    """
    wanted = parameters or ReproduceParameters()
    settings, quick = load_settings(), wanted.quick
    out = wanted.out or settings.runs_dir / ("reproduce-quick" if quick else "reproduce")
    clips = settings.data / "manifest.csv"
    runs: dict[str, str] = {}
    documents: dict[str, str] = {}
    missing: dict[str, str] = {}
    how: list[dict[str, str]] = []

    def train(name: str, chosen: RetrainParameters) -> None:
        found = None if wanted.again else find_run(chosen.model_dump(mode="json"))
        runs[name] = found or str(retrain(chosen)["folder"])
        told = (
            "read: a run with the same parameters"
            if found
            else "made: stages that were there came from the store"
        )
        how.append({"name": f"{name} clips", "from": Path(runs[name]).name, "how": told})

    def document(name: str, path: Path, told: str) -> None:
        documents[name] = str(path)
        how.append({"name": name, "from": f"{path.parent.name}/{path.name}", "how": told})

    train("synthetic", RetrainParameters.model_validate(_SMALLEST) if quick else RetrainParameters())
    if quick:
        missing["real"] = "absent: a quick look leaves the real clips out"
    elif clips.is_file():
        train("real", RetrainParameters(manifest=clips))
    else:
        missing["real"] = (
            "absent: there are no real clips (set CRYFED_DATA to a folder with their manifest.csv)"
        )

    where = out / "ablation" if quick else settings.runs_dir / "ablation"
    ablation(where, quick)
    document("ablation", where / "ablation.json", "made or resumed: cryfed experiments --plan ablation")

    whole = settings.runs_dir / "experiments"
    if wanted.full:
        experiments(whole)
    if (whole / "experiments.json").is_file() and not quick:
        document("experiments", whole / "experiments.json", "read: the whole plan of cryfed experiments")
    else:
        experiments(out / "experiments", quick, small=True)
        told = (
            "made or resumed: a quick plan"
            if quick
            else "made or resumed: a small plan, control variates alone"
        )
        document("experiments", out / "experiments" / "experiments.json", told)

    judged = settings.runs_dir / "evidence"
    if wanted.full and clips.is_file():
        evidence(clips, judged)
    if (judged / "evidence.json").is_file() and not quick:
        document("evidence", judged / "evidence.json", "read: cryfed evidence")
    else:
        missing["evidence"] = "absent: `cryfed evidence` has not been run (--full runs it, for hours)"

    timed = time_graphs(runs, paper_size=not quick)
    return str(tabulate(runs, documents, missing, how, timed, out, quick=quick))
