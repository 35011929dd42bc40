"""A site's share of a round, as what it will send: its update's levels and its tally, with the state that makes them safe to
repeat.

    settle the variate with what the server counted → tally θ → vote → local step → clip, quantise → file as pending → send

A request that comes again, to whatever process of the site, is answered with what was filed, and computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.federation.gate_frames import GateFrames
from infra.federation.material import Material
from infra.federation.private import PrivateSteps
from infra.federation.site_state import Pending, SiteState, SiteStore
from infra.federation.tally import Tally, Vote
from infra.federation.tokens import PUBLIC, SiteTokens
from infra.federation.training import RoundOrder, TrainingPlan
from models.adapters import Vector, set_vector
from models.control_variates import Control
from models.dp_step import InfantTokens
from models.errors import FederationError
from models.gate_step import Memory, gate_step
from models.local_step import LocalResult, local_step
from models.network import CryNet
from models.predict import clip_rows, frame_scores
from models.quantise import Quantiser
from models.site_update import SiteUpdate, encode_update

_NOTHING = np.zeros(0, np.uint16)


@dataclass(frozen=True)
class Contribution:
    """What a site puts into a round's sums: `update` is levels (padded,) uint16, or û (P,) float32 without a codec."""

    update: npt.NDArray[Any]
    tally: npt.NDArray[np.uint32]


def contribute(
    net: CryNet,
    data: Material,
    store: SiteStore,
    *,
    site: str,
    round_number: int,
    epoch: int,
    theta: Vector,
    control: Vector | None,
    plan: TrainingPlan,
    order: RoundOrder,
    steps: int = 0,
    private: PrivateSteps | None = None,
) -> Contribution:
    """Compute the site's share of a round, or take it from the site's folder.

    Args:
        net: the pretrained network; scratch space.
        data: what the site learns from: tokens, or in the gate's own phase its frames.
        store: the site's state of this run.
        site: its name.
        round_number: the round, from 1.
        epoch: the server's epoch of control variates.
        theta: (P,) float32 as the server sent it.
        control: c (P,) float32 as the server sent it; None without control variates.
        plan: what all sites agree on.
        order: what this one is asked.
        steps: the site's own number of local steps; 0 takes the plan's.
        private: takes the local step with noise, and pays for it; None trains without.

    Raises:
        FederationError: the site's privacy budget does not allow this round.
        VariatesOutOfStep: the site's variate is not the one the server counted.
        UpdateRejected: the update is not finite; the site sends nothing.
        DataError, OutputError, IntegrityError: the site's files.
    """
    state = store.load(plan.memory_size(theta.size)).settle(epoch, order.included, site)
    if state.pending is not None and state.pending.round == round_number:
        return Contribution(state.pending.levels, state.pending.tally)
    tally = Tally.empty(len(net.reasons))
    if order.tally:
        set_vector(net, theta, plan.trained)
        tally, state = _tally(net, data, state, order.tally)
    if not order.train:
        return Contribution(_NOTHING, tally.to_words())
    quantiser = Quantiser(theta.size, plan.codec, order.rotation, order.clip) if plan.codec else None
    both = None if control is None else Control(control, state.own)
    paid, memory = None, state.own
    if isinstance(data, GateFrames):
        result, memory = _gate_step(net, data, theta, plan, order, round_number, memory, private)
    else:
        own = replace(plan.local, steps=steps or plan.local.steps)
        correction = None if both is None else both.correction
        if private is None:
            result = local_step(net, data.train, theta, own, order.seed, correction)
        else:
            paid = private.step(net, _infants(data), theta, own, round_number, correction)
            result = paid.result
    update = encode_update(result, plan.reference, order.seed, control=both, quantiser=quantiser)
    sent = _sent(update)
    words = replace(tally, inside=int(update.inside), losses=update.losses).to_words()
    kept = memory if update.variate is None else update.variate
    store.save(replace(state, pending=Pending(round_number, kept, sent, words)))
    if private is not None and paid is not None:
        private.record(round_number, paid.attempt, sent)
    return Contribution(sent, words)


def _gate_step(
    net: CryNet,
    data: GateFrames,
    theta: Vector,
    plan: TrainingPlan,
    order: RoundOrder,
    number: int,
    memory: Memory,
    private: PrivateSteps | None,
) -> tuple[LocalResult, Memory]:
    """The site's share of the gate's own phase.

    Raises:
        FederationError: the site trains with noise alone, and this phase has no private step.
        UpdateRejected: as `gate_step`.
    """
    if private is not None:
        raise FederationError(
            "the site trains under differential privacy, and the gate's own phase has no private step: it sits this phase out"
        )
    assert plan.gate is not None
    return gate_step(net, data.batches, theta, plan.gate, order.seed, number, memory)


def _infants(data: SiteTokens) -> InfantTokens:
    """The site's own frames: public noise is nobody's, and needs no protection."""
    mine = np.flatnonzero(data.train_infant != PUBLIC)
    return InfantTokens(data.train.select(mine), data.train_infant[mine])


def _sent(update: SiteUpdate) -> npt.NDArray[Any]:
    return update.update.astype(np.float32) if update.levels is None else update.levels


def _tally(net: CryNet, data: Material, state: SiteState, number: int) -> tuple[Tally, SiteState]:
    """Counts of θ as it arrived, the site's vote on it, and the state that remembers its loss."""
    gate, reason, loss = tally(net, data)
    if np.isnan(loss):  # no validation clip: no vote
        return Tally.empty(len(net.reasons)), state
    before = state.loss_before if state.tallied == number else state.loss
    objects = Vote().objects(loss, None if np.isnan(before) else before)
    found = replace(
        Tally.empty(len(net.reasons)), voters=1, objections=int(objects), gate=gate, reason=reason
    )
    return found, replace(state, tallied=number, loss=loss, loss_before=before)


def tally(net: CryNet, data: Material) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], float]:
    """Confusion counts (rows truth, columns decision): gate (2, 2) over all clips, reason (C, C) over cries; and the loss.

    A clip is decided as in `models.predict`. The loss is the mean gate cross-entropy over clips, plus that of the reason
    over cries, in nats; infinite where a logit is not finite, NaN where there is no validation clip.
    """
    n = len(net.reasons)
    gate, reason = np.zeros((2, 2), np.int64), np.zeros((n, n), np.int64)
    val, val_clip = data.validation(net)
    if not len(val.gate):
        return gate, reason, float("nan")
    scores = frame_scores(net, val.tokens)
    rows = clip_rows(val_clip, np.zeros_like(val_clip))
    logits = np.column_stack([rows.soft_maximum(scores.gate_logit), rows.mean(scores.reason_logits)])
    first = rows.first
    if not np.isfinite(logits).all():
        return gate, reason, float("inf")
    truth, label = val.gate[first].astype(np.int64), val.reason[first].astype(np.int64)
    np.add.at(gate, (truth, (logits[:, 0] > 0).astype(np.int64)), 1)
    cries = np.flatnonzero((truth == 1) & (label >= 0))
    np.add.at(reason, (label[cries], logits[cries, 1:].argmax(axis=1)), 1)
    loss = float(np.logaddexp(0.0, np.where(truth == 1, -1.0, 1.0) * logits[:, 0]).mean())
    if len(cries):
        chosen = logits[cries, 1 + label[cries]]
        loss += float((np.logaddexp.reduce(logits[cries, 1:], axis=1) - chosen).mean())
    return gate, reason, loss
