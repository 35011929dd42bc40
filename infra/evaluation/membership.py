"""How much a training gives away of who took part: the attacks of `models.membership`, as a JSON document.

released model    loss and calibrated attack on θ
sum of a round    alignment and regression attack on Σ Δ, which secure aggregation reveals to the server; scores add up over the
                  rounds given

Members are the infants that were trained on, others are held out and of the same sites. The attacker is a strong one: it holds
every infant's own frames, knows which loss was minimised, and trains its reference models on halves of the same infants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.data.features import load_frames
from infra.federation.base import load_base
from infra.federation.job import FederationJob
from infra.federation.material import frames_of
from infra.federation.results import FederationResult, load_theta
from models.adapters import Vector, adapter_schema
from models.errors import DataError
from models.frames import TEST, TRAIN
from models.infants import InfantTokens
from models.local_step import LocalConfig, TokenSet, pool_tokens
from models.membership import (
    alignment_scores,
    calibrated_scores,
    infant_losses,
    judge,
    loss_scores,
    regression_scores,
    unit_gradients,
)
from models.network import CryNet
from models.plain_loop import run_rounds
from models.predict import frame_tokens

Json = dict[str, Any]
Train = Callable[[InfantTokens, int], Vector]
"""Trains a reference model: infants and a seed → θ (P,)."""


@dataclass(frozen=True)
class Trained:
    """What the attacker sees: the released θ, and (θ before, Σ Δ or a multiple of it) of the rounds it watched.

    `privacy` is the promise that was made, JSON types (unit, epsilon, delta, noise_multiplier …), or None.
    """

    theta: Vector
    rounds: Sequence[tuple[Vector, Vector]] = ()
    privacy: Mapping[str, Any] | None = None


def attack_training(
    net: CryNet,
    members: InfantTokens,
    others: InfantTokens,
    trained: Trained,
    cfg: LocalConfig,
    *,
    reference: Train | None = None,
    references: int = 4,
    seed: int = 0,
    resamples: int = 1000,
) -> Json:
    """Run every attack for which the attacker has what it takes.

    Args:
        net: the pretrained network.
        members: infants that were trained on.
        others: infants that were not.
        trained: what the attacker sees.
        cfg: the loss's weights.
        reference: trains the calibrated attack's reference models; without it that attack is left out.
        references: how many, even: each infant is in half of them.
        seed: of halves, reference models and bootstrap.
        resamples: of the bootstrap.

    Returns:
        A JSON document: unit, members, others, privacy, attacks by name (each with `auc` and `tpr_at_1_percent_fpr`), settings.

    Raises:
        DataError: an odd number of references, or tokens that do not fit the network.
        FederationError: θ or an update does not fit the network.
    """
    infants = _joined(members, others)
    member = np.arange(len(infants.rows)) < len(members.rows)
    losses = infant_losses(net, infants, trained.theta, cfg)
    scores = {"loss": loss_scores(losses)}
    if reference is not None:
        used = _halves(len(member), references, seed)
        seen = np.stack(
            [
                infant_losses(net, infants, reference(infants.select(np.flatnonzero(half)), seed + r), cfg)
                for r, half in enumerate(used)
            ]
        )
        scores["calibrated"] = calibrated_scores(losses, seen, used)
    if trained.rounds:
        scores["alignment"] = scores["regression"] = np.zeros(len(member))
        for theta, update in trained.rounds:
            units = unit_gradients(net, infants, theta, cfg)
            scores["alignment"] = scores["alignment"] + alignment_scores(units, update)
            scores["regression"] = scores["regression"] + regression_scores(units, update)
    return {
        "unit": "infant",
        "members": len(members.rows),
        "others": len(others.rows),
        "privacy": None if trained.privacy is None else dict(trained.privacy),
        "attacks": {
            name: judge(score, member, seed=seed, resamples=resamples).to_dict()
            for name, score in scores.items()
        },
        "settings": {
            "references": references if reference is not None else 0,
            "rounds": len(trained.rounds),
            "resamples": resamples,
            "seed": seed,
        },
    }


def attack_job(
    job: FederationJob,
    result: FederationResult,
    privacy: Mapping[str, Any] | None = None,
    *,
    rounds: Sequence[tuple[Vector, Vector]] = (),
    seed: int = 0,
) -> Json:
    """`attack_training` on a finished job whose sites' files are all here: a simulation, never a real federation.

    Members are the training infants, others the test infants, both as recorded. Reference models are trained without privacy.

    Raises:
        DataError: a site's frames cannot be read, or there are no members or no others.
        ConfigError, IntegrityError, FederationError: base model or θ are not those of the job.
    """
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    theta = load_theta(result.theta, adapter_schema(net))
    local, server = job.local_config(), job.server_config()

    def reference(infants: InfantTokens, number: int) -> Vector:
        tokens = {"reference": infants.tokens}
        return run_rounds(net, tokens, rounds=job.rounds, local=local, server=server, seed=number)

    members, others = (job_infants(job, net, part) for part in (TRAIN, TEST))
    trained = Trained(theta, rounds, privacy)
    return attack_training(net, members, others, trained, local, reference=reference, seed=seed)


def job_infants(job: FederationJob, net: CryNet, part: int) -> InfantTokens:
    """The infants of one part over all sites of a job; errors as `infants_of`."""
    return infants_of({spec.name: frames_of(spec) for spec in job.sites}, net, part)


def infants_of(
    frames: Mapping[str, Path], net: CryNet, part: int, *, most: int | None = None
) -> InfantTokens:
    """The infants of one part over all sites, numbered through, their clips as recorded.

    Args:
        frames: by site, the file of its frames.
        net: the pretrained network.
        part: TRAIN, VAL or TEST.
        most: frames of one infant, evenly spread over what there is of it; None takes all.

    Raises:
        DataError: a site's frames cannot be read, or no clip of the part has a gate label.
    """
    sets: list[TokenSet] = []
    infant: list[str] = []
    for site, path in frames.items():
        found = load_frames(path)
        clip = found.clip
        rows = np.flatnonzero((found.view == 0) & (found.part[clip] == part) & (found.gate[clip] >= 0))
        if most is not None:
            rows = _spread(rows, found.group[clip[rows]], most)
        clip = clip[rows]
        tokens = frame_tokens(net, found.log_mel[rows])
        weight = np.ones(len(rows), np.float32)
        sets.append(TokenSet(tokens, found.gate[clip], found.reason[clip], weight))
        infant += [f"{site}/{group}" for group in found.group[clip]]
    return InfantTokens(pool_tokens(sets), np.unique(infant, return_inverse=True)[1])


def _spread(rows: npt.NDArray[np.int64], group: npt.NDArray[np.str_], most: int) -> npt.NDArray[np.int64]:
    """At most `most` rows of each group, evenly spread, in ascending order."""
    kept = []
    for name in np.unique(group):
        own = rows[group == name]
        kept.append(own[np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(np.int64)])
    return np.sort(np.concatenate(kept)) if kept else rows


def _joined(members: InfantTokens, others: InfantTokens) -> InfantTokens:
    """Members first, infants numbered from 0 in the order of their rows."""
    parts = (members, others)
    rows = [np.concatenate(part.rows) for part in parts]
    sizes = [len(found) for part in parts for found in part.rows]
    tokens = pool_tokens([_take(part.tokens, at) for part, at in zip(parts, rows, strict=True)])
    return InfantTokens(tokens, np.repeat(np.arange(len(sizes)), sizes))


def _take(tokens: TokenSet, rows: npt.NDArray[np.int64]) -> TokenSet:
    return TokenSet(tokens.tokens[rows], tokens.gate[rows], tokens.reason[rows], tokens.weight[rows])


def _halves(n: int, references: int, seed: int) -> npt.NDArray[np.bool_]:
    """(R, n): random halves, each followed by its complement, so that everyone is in half of them."""
    if references < 2 or references % 2:
        raise DataError(f"the calibrated attack needs an even number of reference models, got {references}")
    rng = np.random.Generator(np.random.PCG64(seed))
    used = []
    for _ in range(references // 2):
        half = rng.permutation(n) < n // 2
        used += [half, ~half]
    return np.stack(used)
