"""The data-quality gate alone: on demand, on new data, and as the first part of retraining."""

from __future__ import annotations

from prefect import flow

from flows.parameters import GateParameters
from infra.settings import home
from tasks.corpus import corpus
from tasks.gate import enforce_gate, judge, measure, show_verdict
from tasks.incoming import identify
from tasks.runtime import open_runtime


@flow(name="gate", persist_result=True, result_serializer="json")
def gate(parameters: GateParameters) -> dict[str, str | None]:
    """Check a corpus; return the URIs of its table and its verdict, and the reason of an override.

    Raises:
        GateError: a critical rule is broken and no override was given.
    """
    with open_runtime():
        manifest, split = str(home() / parameters.manifest), parameters.split.model_dump()
        table = corpus(config={"manifest": identify(manifest), "split": split}, local={"manifest": manifest})
        measurements = measure(manifest, split)
        verdict = judge(
            config={
                "split": split,
                "measured": {site: uri.rsplit("#", 1)[1] for site, uri in measurements.items()},
            },
            parents={"corpus": table},
            local={"manifest": manifest, "measurements": measurements},
        )
        show_verdict(verdict)
        reason = enforce_gate(verdict, parameters.override)
    return {"corpus": table, "verdict": verdict, "override": reason}
