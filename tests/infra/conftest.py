"""What several folders share: clip scores with a known make, and a real embedded store, started as a run starts it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from infra.store import embedded
from infra.store.client import ObjectStore
from infra.store.content import S3Content
from infra.store.embedded import EmbeddedServer
from models.frames import TEST
from models.predict import ClipScores

REASONS = ("hungry", "tired", "discomfort", "belly_pain", "burping")


def make_scores(
    *,
    sites: int = 4,
    infants: int = 6,
    cries: int = 5,
    noncries: int = 12,
    public: int = 24,
    signal: float = 2.5,
    reasons: tuple[str, ...] = REASONS,
    snrs: tuple[float, ...] = (20.0, 0.0),
    seed: int = 0,
) -> ClipScores:
    """Scores whose separation falls with the noise: `signal` standard deviations on clips as recorded."""
    rng = np.random.default_rng(seed)
    rows: list[tuple] = []
    for k in range(sites):
        for i in range(infants):
            rows += [
                (f"site{k}", f"i{k}-{i}", 1, int(rng.integers(len(reasons)) if reasons else -1))
                for _ in range(cries)
            ]
        rows += [(f"site{k}", f"n{k}-{i // 3}", 0, -1) for i in range(noncries)]
    rows += [("", f"p{i // 4}", 0, -1) for i in range(public)]
    site, group, gate, reason = (np.array(column) for column in zip(*rows, strict=True))
    n, c, views = len(rows), len(reasons), (np.nan, *snrs)
    label = np.where(
        gate == 1, np.array([*reasons, "cry"])[reason], np.array(["fan", "door", "babble"])[np.arange(n) % 3]
    )
    infant = dict(zip(np.unique(group), rng.normal(0, 0.4, len(np.unique(group))), strict=True))
    out: dict[str, list] = {"gate_logit": [], "reason_logits": [], "energy": []}
    for v, snr in enumerate(views):
        power = signal * (1.0 if v == 0 else 0.5 + snr / 50)
        shift = np.array([infant[g] for g in group])
        gate_logit = 2 * (power * (gate - 0.5) * 1.2 + shift + rng.normal(size=n))
        logits = rng.normal(size=(n, c))
        logits[np.arange(n)[reason >= 0], reason[reason >= 0]] += power
        out["gate_logit"].append(gate_logit)
        out["reason_logits"].append(6 * logits)
        out["energy"].append(-4.0 * gate - power + rng.normal(size=n))
    tile = len(views)
    return ClipScores(
        reasons=reasons,
        gate_logit=np.concatenate(out["gate_logit"]),
        reason_logits=np.concatenate(out["reason_logits"]),
        energy=np.concatenate(out["energy"]),
        n_frames=np.full(n * tile, 3, np.int32),
        view=np.repeat(np.arange(tile), n).astype(np.int16),
        snr_db=np.repeat(np.array(views, np.float32), n),
        site=np.tile(site, tile),
        clip=np.tile(np.arange(n), tile).astype(np.int32),
        clip_id=np.tile([f"{i:016x}" for i in range(n)], tile),
        group=np.tile(group, tile),
        label=np.tile(label, tile),
        part=np.full(n * tile, TEST, np.int8),
        gate=np.tile(gate, tile).astype(np.int8),
        reason=np.tile(reason, tile).astype(np.int16),
    )


@pytest.fixture(scope="session")
def scores_of() -> Callable[..., ClipScores]:
    """`make_scores`."""
    return make_scores


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that outlives single tests."""
    work_dir = tmp_path_factory.mktemp("served")
    yield embedded.ensure_running(work_dir)
    embedded.stop_running(work_dir)


@pytest.fixture
def store(server: EmbeddedServer) -> ObjectStore:
    """An empty bucket of its own for each test."""
    store = server.connect(bucket=f"test-{uuid.uuid4().hex[:12]}")
    store.ensure_bucket()
    return store


@pytest.fixture
def content(store: ObjectStore, tmp_path: Path) -> S3Content:
    """Content store over that bucket, with an empty cache."""
    return S3Content(store, tmp_path / "cache")
