"""Train cells: each on the plain loop, scored on held-out infants after every round; many beside one another, one thread each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.digest import digest_bytes
from infra.experiments.cells import Cell, Plan, Setting
from infra.experiments.option_one import run_option_one
from infra.experiments.results import Results
from infra.experiments.world import HeldOut, World, load_world
from infra.processes import in_processes
from infra.provenance import code_digest
from models.adapters import Vector, adapter_schema, get_vector, set_vector
from models.errors import FederationError
from models.frames import TEST, VAL
from models.local_step import TokenSet
from models.metrics import auroc, confusion, macro_f1
from models.network import CryNet
from models.plain_loop import Round, run_rounds
from models.predict import frame_scores
from models.server_step import ServerConfig
from models.threads import one_thread

Json = dict[str, Any]
OnDone = Callable[[int, int, Cell, Json], None]

_BATCH = 128


def clip_logits(net: CryNet, clips: HeldOut) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Gate logits (n,) and reason logits (n, C) by clip: the means over its frames."""
    scores = frame_scores(net, clips.tokens, batch=_BATCH)
    count = np.bincount(clips.clip)
    gate = np.bincount(clips.clip, scores.gate_logit) / count
    reasons = np.zeros((len(count), scores.reason_logits.shape[1]))
    np.add.at(reasons, clips.clip, scores.reason_logits.astype(np.float64))
    return gate, reasons / count[:, None]


def score(net: CryNet, clips: HeldOut) -> tuple[float, float]:
    """Macro-F1 of the reasons and AUROC of the gate."""
    gate, reasons = clip_logits(net, clips)
    cry = clips.gate == 1
    matrix = confusion(clips.reason[cry], reasons[cry].argmax(axis=1), reasons.shape[1])
    return float(macro_f1(matrix)), float(auroc(gate, cry))


def train(
    net: CryNet,
    sites: Mapping[str, TokenSet],
    plan: Plan,
    cell: Cell,
    on_round: Callable[[Round], None] = lambda _done: None,
) -> Vector:
    """One cell's training, from the adapters and heads that `net` holds; θ after the last round.

    Raises:
        FederationError: it diverged.
    """
    arm, start = cell.arm, get_vector(net)
    local = replace(plan.local, lr=cell.lr, prox_mu=arm.prox_mu)
    rounds = plan.tuning_rounds if cell.purpose == "tune" else plan.rounds
    if arm.option == "I":
        return run_option_one(
            net, sites, rounds=rounds, local=local, server=ServerConfig(),
            participation=cell.setting.participation, seed=cell.seed, theta=start, on_round=on_round,
        )  # fmt: skip
    return run_rounds(
        net, sites, rounds=rounds, local=local, server=ServerConfig(),
        algorithm=arm.algorithm(cell.setting.participation), seed=cell.seed, theta=start, on_round=on_round,
    )  # fmt: skip


def run_cell(world: World, plan: Plan, cell: Cell) -> Json:
    """A cell's result as JSON: macro-F1, gate AUROC, loss and ‖ū‖ by round, what a site uploads a round, and θ's digest.

    A training that diverges is a result too: its curves end where it did, and `diverged` says why.
    """
    started = time.monotonic()
    dealt = world.deal(plan.sites, cell.setting.alpha, cell.seed)
    net = world.network(plan.model(cell.arm), cell.seed)
    clips = world.held_out(VAL if cell.purpose == "tune" else TEST)
    curves: dict[str, list[float]] = {"macro_f1": [], "gate_auroc": [], "loss": [], "update_norm": []}

    def follow(done: Round) -> None:
        set_vector(net, done.theta)  # every local step sets it anew
        reason, gate = score(net, clips)
        values = (reason, gate, done.losses["total"], float(np.linalg.norm(done.mean_update)))
        for curve, value in zip(curves.values(), values, strict=True):
            curve.append(round(value, 5))

    theta, diverged = None, None
    try:
        with one_thread():
            theta = train(net, world.sites(dealt), plan, cell, follow)
    except FederationError as err:
        diverged = str(err)
    parameters = adapter_schema(net).size
    asked = max(1, round(cell.setting.participation * plan.sites))
    return {
        "cell": cell.to_dict(),
        **curves,
        "diverged": diverged,
        "skew": round(world.skew(dealt), 4),
        "parameters": parameters,
        "sites_asked": asked,
        "upload_bytes": cell.arm.upload_bytes(parameters, asked),
        "theta": None if theta is None else digest_bytes(theta.tobytes()),
        "seconds": round(time.monotonic() - started, 2),
    }


def run_cells(
    world: Path,
    plan: Plan,
    cells: Sequence[Cell],
    results: Results,
    on_done: OnDone = lambda _done, _of, _cell, _result: None,
) -> list[Json]:
    """The results of `cells` in their order: what is filed is taken, the rest is trained and filed one by one.

    As many processes as this one may use cores; results do not depend on their number. Each is filed with the digest of the code
    that it ran: a change of the code does not discard it, but the page tells when results are of different code.
    """
    loaded = load_world(world)
    keys = [plan.key(cell, loaded.digest) for cell in cells]
    todo = {key: cell for key, cell in zip(keys, cells, strict=True) if key not in results}
    code = (
        code_digest(("models.plain_loop", "models.predict", "infra.experiments.option_one")) if todo else ""
    )
    made = in_processes(partial(_begin, world, plan), _run, list(todo.items()))
    for done, ((key, _cell), result) in enumerate(made, start=1):
        results.add(key, {**result, "code": code})
        on_done(done, len(todo), todo[key], result)
    return [results[key] for key in keys]


def _begin(world: Path, plan: Plan) -> tuple[World, Plan]:
    return load_world(world), plan


def _run(here: tuple[World, Plan], item: tuple[str, Cell]) -> Json:
    return run_cell(*here, item[1])


def choose_rate(results: Mapping[float, Json]) -> float:
    """The learning rate whose validation macro-F1, averaged over the rounds, is best; a diverged training cannot win.

    The mean over rounds rewards speed and level alike: what is measured afterwards is both.

    Raises:
        FederationError: all diverged.
    """
    scores = {lr: tuning_score(result) for lr, result in results.items()}
    best = max(scores, key=lambda lr: (scores[lr], -lr))
    if not math.isfinite(scores[best]):
        raise FederationError(f"every learning rate diverged ({sorted(results)}): try lower ones")
    return best


def tuning_score(result: Json) -> float:
    """What `choose_rate` compares; −∞ for a diverged training."""
    return -math.inf if result["diverged"] else float(np.mean(result["macro_f1"]))


def rates_of(cells: Sequence[Cell], results: Sequence[Json]) -> dict[tuple[str, Setting], float]:
    """The chosen learning rate by arm and setting, from the tuning cells and their results."""
    tried: dict[tuple[str, Setting], dict[float, Json]] = {}
    for cell, result in zip(cells, results, strict=True):
        tried.setdefault((cell.arm.name, cell.setting), {})[cell.lr] = result
    return {where: choose_rate(found) for where, found in tried.items()}
