"""A release on a manifest: which clips count, what is left out, and that the numbers are those of the scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.data.manifest import load_manifest
from infra.edge.bundle import Bundle
from infra.edge.evaluate import evaluate_bundle, score_manifest
from infra.edge.release import CalibrationDocument, DataProvenance
from infra.edge.scorer import Scorer
from infra.settings import LimitSettings
from models.errors import ManifestError

LIMITS = LimitSettings()


def test_scores_every_labelled_clip_as_the_scorer_does(
    make_bundle: Callable[..., Bundle], corpus: Path
) -> None:
    manifest, bundle = load_manifest(corpus, limits=LIMITS), make_bundle()
    seen: list[tuple[int, int]] = []
    result = score_manifest(bundle, manifest, on_done=lambda done, total: seen.append((done, total)))
    assert (result.part, result.same_data, dict(result.errors)) == ("all", False, {})
    assert len(result.scores) == 29  # the unlabelled one is left out
    assert seen[-1] == (29, 29)
    scores, table = result.scores, manifest.table
    row = int(np.flatnonzero(table["role"] == "cry")[3])
    at = int(np.flatnonzero(scores.clip_id == table["sha256"][row][:16])[0])
    raw = Scorer(bundle).raw_file(corpus.parent / table["path"][row])
    assert scores.gate_logit[at] == raw.gate_logit
    np.testing.assert_array_equal(scores.reason_logits[at], raw.reason_logits)
    assert scores.reason[at] == (
        bundle.manifest.reasons.index(table["label"][row])
        if table["label"][row] in bundle.manifest.reasons
        else -1
    )
    assert set(scores.site) == {"site00", "site01", ""}
    assert sum(result.unknown_reasons.values()) == int((table["label"] == "colic").sum()) > 0


def test_on_its_own_data_only_the_test_part_counts(make_bundle: Callable[..., Bundle], corpus: Path) -> None:
    manifest = load_manifest(corpus, limits=LIMITS)
    own = make_bundle(data=DataProvenance(manifest_digest=manifest.digest, synthetic=True))
    parts = {p: score_manifest(own, manifest, part=p) for p in ("auto", "test", "val", "train", "all")}  # type: ignore[arg-type]
    assert parts["auto"].part == "test"
    assert parts["auto"].same_data
    sizes = {p: len(r.scores) for p, r in parts.items()}
    assert 0 < sizes["auto"] == sizes["test"] < sizes["train"]
    assert sizes["test"] + sizes["val"] + sizes["train"] == sizes["all"] == 29
    groups = [set(parts[p].scores.group) for p in ("test", "val", "train")]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]


def test_a_broken_clip_is_listed_and_the_rest_goes_on(
    make_bundle: Callable[..., Bundle], corpus: Path
) -> None:
    manifest = load_manifest(corpus, limits=LIMITS)
    (corpus.parent / "clip00.wav").write_bytes(b"RIFF but nothing else")
    result = score_manifest(make_bundle(), manifest)
    assert list(result.errors) == ["clip00.wav"]
    assert len(result.scores) == 28


def test_document(make_bundle: Callable[..., Bundle], corpus: Path) -> None:
    manifest = load_manifest(corpus, limits=LIMITS)
    own = CalibrationDocument(site="site00", gate_temperature=1.3, gate_fitted=True)
    document = evaluate_bundle(make_bundle(calibrations={"site00": own}), manifest, resamples=20)
    assert document["manifest"]["clips_scored"] == document["counts"]["clips"] == 29
    assert document["bundle"]["trained_on_synthetic"] is True
    assert 0.0 <= document["gate"]["negatives"]["all"]["auroc"]["value"] <= 1.0
    assert document["reason"] is not None
    assert document == evaluate_bundle(make_bundle(calibrations={"site00": own}), manifest, resamples=20)


def test_gate_only_release(make_bundle: Callable[..., Bundle], gate_graph: Path, corpus: Path) -> None:
    manifest = load_manifest(corpus, limits=LIMITS)
    bundle = make_bundle(graph=gate_graph, heads=("gate",), reasons=())
    document = evaluate_bundle(bundle, manifest, resamples=20)
    assert document["reason"] is None
    assert document["manifest"]["reasons_unknown_to_release"] == {}
    assert document["gate"]["negatives"]["all"]["auroc"]["value"] is not None


def test_nothing_to_score(make_bundle: Callable[..., Bundle], corpus: Path) -> None:
    table = pd.read_csv(corpus)
    table.assign(role="unlabelled").to_csv(corpus, index=False)
    with pytest.raises(ManifestError, match="no labelled clip in part 'all'"):
        score_manifest(make_bundle(), load_manifest(corpus, limits=LIMITS))
