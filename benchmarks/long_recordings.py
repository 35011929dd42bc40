"""False alarms an hour against missed bouts, over hours of synthesised recordings: a page and its document.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.long_recordings --manifest clips.csv --out page.html [--bundle runs/latest]

With a bundle, its graph listens to what its test fold is made of; without one, logistic regression on MFCC statistics of one-
second frames does, fitted anew for each fold on the other folds' clips.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from infra import quiet
from infra.data.audio import read_audio
from infra.data.manifest import load_manifest
from infra.data.splits import assign_folds
from infra.digest import digest_json
from infra.edge.bundle import load_bundle
from infra.edge.scorer import Scorer as Release
from infra.evidence.alarm_tuning import Limits
from infra.evidence.folds import FOLDS, evidence_folds, judged
from infra.evidence.long_recordings import fold_tracks, long_recordings_document
from infra.evidence.long_track import Scorer, Track, of_baseline, of_graph
from infra.evidence.soundscape import SoundscapeConfig
from infra.report.long_recordings import render_long_recordings
from models.errors import ConfigError


def baseline(rows: pd.DataFrame, root: Path, train: np.ndarray) -> tuple[Scorer, str]:
    """Logistic regression on the clips of a mask, and what it was made of."""
    learned = rows[train]

    def waves(role: list[str]) -> list[np.ndarray]:
        paths = learned["path"][learned["role"].isin(role)]
        return [read_audio(root / p, max_seconds=600, max_bytes=2**28) for p in paths]

    scorer = of_baseline(waves(["cry"]), waves(["ood_noncry", "noise"]))
    return scorer, digest_json(["logistic regression on MFCC, seconds", sorted(learned["sha256"])])


def calibrated(release: Release) -> Scorer:
    """The release's calibrated log-odds of a cry, by frame."""
    raw, calibration = of_graph(release.graph.run), release.calibration
    return lambda frames: calibration.gate_log_odds(raw(frames))


def main() -> None:
    """Listen, tune, report."""
    quiet.apply()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument(
        "--out", type=Path, required=True, help="the page; its document lies beside it as .json"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cryfed/long-recordings"))
    parser.add_argument("--hours", type=float, default=1.0, help="of each recording: two for every fold")
    parser.add_argument("--folds", type=int, nargs="*", help="default: all, or the release's test fold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-hour", type=float, default=Limits().per_hour, help="false alarms put up with")
    options = parser.parse_args()
    manifest = load_manifest(options.manifest)
    rows = judged(manifest.table)
    folds = evidence_folds(rows)
    release = None
    if options.bundle:
        bundle = load_bundle(options.bundle)
        data = bundle.manifest.data
        if data.manifest_digest != manifest.digest:
            raise ConfigError(
                f"{options.bundle} did not learn from {options.manifest}: its test fold is not known"
            )
        release = Release(bundle)
        folds = assign_folds(rows, n_folds=data.n_folds, seed=data.fold_seed).to_numpy()
        options.folds = [data.test_fold]
    cfg = replace(SoundscapeConfig(), hours=options.hours)
    tracks: dict[str, list[Track]] = {"tune": [], "test": []}
    for fold in range(FOLDS) if options.folds is None else options.folds:
        if release is not None:
            scorer, what = calibrated(release), release.bundle.digest
        else:
            scorer, what = baseline(rows, manifest.root, folds != fold)

        def tell(done: float, of: float, fold: int = fold) -> None:
            print(f"\rfold {fold}: {done / 60:.0f} of {of / 60:.0f} min", end="", file=sys.stderr, flush=True)

        pair = fold_tracks(
            rows,
            manifest.root,
            folds,
            fold,
            scorer,
            what,
            options.cache,
            cfg=cfg,
            seed=options.seed,
            on_seconds=tell,
        )
        for half, track in pair.items():
            tracks[half].append(track)
    print(file=sys.stderr)
    document = long_recordings_document(
        tracks["tune"], tracks["test"], limits=Limits(per_hour=options.per_hour),
        command=f"python -m benchmarks.long_recordings --hours {options.hours:g} --seed {options.seed}"
        + (" --bundle RELEASE" if options.bundle else "") + " --manifest MANIFEST --out PAGE",
    )  # fmt: skip
    document["name"] = "logistic regression on MFCC" if release is None else f"release {what[:12]}"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    options.out.write_text(render_long_recordings(document))


if __name__ == "__main__":
    main()
