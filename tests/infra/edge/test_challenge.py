"""Champion against challenger: the paired difference by hand, and which clips may count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.data.manifest import Manifest, load_manifest
from infra.edge.bundle import Bundle
from infra.edge.challenge import compare
from infra.edge.evaluate import score_manifest
from infra.edge.export import export_onnx
from infra.edge.release import DataProvenance
from models.errors import DataError
from models.frames import TEST
from models.metrics import auroc
from models.network import CryNet


@pytest.fixture
def other_graph(stirred: Callable[..., CryNet], tmp_path: Path) -> Path:
    """Another network: the first one's with the gate turned round."""
    net = stirred("tiny")
    for name, parameter in net.named_parameters():
        if "gate" in name:
            parameter.data.neg_()
    path = tmp_path / "other.onnx"
    export_onnx(net, path)
    return path


def _as_heard_by(bundle: Bundle, corpus: Path) -> Manifest:
    """The corpus with the upper half of the release's own scores called cries: its AUROC is 1 by construction."""
    table = pd.read_csv(corpus)
    table = table[table["role"] != "noise"].reset_index(drop=True)
    table["role"] = "cry"
    table.to_csv(corpus, index=False)
    scores = score_manifest(bundle, load_manifest(corpus), part="all").scores
    logit = dict(zip(scores.clip_id, scores.gate_logit, strict=True))
    value = np.array([logit[sha[:16]] for sha in table["sha256"]])
    table["role"] = np.where(value > np.median(value), "cry", "ood_noncry")
    table.to_csv(corpus, index=False)
    return load_manifest(corpus)


def test_a_release_is_as_good_as_itself(make_bundle: Callable[..., Bundle], corpus: Path) -> None:
    old, new = make_bundle("old"), make_bundle("new", notes=("the same graph",))
    result = compare(old, new, load_manifest(corpus), margin=0.0, resamples=100)
    assert result["accepted"]
    assert (result["champion"], result["challenger"]) == (old.digest, new.digest)
    assert result["clips"] == 29  # one of the 30 is unlabelled
    for head in ("gate_auroc", "macro_f1"):
        assert (result[head]["value"], result[head]["low"], result[head]["high"]) == (0.0, 0.0, 0.0)


def test_a_worse_one_is_refused_and_the_other_way_round_accepted(
    make_bundle: Callable[..., Bundle], other_graph: Path, corpus: Path
) -> None:
    good, bad = make_bundle("good"), make_bundle("bad", graph=other_graph)
    manifest = _as_heard_by(good, corpus)
    scores = score_manifest(bad, manifest).scores
    reached = float(auroc(scores.gate_logit, scores.gate == 1))
    assert reached < 0.5
    worse = compare(good, bad, manifest, margin=0.05, resamples=200)
    assert worse["gate_auroc"]["value"] == pytest.approx(reached - 1.0)
    assert not worse["accepted"]
    assert "gate_auroc: -" in worse["why"]
    assert "the lower end is below -0.05" in worse["why"]
    # with a margin that gives everything away, the gate has no objection
    assert "gate_auroc" not in compare(good, bad, manifest, margin=1.0, resamples=200)["why"]
    better = compare(bad, good, manifest, margin=0.0, resamples=200)
    assert better["gate_auroc"]["value"] == pytest.approx(1.0 - reached)
    assert "gate_auroc" not in better["why"]


def test_only_clips_new_to_both_count(make_bundle: Callable[..., Bundle], corpus: Path) -> None:
    manifest = load_manifest(corpus)

    def learned(test_fold: int, val_fold: int) -> DataProvenance:
        return DataProvenance(
            manifest_digest=manifest.digest,
            synthetic=False,
            n_folds=3,
            test_fold=test_fold,
            val_fold=val_fold,
        )

    stranger = make_bundle("stranger")
    first = make_bundle("first", data=learned(0, 1))
    own = score_manifest(first, manifest).scores
    assert 0 < (own.part == TEST).sum() == len(own) < 29
    assert compare(stranger, first, manifest, resamples=50)["clips"] == len(own)
    assert compare(first, stranger, manifest, resamples=50)["clips"] == len(own)
    second = make_bundle("second", data=learned(1, 0))
    with pytest.raises(DataError, match="no clip is new to both"):
        compare(first, second, manifest, resamples=50)


def test_heads_that_one_of_them_lacks_are_not_compared(
    make_bundle: Callable[..., Bundle], gate_graph: Path, corpus: Path
) -> None:
    full, gate = make_bundle("full"), make_bundle("gate", graph=gate_graph, heads=("gate",), reasons=())
    for pair in ((full, gate), (gate, full)):
        result = compare(*pair, load_manifest(corpus), resamples=50)
        assert result["macro_f1"] is None
        assert result["gate_auroc"]["value"] == pytest.approx(0.0, abs=1e-6)


def test_clips_that_cannot_tell_are_not_in_its_favour(
    make_bundle: Callable[..., Bundle], corpus: Path
) -> None:
    table = pd.read_csv(corpus)
    table[table["role"] == "cry"].to_csv(corpus, index=False)
    result = compare(make_bundle("a"), make_bundle("b"), load_manifest(corpus), resamples=50)
    assert not result["accepted"]
    assert "cannot tell" in result["why"]
