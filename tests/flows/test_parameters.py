"""What a person, a schedule or an event may ask of the flows, and how a refusal reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from flows.parameters import DeployParameters, GateParameters, RetrainParameters, SplitParameters

DIGEST = "0123456789abcdef" * 4


def test_defaults() -> None:
    retrain = RetrainParameters()
    assert (retrain.manifest, retrain.preset, retrain.release, retrain.channel) == (
        None,
        "compact",
        "infant-cry",
        "dev",
    )
    deploy = DeployParameters(channel="prod")
    assert (deploy.release, deploy.reference, deploy.expect) == ("infant-cry", None, None)
    # what a server stores is what comes back from it
    for parameters in (retrain, deploy, GateParameters(manifest=Path("a.csv"))):
        assert type(parameters).model_validate(parameters.model_dump(mode="json")) == parameters


@pytest.mark.parametrize("reference", ["1", "27", "latest", "dev", "staging", "prod", DIGEST, None])
def test_references_that_a_deploy_takes(reference: str | None) -> None:
    assert DeployParameters(channel="dev", reference=reference).reference == reference


@pytest.mark.parametrize(
    ("model", "values", "where"),
    [
        (DeployParameters, {}, "channel"),
        (DeployParameters, {"channel": "production"}, "channel"),
        (DeployParameters, {"channel": "dev", "release": "../infant-cry"}, "release"),
        (DeployParameters, {"channel": "dev", "reference": "0"}, "reference"),
        (DeployParameters, {"channel": "dev", "reference": "v1"}, "reference"),
        (DeployParameters, {"channel": "dev", "reference": "infant-cry@1"}, "reference"),
        (DeployParameters, {"channel": "dev", "reference": DIGEST.upper()}, "reference"),
        (DeployParameters, {"channel": "dev", "reference": f"{DIGEST}\n"}, "reference"),
        (DeployParameters, {"channel": "dev", "expect": ""}, "expect"),
        (DeployParameters, {"channel": "dev", "expect": DIGEST[:12]}, "expect"),
        (DeployParameters, {"channel": "dev", "force": True}, "force"),
        (GateParameters, {}, "manifest"),
        (GateParameters, {"manifest": "a.csv", "override": "because"}, "override"),
        (RetrainParameters, {"channel": "prod"}, "channel"),
        (RetrainParameters, {"preset": "huge"}, "preset"),
        (RetrainParameters, {"rounds": 0}, "rounds"),
        (RetrainParameters, {"n_mels": 80}, "n_mels"),
        (RetrainParameters, {"release": "Infant Cry"}, "release"),
        (RetrainParameters, {"synth": {"sites": 1}}, "synth.sites"),
        (RetrainParameters, {"sede": 3}, "sede"),
        (SplitParameters, {"test_fold": 1}, ""),
        (SplitParameters, {"test_fold": 5}, ""),
    ],
)
def test_refusals_name_what_is_wrong(model: type[BaseModel], values: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(values)
    assert [".".join(map(str, e["loc"])) for e in refused.value.errors()] == [where]
