"""Cells: what they train is the federation, bit for bit; they are filed one by one and never trained twice."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from infra.digest import digest_bytes
from infra.experiments.cells import Arm, Cell, Setting
from infra.experiments.results import open_results
from infra.experiments.run import choose_rate, run_cell, run_cells, train
from infra.experiments.world import load_world
from infra.federation.base import load_base
from infra.federation.job import FederationJob
from infra.federation.launch import run_federation
from infra.federation.rounds import federate
from infra.federation.tokens import features_digest, load_site_tokens
from models.errors import FederationError
from models.local_step import LocalConfig
from models.plain_loop import Round, run_rounds
from models.quantise import QuantiserConfig
from models.server_step import ServerConfig
from tests.infra.experiments.world import PLAN, write_world
from tests.infra.federation.world import local_transport, make_job

ARM = Arm("all", "everything", control_variates=True, prox_mu=0.1, codec=QuantiserConfig(bits=8, clip=0.5))
CELL = Cell("measure", ARM, Setting(1.0, 0.5), 0.1, 3)
SIX = replace(PLAN, sites=6, rounds=3)


def as_job(root: Path, *, secure: bool) -> FederationJob:
    """The cell as a job of six sites, of which three are asked a round. No votes: the plain loop knows none."""
    local = replace(SIX.local, lr=CELL.lr, prox_mu=ARM.prox_mu)
    assert ARM.codec is not None
    return make_job(
        root, sites=6, rounds=SIX.rounds, local=asdict(local), codec=asdict(ARM.codec), control_variates=True,
        participation=CELL.setting.participation, seed=CELL.seed, secure=secure, eval_every=0,
    )  # fmt: skip


def theta_of_cell(job: FederationJob) -> str:
    net, base = load_base(job.base_model, job.model(), job.reasons)
    tokens = {
        s.name: load_site_tokens(s.features, s.folder, net, base, features_digest(s.features)).train
        for s in job.sites
    }
    return digest_bytes(train(net, tokens, SIX, CELL).tobytes())


@pytest.mark.parametrize("secure", [False, True])
def test_a_cell_is_the_federation_bit_for_bit(tmp_path: Path, secure: bool) -> None:
    job = as_job(tmp_path, secure=secure)
    result = federate(job, local_transport(job, tmp_path))
    assert result.theta_digest == theta_of_cell(job)


@pytest.mark.slow
@pytest.mark.soak
def test_a_cell_is_the_federation_over_flower_and_ray(tmp_path: Path) -> None:
    job = as_job(tmp_path, secure=True)
    result = run_federation(job, ray_address="local")
    assert result.theta_digest == theta_of_cell(job)


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})


@pytest.mark.slow
@pytest.mark.soak
def test_cells_do_not_depend_on_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, found = write_world(tmp_path / "world.safetensors"), []
    for cores in (1, 2):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid, cores=cores: set(range(cores)))
        with open_results(tmp_path / f"{cores}.jsonl") as results:
            found.append([_timeless(r) for r in run_cells(world, PLAN, PLAN.tuning()[:4], results)])
    assert found[0] == found[1]


@pytest.mark.usefixtures("one_core")
def test_cells_are_filed_as_they_finish_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    world = write_world(tmp_path / "world.safetensors")
    cells = PLAN.tuning()[:4]
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    with open_results(whole) as results:
        expected = run_cells(world, PLAN, cells, results)

    def die(done: int, _of: int, _cell: Cell, _result: dict) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_results(cut) as results:
        run_cells(world, PLAN, cells, results, die)
    kept = cut.read_bytes().splitlines()
    assert len(kept) == 2
    cut.write_bytes(b"\n".join([kept[0], kept[1][:20]]))  # … and in the middle of a line
    told: list[int] = []
    with open_results(cut) as results:
        again = run_cells(world, PLAN, cells, results, lambda done, of, *_: told.append(of))
    assert told == [3, 3, 3]
    assert [_timeless(r) for r in again] == [_timeless(r) for r in expected]
    with open_results(cut) as results:  # all there: nothing is trained
        run_cells(world, PLAN, cells, results, lambda *_: pytest.fail("trained twice"))


def _timeless(result: dict) -> dict:
    return {k: v for k, v in result.items() if k != "seconds"}


def test_another_world_or_local_step_is_another_result(tmp_path: Path) -> None:
    assert PLAN.key(CELL, "a") != PLAN.key(CELL, "b")
    assert PLAN.key(CELL, "a") != replace(PLAN, local=LocalConfig(steps=3, batch_size=8)).key(CELL, "a")
    assert PLAN.key(CELL, "a") != PLAN.key(replace(CELL, purpose="tune"), "a")
    assert PLAN.key(CELL, "a") != replace(PLAN, rounds=6).key(CELL, "a")
    assert PLAN.key(CELL, "a") == replace(PLAN, rates=(0.3,)).key(CELL, "a")


def test_a_cell_learns_and_says_what_it_uploads(tmp_path: Path) -> None:
    world = load_world(write_world(tmp_path / "world.safetensors"))
    plan = replace(PLAN, rounds=8, local=LocalConfig(steps=6, batch_size=16))
    result = run_cell(world, plan, replace(CELL, arm=replace(ARM, codec=None), setting=Setting(1.0, 1.0)))
    assert result["diverged"] is None
    assert [len(result[k]) for k in ("macro_f1", "gate_auroc", "loss", "update_norm")] == [8] * 4
    assert result["macro_f1"][-1] > 0.6 > result["macro_f1"][0]
    assert result["upload_bytes"] == 4 * result["parameters"]
    assert result["sites_asked"] == 4


def test_upload_by_hand() -> None:
    """4742 numbers pad to 8192. Sums of 8 sites of 254 levels take 11 bits, of 4 sites 10; of 14 levels 7 bits."""
    float32, four = replace(ARM, codec=None), replace(ARM, codec=QuantiserConfig(bits=4))
    assert float32.upload_bytes(4742, 8) == 18968
    assert ARM.upload_bytes(4742, 8) == 8192 * 11 // 8
    assert ARM.upload_bytes(4742, 4) == 8192 * 10 // 8
    assert four.upload_bytes(4742, 8) == 8192 * 7 // 8
    assert replace(float32, option="I").upload_bytes(4742, 8) == 2 * 18968


def test_a_diverged_training_is_a_result_that_no_rate_is_chosen_by(tmp_path: Path) -> None:
    world = load_world(write_world(tmp_path / "world.safetensors"))
    plan = replace(PLAN, local=LocalConfig(steps=2, batch_size=8, grad_clip=0.0))
    wild = run_cell(world, plan, replace(CELL, arm=replace(ARM, codec=None), lr=1e20))
    assert wild["diverged"]
    assert wild["theta"] is None
    assert len(wild["macro_f1"]) < plan.rounds
    tame = {"diverged": None, "macro_f1": [0.1, 0.2]}
    better = {"diverged": None, "macro_f1": [0.1, 0.3]}
    assert choose_rate({0.1: tame, 0.2: better, 0.4: wild}) == 0.2
    assert choose_rate({0.1: tame, 0.2: dict(tame)}) == 0.1
    with pytest.raises(FederationError, match="every learning rate diverged"):
        choose_rate({0.4: wild})


def test_option_one_begins_as_option_two_and_then_differs(tmp_path: Path) -> None:
    """In round 1 all variates are zero, so θ after it is that of plain averaging; afterwards the options part."""
    world = load_world(write_world(tmp_path / "world.safetensors"))
    arms = {o: Arm(o, o, control_variates=True, option=o) for o in ("I", "II")}  # type: ignore[arg-type]
    setting = Setting(1.0, 1.0)
    seen: dict[str, list[np.ndarray]] = {}
    for name, arm in arms.items():
        net = world.network(PLAN.model(arm), 1)
        sites = world.sites(world.deal(PLAN.sites, 1.0, 1))
        thetas: list[np.ndarray] = []

        def follow(done: Round, thetas: list[np.ndarray] = thetas) -> None:
            thetas.append(done.theta)

        train(net, sites, PLAN, Cell("measure", arm, setting, 0.1, 1), follow)
        seen[name] = thetas
    np.testing.assert_allclose(seen["I"][0], seen["II"][0], atol=1e-7)
    assert np.abs(seen["I"][1] - seen["II"][1]).max() > 1e-5


def test_option_one_with_one_site_is_averaging(tmp_path: Path) -> None:
    """With one site c = c_i always, so the correction is zero whatever the variates are."""
    world = load_world(write_world(tmp_path / "world.safetensors"))
    sites = {"only": world.sites(world.deal(1, 1.0, 1))["site-0"]}
    arm = Arm("I", "I", control_variates=True, option="I")
    net, other = (world.network(PLAN.model(arm), 1) for _ in range(2))
    theta = train(net, sites, PLAN, Cell("measure", arm, Setting(1.0, 1.0), 0.1, 1))
    local = replace(PLAN.local, lr=0.1, prox_mu=0.0)
    plain = run_rounds(other, sites, rounds=PLAN.rounds, local=local, server=ServerConfig(), seed=1)
    np.testing.assert_allclose(theta, plain, atol=1e-6)


def test_tuning_and_measuring_share_neither_seed_nor_infants() -> None:
    assert {c.seed for c in PLAN.tuning()}.isdisjoint(PLAN.seeds)
    chosen = {(c.arm.name, c.setting): 0.1 for c in PLAN.tuning()}
    cells = PLAN.measured(chosen)
    assert {c.seed for c in cells} == set(PLAN.seeds)
    assert len({PLAN.key(c, "w") for c in [*cells, *PLAN.tuning()]}) == len(cells) + len(PLAN.tuning())
    assert math.prod([len(PLAN.arms), len(PLAN.settings), len(PLAN.seeds)]) <= len(cells)
