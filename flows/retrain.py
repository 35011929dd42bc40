"""The whole pipeline, from audio to a published release with a report.

    corpus → gate → features → pretrain → cry gate → federate → calibrate → evaluate → export → publish → report

On a schedule or on demand. What is unchanged since an earlier run is taken from the store; a run that was killed resumes.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.gate import gate
from flows.parameters import GateParameters, RetrainParameters
from flows.recipe import recipe
from infra.settings import home
from infra.stages import digests
from tasks.baselines import baselines, statistics
from tasks.central import central
from tasks.corpus import synthesise
from tasks.cry_gate import cry_gate
from tasks.evaluate import evaluate
from tasks.features import features, pool
from tasks.federate import federate
from tasks.membership import membership
from tasks.negatives import negatives
from tasks.pretrain import pretrain
from tasks.release import export, publish
from tasks.report import describe_corpus, finish, may_ship_reasons, new_run
from tasks.runtime import open_runtime
from tasks.score import calibrate


@flow(name="retrain", persist_result=True, result_serializer="json")
def retrain(parameters: RetrainParameters | None = None) -> dict[str, str]:
    """Run the pipeline; return the run's id and folder, and the release's name, version and digest.

    Raises:
        GateError: the data-quality gate stopped it before training.
        CryfedError: any other stage, with what to do about it.
    """
    parameters = parameters or RetrainParameters()
    plan = recipe(parameters)
    with open_runtime():
        run = new_run()
        manifest = str(home() / parameters.manifest) if parameters.manifest else synthesise(plan.synth)
        checked = gate(
            GateParameters(manifest=Path(manifest), split=parameters.split, override=parameters.override)
        )
        table, verdict = str(checked["corpus"]), str(checked["verdict"])
        corpus = describe_corpus(table)
        reasons, network = corpus["reasons"], plan.network
        shape = {"network": network, "reasons": reasons}

        pool_manifest = synthesise(plan.pool, namespace="public")
        frames = features(manifest, plan.split, verdict, {**plan.features, "reasons": reasons})
        pooled = pool(
            config={"split": plan.split, "pool": plan.pool, **plan.features},
            parents={"corpus": table},
            local={"manifest": manifest, "pool": pool_manifest, "verdict": verdict},
        )
        base = pretrain(config={**shape, **plan.pretrain}, parents={"pool": pooled}, seed=plan.seed)

        local = {"features": frames}
        others = negatives(
            config={"reasons": reasons, "features": digests(frames), **plan.negatives}, local=local
        )
        heard = base
        if plan.cry_gate is not None:
            hearing = {**shape, **plan.cry_gate, "features": digests(frames)}
            heard = cry_gate(
                config=hearing, parents={"base": base, "negatives": others}, seed=plan.seed, local=local
            )
        trained = {"base": heard, "negatives": others}
        order = {**shape, **plan.federate, "features": digests(frames)}
        theta = federate(config=order, parents=trained, seed=plan.seed, local=local)
        twin = central(config=order, parents=trained, seed=plan.seed, local=local)

        own = calibrate("federated", network, reasons, frames, heard, theta)
        twins = calibrate("central", network, reasons, frames, heard, twin)
        measured = statistics(manifest, plan.split, frames)
        simple = baselines(
            config={"features": digests(frames), "statistics": digests(measured)},
            seed=plan.seed,
            local={"features": frames, "statistics": measured},
        )
        evaluation = evaluate(
            config={"federated": digests(own), "central": digests(twins)},
            parents={"baselines": simple, "corpus": table, "gate": verdict},
            local={"federated": own, "central": twins, "baselines": simple, "corpus": table, "gate": verdict},
        )

        attacked = membership(
            config=order, parents={**trained, "federate": theta}, seed=plan.seed, local=local
        )

        bundle = export(
            config={
                **shape,
                "split": plan.split,
                "vad": plan.features["vad"],
                "calibration": digests(own),
                "ship_reasons": may_ship_reasons(evaluation),
                "data": corpus,
                "seed": plan.seed,
                "override": checked["override"],
            },
            parents={**trained, "federate": theta, "evaluate": evaluation, "gate": verdict, "corpus": table},
            local={"manifest": manifest, "calibration": own},
        )
        release = publish(bundle, parameters.release, parameters.channel, run["id"])
        uris = {
            "corpus": table,
            "gate": verdict,
            "drift_reference": str(checked["drift_reference"]),
            "pool": pooled,
            "pretrain": base,
            "negatives": others,
            **({"cry_gate": heard} if plan.cry_gate is not None else {}),
            "federate": theta,
            "central": twin,
            "baselines": simple,
            "evaluate": evaluation,
            "membership": attacked,
            "export": bundle,
        }
        folder = finish(run, uris, release, parameters.model_dump(mode="json"), checked["override"])
    return {
        "run": run["id"],
        "folder": folder,
        "name": release["name"],
        "version": str(release["version"]),
        "digest": release["digest"],
    }
