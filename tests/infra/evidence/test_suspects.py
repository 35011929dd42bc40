"""Clips that look mislabelled: the most contradicted of either kind, in order, and with a picture."""

from __future__ import annotations

import base64
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from infra.evidence.suspects import png, suspects_document
from models.frames import SiteFrames
from models.predict import ClipScores


def world_of(scores: ClipScores) -> SimpleNamespace:
    """Rows and frames for the scores' clips: one second each, its level the clip's number."""
    clean = scores.select(scores.view == 0)
    rows = pd.DataFrame(
        {"sha256": [c + "0" * 48 for c in clean.clip_id], "path": [f"{c}.wav" for c in clean.clip_id]}
    )
    judge = {}
    for site in sorted(set(clean.site.tolist())):
        own = clean.select(clean.site == site)
        n = len(own)
        judge[site] = SiteFrames(
            site=site, reasons=own.reasons, log_mel=np.repeat(np.arange(80 * n, dtype=np.float16).reshape(n, 8, 10), 1, axis=0),
            clip=np.arange(n, dtype=np.int32), view=np.zeros(n, np.int16), snr_db=np.full(n, np.nan, np.float32),
            gate=own.gate, reason=own.reason, part=own.part, group=own.group, clip_id=own.clip_id, label=own.label,
        )  # fmt: skip
    return SimpleNamespace(rows=rows, frames=SimpleNamespace(judge=judge))


@pytest.fixture
def by_seed(out_of_fold) -> dict[int, ClipScores]:
    """Two seeds, the second one surer by a known amount; some with noise."""
    first = out_of_fold(snrs=(10.0,))
    return {1: first, 2: replace(first, gate_logit=first.gate_logit + 0.5)}


def test_the_most_contradicted_clips_in_order(by_seed: dict[int, ClipScores]) -> None:
    document = suspects_document(world_of(by_seed[1]), by_seed, most=5)
    clean = by_seed[1].select(by_seed[1].view == 0)
    logit = clean.gate_logit + 0.25
    cries, uploads = document["kinds"].values()
    lowest = np.sort(logit[clean.gate == 1])[:5]
    highest = np.sort(logit[(clean.gate == 0) & (clean.site != "")])[::-1][:5]
    for listed, expected in ((cries, lowest), (uploads, highest)):
        np.testing.assert_allclose([c["p_cry"] for c in listed], 1 / (1 + np.exp(-expected)), atol=6e-4)
        assert all(c["p_low"] <= c["p_cry"] <= c["p_high"] and c["p_low"] < c["p_high"] for c in listed)
        assert all(c["path"] == f"{c['clip']}.wav" for c in listed)
    assert document["seeds"] == [1, 2]


def test_public_noise_is_nobody_s_mistake(by_seed: dict[int, ClipScores]) -> None:
    wild = {s: replace(v, gate_logit=np.where(v.site == "", 99.0, v.gate_logit)) for s, v in by_seed.items()}
    document = suspects_document(world_of(by_seed[1]), wild, most=400)
    cries, uploads = document["kinds"].values()
    assert all(c["site"] for c in uploads)
    clean = by_seed[1].select(by_seed[1].view == 0)
    assert len(cries) == (clean.gate == 1).sum()
    assert len(uploads) == ((clean.gate == 0) & (clean.site != "")).sum()


def test_every_listed_clip_has_its_picture(by_seed: dict[int, ClipScores]) -> None:
    document = suspects_document(world_of(by_seed[1]), by_seed, most=3)
    listed = [c["clip"] for clips in document["kinds"].values() for c in clips]
    assert set(document["pictures"]) == set(listed)
    for uri in document["pictures"].values():
        head, data = uri.split(",", 1)
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")


def test_low_frequencies_are_at_the_bottom() -> None:
    import io

    from matplotlib.image import imread

    image = np.zeros((8, 10), np.float32)
    image[0] = 5.0  # the lowest band is the loud one
    drawn = imread(io.BytesIO(base64.b64decode(png(image).split(",")[1])))
    assert drawn.shape[:2] == (16, 10)
    assert drawn[-1, :, :3].sum() > 5 * drawn[0, :, :3].sum()
