"""Does the drift report find what moved on real clips, and keep quiet where nothing did?

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.drift [--json drift.json]

The reference is of all folds but 0, the new clips are fold 0: as recorded, of Android phones alone, and 10 dB louder, clipped at
full scale as a recorder would. Beside it, the rate of false alarms: devices dealt out at random into four fifths and one fifth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import soundfile

from infra.data.manifest import load_manifest
from infra.data.splits import assign_folds
from infra.settings import load_settings
from models.augment import apply_gain
from validation.drift import ALPHA, FOLKLORE, DriftConfig, compare, summary
from validation.measure import measure_site, measure_wave
from validation.reference import make_reference, observe, recorded

LOUDER_DB: Final = 10.0
SPLITS: Final = 100


def louder(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The measurements of clips that were recorded with more gain."""
    out = []
    for path in rows["path"]:
        wave, rate = soundfile.read(root / path, dtype="float32", always_2d=True)
        loud = np.stack([apply_gain(channel, LOUDER_DB) for channel in wave.T], axis=1)
        out.append({"path": path, **measure_wave(loud, rate)})
    return pd.DataFrame(out)


def false_alarms(clips: pd.DataFrame) -> dict[str, Any]:
    """How often a random fifth of the devices is said to differ from the rest."""
    names = np.unique(clips["group"])
    low, lone, drifted, customary = [], [], 0, 0
    for seed in range(SPLITS):
        chosen = np.random.default_rng(seed).permutation(names)[: len(names) // 5]
        new = clips["group"].isin(chosen)
        config = DriftConfig(resamples=2, draws=1999, seed=seed)
        document = compare(make_reference(clips[~new]), clips[new], config)
        low += [row["p"] < ALPHA for row in document["features"]]
        drifted += document["verdict"] == "drift"
        customary += any(row["psi"]["value"] >= FOLKLORE[0][0] for row in document["features"])
        each = clips.assign(group=[str(k) for k in range(len(clips))])
        naive = compare(make_reference(each[~new]), each[new], config)
        lone.append(naive["verdict"] == "drift")
    return {
        "splits": SPLITS,
        "features_below_alpha": float(np.mean(low)),
        "splits_with_drift": drifted / SPLITS,
        "splits_with_drift_if_clips_were_independent": float(np.mean(lone)),
        "splits_with_a_psi_of_0.25": customary / SPLITS,
    }


def main() -> None:
    """Measure once, compare often, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    manifest = load_manifest(load_settings().data / "manifest.csv")
    rows = recorded(manifest.table)
    fold = assign_folds(manifest.table)[rows.index]
    clips = observe(rows, measure_site(rows, manifest.root))
    is_new = (fold == 0).to_numpy()
    reference = make_reference(clips[~is_new], manifest.digest)
    new = clips[is_new]
    cases = {
        "fold 0": new,
        "fold 0, android": new[new["platform"] == "android"],
        f"fold 0, {LOUDER_DB:g} dB louder": observe(rows[fold == 0], louder(rows[fold == 0], manifest.root)),
    }
    found: dict[str, Any] = {}
    for name, some in cases.items():
        found[name] = compare(reference, some)
        print(f"{name}: {len(some)} clips of {some['group'].nunique()} groups: {summary(found[name])}")
        for row in found[name]["features"][:6]:
            psi = row["psi"]
            print(
                f"  {row['name']:18} PSI {psi['value']:.3f} ({psi['low']:.3f}–{psi['high']:.3f}), without drift "
                f"{row['expected']:.3f}, threshold {row['threshold']:.3f}, p {row['p']:.2g}: {row['verdict']}"
            )
    found["random splits"] = false_alarms(clips)
    print("random splits:", found["random splits"])
    if options.json:
        options.json.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
