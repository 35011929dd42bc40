"""Ray as the pipeline uses it: order, threads, our own errors, a dying worker, one local cluster on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.compute import Cluster, cluster
from infra.settings import ComputeSettings
from models.errors import AudioError, ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Cluster]:
    with cluster(ComputeSettings(cpus=2)) as made:
        yield made


def test_results_keep_the_order_and_progress_is_told(ray_cluster: Cluster) -> None:
    seen: list[tuple[int, int]] = []
    assert ray_cluster.map(lambda x: x * x, range(5), on_done=lambda d, n: seen.append((d, n))) == [
        0,
        1,
        4,
        9,
        16,
    ]
    assert seen == [(i, 5) for i in range(1, 6)]


def test_a_worker_computes_with_one_thread(ray_cluster: Cluster) -> None:
    def threads(_: int) -> int:
        import torch

        return torch.get_num_threads()

    assert ray_cluster.map(threads, [0]) == [1]


def test_our_errors_come_back_as_themselves(ray_cluster: Cluster) -> None:
    def fail(name: str) -> None:
        raise AudioError(f"{name}: truncated")

    with pytest.raises(AudioError, match=r"^a\.wav: truncated$"):
        ray_cluster.map(fail, ["a.wav"])


def test_a_killed_worker_is_replaced(ray_cluster: Cluster, tmp_path: Path) -> None:
    flag = tmp_path / "died"

    def die_once(path: str) -> str:
        if not os.path.exists(path):  # noqa: PTH110 - the function travels to a worker without our imports
            open(path, "w").close()  # noqa: PTH123
            os.kill(os.getpid(), 9)
        return "alive"

    assert ray_cluster.map(die_once, [str(flag)]) == ["alive"]
    assert flag.exists()


def test_nothing_of_the_cluster_listens_or_talks_beyond_loopback(ray_cluster: Cluster) -> None:
    import psutil

    ray_cluster.map(abs, [1, 2])
    assert ray_cluster.address.startswith("127.0.0.1:")
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    ends = [end for p in mine for c in p.net_connections(kind="inet") for end in (c.laddr, c.raddr) if end]
    assert ends, "a cluster has sockets"
    assert {end.ip for end in ends} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_an_address_without_a_cluster_is_said_so() -> None:
    with (
        pytest.raises(ConfigError, match=r"127\.0\.0\.1:1"),
        cluster(ComputeSettings(ray_address="127.0.0.1:1")),
    ):
        pass
