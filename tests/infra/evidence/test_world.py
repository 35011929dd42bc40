"""Worlds: built once, loaded as built, refused where incomplete; and pretraining has met no clip that will judge it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.data.manifest import load_manifest
from infra.evidence.folds import evidence_folds, judged
from infra.evidence.world import BASES, build_world, load_world
from models.errors import DataError
from models.state import to_arrays
from tests.infra.evidence.corpora import CONFIG, recordings


def weights(folder: Path) -> dict[str, bytes]:
    return {base: (folder / f"base-{base}.safetensors").read_bytes() for base in BASES}


def test_a_world_is_loaded_as_it_was_built(world: Path, corpus: Path) -> None:
    loaded = load_world(world)
    manifest = load_manifest(corpus)
    rows = judged(manifest.table)
    assert loaded.manifest == manifest.digest
    assert loaded.rows["path"].tolist() == rows["path"].tolist()
    assert loaded.rows["site"].tolist() == rows["site"].tolist()  # an empty site stays empty, and is no NaN
    np.testing.assert_array_equal(loaded.folds, evidence_folds(rows, CONFIG.folds, CONFIG.seed))
    assert set(loaded.frames.learn) == set(loaded.frames.judge) == set(rows["site"])
    for site, frames in loaded.frames.judge.items():
        assert frames.clip_id.tolist() == [sha[:16] for sha in rows["sha256"][rows["site"] == site]]
    assert loaded.noise_classes == sorted(set(rows["label"][rows["role"] == "noise"]))
    net = loaded.network("denoising")
    for name, array in to_arrays(net).items():
        np.testing.assert_array_equal(array, loaded.bases["denoising"][name])


def test_two_networks_that_differ_by_what_they_learned(world: Path) -> None:
    bases = load_world(world).bases
    assert set(bases) == set(BASES)
    assert any((bases["denoising"][n] != bases["plain"][n]).any() for n in bases["plain"])


def test_it_is_built_once(world: Path, corpus: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in world.iterdir()}
    told: list[str] = []
    assert build_world(corpus, CONFIG, world.parent, lambda _share, what: told.append(what)) == world
    assert told == []
    assert {p: p.stat().st_mtime_ns for p in world.iterdir()} == before


def test_another_setting_is_another_world_and_another_digest(world: Path) -> None:
    meta = json.loads((world / "world.json").read_text())
    assert meta["config"] == CONFIG.to_dict()
    assert replace(CONFIG, seed=1).to_dict() != CONFIG.to_dict()


def test_a_broken_off_build_is_refused_and_built_again(world: Path, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / world.name
    shutil.copytree(world, folder)
    (folder / "world.json").unlink()  # written last
    (folder / "base-plain.safetensors").write_bytes(b"half")
    with pytest.raises(DataError, match="no complete evidence world"):
        load_world(folder)
    assert build_world(corpus, CONFIG, tmp_path) == folder
    assert load_world(folder).digest == load_world(world).digest
    assert weights(folder) == weights(world)


def test_pretraining_meets_no_clip_of_the_manifest(world: Path, tmp_path: Path) -> None:
    """Other recordings, which are gone before pretraining begins, give the same networks to the bit."""
    others = recordings(tmp_path / "others", seed=7)
    seen: list[str] = []

    def destroy(_share: float, what: str) -> None:
        if what == "the synthetic pool":
            for path in others.parent.rglob("*.wav"):
                path.write_bytes(b"no audio")
                seen.append(path.name)

    other = build_world(others, CONFIG, tmp_path, destroy)
    assert len(seen) > 30
    assert load_world(other).manifest != load_world(world).manifest
    assert (load_world(other).rows["sha256"] != load_world(world).rows["sha256"]).all()
    assert weights(other) == weights(world)


def test_the_pool_shares_no_clip_with_what_the_same_settings_would_make_for_sites(
    tmp_path: Path, world: Path
) -> None:
    """The synthetic corpus may itself be the manifest: the pool's namespace keeps its infants apart."""
    from infra.data.synth.corpus import synthesise

    sites = load_manifest(synthesise(CONFIG.pool, tmp_path)).table
    (pool,) = (world / "pool").rglob("manifest.csv")
    assert set(load_manifest(pool).table["sha256"]).isdisjoint(sites["sha256"])
