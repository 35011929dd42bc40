"""The benchmark's own arithmetic, and that its plain loops are the reference to the bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import plain, stages
from benchmarks.federation import agree, show, summary
from benchmarks.jobs import make_world
from benchmarks.stages import Span
from benchmarks.timing import Series, Spread
from benchmarks.wire import of_model, of_secaggplus
from infra.digest import digest_bytes
from models.adapters import get_vector
from models.plain_loop import Algorithm, run_rounds
from models.threads import one_thread


def test_a_spread_is_the_median_between_its_ends() -> None:
    spread = Spread.of([3.0, 1.0, 2.0])
    assert (spread.median, spread.low, spread.high, spread.count) == (2.0, 1.0, 3.0, 3)
    assert str(spread) == "2 (1 … 3)"
    assert str(Spread.of([1234.5])) == "1234"


def test_an_exchange_falls_apart_without_a_rest() -> None:
    """Two actors: one works 1.1 to 2.1, the other 1.2 to 1.6 and 1.7 to 2.0; the exchange lasts 1.0 to 2.2.

    busy = 1.0 + 0.4 + 0.3 = 1.7; the span is 1.0 long, so idle = 2·1.0 − 1.7 = 0.3; wall = 0.1 + (1.7 + 0.3)/2 + 0.1 = 1.2.
    """
    work = [Span("train", 1, 1.1, 2.1), Span("train", 1, 1.2, 1.6), Span("train", 1, 1.7, 2.0)]
    found = stages.apart(Span("train", 1, 1.0, 2.2), work, actors=2)
    expected = {"wall": 1.2, "dispatch": 0.1, "busy": 1.7, "idle": 0.3, "collect": 0.1}
    assert found == pytest.approx(expected)
    assert found["wall"] == pytest.approx(
        found["dispatch"] + (found["busy"] + found["idle"]) / 2 + found["collect"]
    )


def series(first: float, rounds: list[float], digest: str = "a") -> Series:
    return Series(first, rounds, cpu=2.0 * sum(rounds), peak_mib={"process": 1.0}, digest=digest)


def test_a_ratio_is_paired_within_its_repetition() -> None:
    """The second repetition is twice as slow for everybody: the ratio, 2 s / 2.5 s = 0.8, stays."""
    plain_loops = ("1x1", "1x2-torch", "1x2-sites", "2x1")
    runs = [
        {"flower": series(12.5 * f, [2.0 * f, 3.0 * f])}
        | {kind: series(5.0 * f, [(2.0 if kind == "2x1" else 4.0) * f]) for kind in plain_loops}
        for f in (1.0, 2.0)
    ]
    found, table = summary(runs)
    flower = found["kinds"]["flower"]
    assert flower["of_best"] == Spread(0.8, 0.8, 0.8, 2).to_dict()
    assert flower["rounds_per_hour"]["high"] == 3600 / 2.5
    assert flower["cold_start"]["low"] == 10.0
    assert flower["cpu_seconds"]["low"] == 5.0
    assert {len(row) for row in table} == {7}
    assert show(table).splitlines()[1].startswith("flower ")


def test_another_theta_is_an_error_except_from_two_threads_inside_torch() -> None:
    same = {"flower": series(1, [1.0]), "1x2-torch": series(1, [1.0], "b")}
    agree([same])
    with pytest.raises(AssertionError, match="not one θ"):
        agree([{**same, "2x1": series(1, [1.0], "b")}])


def test_shared_sites_give_the_plain_loop_to_the_bit(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world", preset_name="tiny", sites=3, clips=12)
    job = world.job(tmp_path / "job", rounds=3, local={"steps": 2, "batch_size": 8})
    theta = get_vector(world.net)
    ticks: list[int] = []
    with one_thread(), ThreadPoolExecutor(2) as pool:
        workers = [plain.ThreadWorker(pool, plain.Share.load(job, names)) for names in plain.halves(job)]
        found = plain.train(job, theta, workers, lambda: ticks.append(1))
    expected = run_rounds(
        world.net, {name: world.tokens(name) for name in world.names}, rounds=3, local=job.local_config(),
        server=job.server_config(), seed=job.seed, algorithm=Algorithm(control_variates=True, codec=job.plan().codec),
    )  # fmt: skip
    assert digest_bytes(found.tobytes()) == digest_bytes(expected.tobytes())
    assert digest_bytes(found.tobytes()) != digest_bytes(theta.tobytes())
    assert len(ticks) == 3


def test_secaggplus_sends_eight_bytes_a_value() -> None:
    """int64 as `numpy.save` writes it: 8·P, and what comes on top does not grow with P."""
    small, large = of_secaggplus(1000, 3), of_secaggplus(3000, 3)
    assert large["up"] - small["up"] == pytest.approx(8 * 2000, abs=64)
    assert 8 * 1000 < small["up"] < 8 * 1000 + 4096
    assert of_model(10, 2) == {"parameters": 10, "up": 20, "down": 20}
