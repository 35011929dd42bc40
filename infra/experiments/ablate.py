"""Train an ablation: world by world, each in one process, every finished training a line of the results' file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from infra.baselines import fit_logistic
from infra.data.audio import ReadLimits
from infra.data.manifest import load_manifest
from infra.data.mfcc import read_statistics
from infra.data.splits import assign_folds, parts
from infra.data.synth.config import REASONS, SynthConfig
from infra.experiments.ablation import AblationPlan, Training
from infra.experiments.results import Results
from infra.experiments.run import clip_logits, score, train
from infra.experiments.world import HeldOut, build_world, load_world, synthesised
from infra.processes import in_processes
from infra.provenance import code_digest
from models.adapters import adapter_schema, set_vector
from models.errors import FederationError
from models.frames import TEST, TRAIN
from models.network import CryNet
from models.plain_loop import Round
from models.threads import one_thread

Json = dict[str, Any]
Note = Callable[[str], None]
OnDone = Callable[[int, int, Training, Json], None]

LAST = 5
"""Rounds that a score is the mean of: single rounds of so few steps scatter."""
VIEWS = {"recorded": 0, "noisy": 1}
"""Views of the held-out clips: as recorded, and at the worlds' one SNR."""


def make_corpora(plan: AblationPlan, folder: Path, note: Note = lambda _text: None) -> None:
    """Synthesise what the worlds share before processes look for it side by side.

    Raises:
        OutputError: the folder cannot be written.
    """
    for difficulty in sorted({1.0, *plan.difficulties}):
        note(f"corpus of difficulty {difficulty:g}")
        synthesised(plan.synth(difficulty), folder, "federation")
    note("public pool")
    synthesised(plan.world.pool, folder, "public")


def run_ablation(
    plan: AblationPlan,
    folder: Path,
    results: Results,
    on_done: OnDone = lambda _done, _of, _training, _result: None,
) -> list[tuple[Training, Json]]:
    """Every training with its result: what is filed is taken, the rest is trained and filed.

    Raises:
        OutputError: `folder` cannot be written.
    """
    wanted = list(plan.trainings())
    todo = [t for t in wanted if plan.key(t) not in results]
    by_world: dict[str, list[Training]] = {}
    for t in todo:
        by_world.setdefault(str(plan.world_of(t)), []).append(t)
    code = code_digest(("infra.experiments.ablate",)) if todo else ""
    done = 0
    for batch, made in in_processes(_begin, partial(_run, plan, folder), list(by_world.values())):
        for training, result in zip(batch, made, strict=True):
            results.add(plan.key(training), {**result, "code": code})
            done += 1
            on_done(done, len(todo), training, result)
    return [(t, results[plan.key(t)]) for t in wanted]


def _begin() -> None:
    return None


def _run(plan: AblationPlan, folder: Path, _given: None, batch: Sequence[Training]) -> list[Json]:
    """In a worker: one world, and what is trained in it. Its file is not kept: results are, and it is made again at need."""
    path = build_world(plan.world_of(batch[0]), folder)
    try:
        return [_train(plan, path, training) for training in batch]
    finally:
        path.unlink(missing_ok=True)


def _train(plan: AblationPlan, path: Path, training: Training) -> Json:
    world, cell, how = load_world(path), plan.cell(training), plan.plan_of(training)
    dealt = world.deal(how.sites, cell.setting.alpha, cell.seed)
    net = world.network(how.model(cell.arm), cell.seed)
    views = {name: world.held_out(TEST, view) for name, view in VIEWS.items()}
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in views}

    def follow(done: Round) -> None:
        if done.number > how.rounds - LAST:
            set_vector(net, done.theta)  # every local step sets it anew
            for name, clips in views.items():
                scores[name].append(score(net, clips))

    diverged = None
    with one_thread():
        try:
            set_vector(net, train(net, world.sites(dealt), how, cell, follow))
        except FederationError as err:
            diverged = str(err)
        predicted = _predictions(net, views["recorded"])
    size = adapter_schema(net).size
    # a training that diverged answers nothing
    means = {name: np.mean(s, axis=0) if diverged is None else np.zeros(2) for name, s in scores.items()}
    return {
        "change": training.change.arm.name,
        "difficulty": training.difficulty,
        "seed": training.seed,
        **{name: {"macro_f1": round(float(m[0]), 5), "gate_auroc": round(float(m[1]), 5)} for name, m in means.items()},
        "predicted": predicted,
        "diverged": diverged,
        "parameters": size,
        "upload_bytes": cell.arm.upload_bytes(size, how.sites),
        "skew": round(world.skew(dealt), 4),
        "infants": {name: len(world.infants(part)) for name, part in (("train", TRAIN), ("test", TEST))},
    }  # fmt: skip


def _predictions(net: CryNet, clips: HeldOut) -> Json:
    """Of every cry: its infant, its reason and the one that the network says."""
    cry = (clips.gate == 1) & (clips.reason >= 0)
    said = clip_logits(net, clips)[1].argmax(axis=1)
    return {
        "infant": clips.infant[cry].tolist(),
        "reason": clips.reason[cry].tolist(),
        "said": said[cry].tolist(),
    }


def simple_model(synth: SynthConfig, folder: Path) -> Json:
    """Logistic regression on MFCC statistics of a corpus's training cries: the same as `_predictions`, of its test cries."""
    corpus = load_manifest(synthesised(synth, folder, "federation"))
    cries = corpus.table["role"] == "cry"
    table = corpus.table[cries].sort_values("path")
    part = parts(assign_folds(corpus.table))[table.index]
    limits = ReadLimits()
    with one_thread():
        x = read_statistics(
            [corpus.root / path for path in table["path"]],
            max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes,
        ).astype(np.float64)  # fmt: skip
        reason = np.array([REASONS.index(name) for name in table["label"]], np.int64)
        learn, test = (part == TRAIN).to_numpy(), (part == TEST).to_numpy()
        said = fit_logistic(x[learn], reason[learn])(x[test]).argmax(axis=1)
    classes = np.unique(reason[learn])
    return {
        "infant": table["group"][test].tolist(),
        "reason": reason[test].tolist(),
        "said": classes[said].tolist(),
        "majority": int(np.bincount(reason[learn]).argmax()),
    }
