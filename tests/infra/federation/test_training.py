"""What a round asks: the same plan at both ends, and orders that are complete."""

from __future__ import annotations

import pytest

from infra.digest import digest_json
from infra.federation.training import RoundOrder, TrainingPlan, read_plan
from models.errors import ConfigError, UpdateRejected
from models.local_step import LocalConfig, normaliser
from models.quantise import QuantiserConfig

PLAN = TrainingPlan(LocalConfig(steps=4), QuantiserConfig(bits=4), secure=True)
ORDER = RoundOrder(7, bytes(32), 0.5, 3, 4)


def test_round_trips() -> None:
    raw = PLAN.to_dict()
    assert TrainingPlan.from_dict(raw) == PLAN
    assert read_plan({"plan": raw}, PLAN.digest) == PLAN
    assert RoundOrder.from_body(ORDER.to_body()) == ORDER
    assert PLAN.reference == normaliser(4, PLAN.local.lr, PLAN.local.momentum)


def test_another_plan_is_refused() -> None:
    raw = PLAN.to_dict()
    with pytest.raises(UpdateRejected, match="configuration its header names"):
        read_plan({"plan": {**raw, "secure": False}}, PLAN.digest)
    for bad in ({**raw, "codec": {"bits": 3}}, {"local": {}}, {**raw, "local": {"pace": 1}}):
        with pytest.raises(UpdateRejected, match="not one of this version"):
            read_plan({"plan": bad}, digest_json(bad))
    short = {**raw, "local": {"steps": 4}}
    with pytest.raises(UpdateRejected, match="must name every value"):
        read_plan({"plan": short}, digest_json(short))


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", -1), ("seed", True), ("rotation", "ff"), ("rotation", "x" * 64), ("clip", 0.0), ("clip", 1),
     ("clip", float("inf")), ("included", None), ("tally", "1"), ("train", 1)],
)  # fmt: skip
def test_an_incomplete_order_is_refused(name: str, value: object) -> None:
    with pytest.raises(UpdateRejected, match="must carry seed"):
        RoundOrder.from_body({**ORDER.to_body(), name: value})


def test_masks_need_integers() -> None:
    with pytest.raises(ConfigError, match="sums integers"):
        TrainingPlan(codec=None, secure=True)
