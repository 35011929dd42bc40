"""What a site's stages may say of themselves: whole replies travel, and others are rejected by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.federation.local.travel import CalibrationReply, FeaturesReply, GateReply
from models.errors import UpdateRejected


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (GateReply, {"clips": 65}),
        (GateReply, {"criticals": ["Group CANARY-7 leaks"]}),
        (GateReply, {"criticals": ["group-leak"]}),
        (GateReply, {"passed": 1}),
        (GateReply, {"warnings": "group-leak"}),
        (FeaturesReply, {"features": "../../etc/passwd"}),
        (CalibrationReply, {"gate_temperature": float("nan")}),
        (CalibrationReply, {"gate_temperature": None}),
        (CalibrationReply, {"gate_bias": None}),
        (CalibrationReply, {"gate_bias": 1e9}),
        (CalibrationReply, {"gate_threshold": 2.0}),
        (CalibrationReply, {"reason_temperature": -1.0}),
        (CalibrationReply, {"energy_threshold": "low"}),
        (CalibrationReply, {"site": "ward2"}),
        (CalibrationReply, {"n_cries": 6}),
    ],
)
def test_a_reply_that_says_more_or_nonsense_is_rejected(kind: Any, change: dict[str, Any]) -> None:
    whole = {
        GateReply: GateReply("ward1", True, False, (), ("cry-snr",)),
        FeaturesReply: FeaturesReply("ward1", "0" * 64),
        CalibrationReply: CalibrationReply("ward1", 1.5, 0.4, None, -3.0, 0.5),
    }[kind]
    assert kind.from_body(json.loads(json.dumps(whole.to_body())), "ward1") == whole
    with pytest.raises(UpdateRejected, match="ward1"):
        kind.from_body({**whole.to_body(), **change}, "ward1")
