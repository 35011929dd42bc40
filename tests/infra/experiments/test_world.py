"""Sites and held-out clips from tokens in memory; and the real data, small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.data.synth.config import REASONS
from infra.experiments.plans import QUICK_WORLD
from infra.experiments.world import WorldConfig, build_world, load_world
from models.errors import DataError
from models.frames import TEST, TRAIN, VAL
from tests.infra.experiments.world import PLAN, infants_of, write_world


def test_no_infant_is_at_two_sites_or_in_two_parts(tmp_path: Path) -> None:
    world = load_world(write_world(tmp_path / "w"))
    dealt = world.deal(4, 0.1, 7)
    assert sorted(int(n) for names in dealt for n in names) == sorted(infants_of(world, TRAIN))
    parts = [infants_of(world, part) for part in (TRAIN, VAL, TEST)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    sites = world.sites(dealt)
    assert sum(len(s) for s in sites.values()) == (world.part[world.clip] == TRAIN).sum()
    for site, names in zip(sites.values(), dealt, strict=True):
        assert len(site) == 4 * len(names)  # a cry and another clip, two frames each
        assert (site.weight == 0.5).all()
        assert sorted(set(site.reason[site.gate == 1])) == sorted({world.infants(TRAIN)[n] for n in names})


def test_sites_depend_on_alpha_and_seed_alone(tmp_path: Path) -> None:
    world = load_world(write_world(tmp_path / "w"))
    assert world.deal(4, 0.1, 7) == world.deal(4, 0.1, 7) != world.deal(4, 0.1, 8)


def test_networks_share_the_backbone_and_draw_the_rest(tmp_path: Path) -> None:
    world = load_world(write_world(tmp_path / "w"))
    one, two = (dict(world.network(PLAN.model(PLAN.arms[0]), seed).named_parameters()) for seed in (1, 2))
    same = {name for name in one if np.array_equal(one[name].detach(), two[name].detach())}
    assert set(world.weights) <= same
    assert "reason_head.0.weight" not in same
    assert not any(name.endswith("lora_a") for name in same)


def test_held_out_clips_are_whole(tmp_path: Path) -> None:
    world = load_world(write_world(tmp_path / "w"))
    clips = world.held_out(TEST)
    assert len(clips.gate) == 2 * len(infants_of(world, TEST))
    assert (np.bincount(clips.clip) == 2).all()
    assert (clips.reason[clips.gate == 0] == -1).all()


def test_a_small_world_from_audio_is_made_once(tmp_path: Path) -> None:
    cfg: WorldConfig = replace(
        QUICK_WORLD, synth=replace(QUICK_WORLD.synth, infants_per_site=10, noncries_per_site=12),
        backbone=replace(QUICK_WORLD.backbone, steps=1), denoiser=replace(QUICK_WORLD.denoiser, steps=1),
    )  # fmt: skip
    told: list[str] = []
    path = build_world(cfg, tmp_path, told.append)
    assert told == ["synthesising", "extracting frames", "pretraining", "tokens"]
    assert build_world(cfg, tmp_path, told.append) == path
    assert len(told) == 4
    world = load_world(path)
    everyone = [world.infants(part) for part in (TRAIN, VAL, TEST)]
    assert sum(len(names) for names in everyone) == len({n for names in everyone for n in names}) == 20
    assert len(everyone[0]) > len(everyone[1]) + len(everyone[2]) > 4
    assert set(world.reason[world.gate == 1]) <= set(range(len(REASONS)))
    sites = world.sites(world.deal(2, 100.0, 1))
    assert all({0, 1} <= set(site.gate) for site in sites.values())


@pytest.mark.parametrize("content", [None, b"junk"])
def test_a_file_that_is_no_world_is_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    from models.errors import CryfedError

    path = tmp_path / "w"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((DataError, CryfedError), match=str(path)):
        load_world(path)
