"""The data-quality gate alone: on demand, on new data, and as the first part of retraining."""

from __future__ import annotations

from prefect import flow

from flows.parameters import GateParameters
from infra.settings import home
from infra.stages import digests
from tasks.corpus import corpus
from tasks.drift import drift, drift_reference
from tasks.gate import enforce_gate, judge, measure, probe, show_verdict
from tasks.incoming import identify
from tasks.runtime import open_runtime


@flow(name="gate", persist_result=True, result_serializer="json")
def gate(parameters: GateParameters) -> dict[str, str | None]:
    """Check a corpus; return the URIs of its table, verdict and drift reference, what drift was found, and an override's reason.

    Raises:
        GateError: a critical rule is broken and no override was given.
    """
    with open_runtime():
        manifest, split = str(home() / parameters.manifest), parameters.split.model_dump()
        table = corpus(config={"manifest": identify(manifest), "split": split}, local={"manifest": manifest})
        measurements = measure(manifest, split)
        probes = probe(manifest, split)
        verdict = judge(
            config={"split": split, "measured": digests(measurements), "probed": digests(probes)},
            parents={"corpus": table},
            local={"manifest": manifest, "measurements": measurements, "probes": probes},
        )
        show_verdict(verdict)
        drifted = drift(manifest, split, measurements)
        reason = enforce_gate(verdict, parameters.override)
        reference = drift_reference(
            config={"split": split, "measured": digests(measurements)},
            parents={"corpus": table},
            local={"manifest": manifest, "measurements": measurements},
        )
    return {
        "corpus": table,
        "verdict": verdict,
        "drift_reference": reference,
        "drift": drifted,
        "override": reason,
    }
