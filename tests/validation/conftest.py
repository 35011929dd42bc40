"""A small federation on disk: three sites, three infants each (one per part), cries of two reasons and other sounds."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import soundfile

from models.frames import TEST, TRAIN, VAL
from validation.gate import run_gate
from validation.measure import measure_site
from validation.verdict import Verdict

RATE = 16_000


def cry_wave(rng: np.random.Generator, seconds: float = 1.2) -> npt.NDArray[np.float32]:
    """A buzzing tone in bursts over faint noise: loud, with pauses, nothing clipped."""
    t = np.arange(int(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * rng.uniform(350, 500) * t) * (np.sin(2 * np.pi * 3 * t) > 0)
    return np.asarray(0.3 * tone + 0.003 * rng.standard_normal(len(t)), dtype=np.float32)


@dataclass
class Federation:
    """A manifest's rows with their parts, and the folder of the clips; tests spoil it and look at the verdict."""

    root: Path
    table: pd.DataFrame
    parts: npt.NDArray[np.int8]

    def write(self, path: str, wave: npt.NDArray, rate: int = RATE, **options: str) -> None:
        """Replace a clip and its declared hash."""
        soundfile.write(self.root / path, wave, rate, **options)
        self.rehash(path)

    def rehash(self, path: str) -> None:
        """Declare the hash that the file has now."""
        digest = hashlib.sha256((self.root / path).read_bytes()).hexdigest()
        self.table.loc[self.table["path"] == path, "sha256"] = digest

    def clip(self, site: str = "ward1", part: int = TRAIN, label: str = "hungry") -> str:
        """Path of the first clip so described."""
        rows = self.table[
            (self.table["site"] == site) & (self.table["label"] == label) & (self.parts == part)
        ]
        return str(rows["path"].iloc[0])

    def keep(self, mask: pd.Series) -> None:
        """Drop the other rows."""
        self.parts = self.parts[mask.to_numpy()]
        self.table = self.table[mask].reset_index(drop=True)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    root = tmp_path_factory.mktemp("clips")
    rng = np.random.Generator(np.random.PCG64(7))
    rows, parts = [], []
    for site in ("ward1", "ward2", "ward3"):
        for part in (TRAIN, VAL, TEST):
            for label, role in (("hungry", "cry"), ("tired", "cry"), ("babble", "ood_noncry")):
                path = f"{site}_{part}_{label}.wav"
                soundfile.write(root / path, cry_wave(rng), RATE)
                rows.append((path, label, role, f"{site}-infant{part}", site))
                parts.append(part)
    for part in (TRAIN, VAL, TEST):
        path = f"fan_{part}.wav"
        soundfile.write(root / path, 0.1 * rng.standard_normal(2 * RATE).clip(-3, 3), RATE)
        rows.append((path, f"fan{part}", "noise", f"fan{part}", ""))
        parts.append(part)
    table = pd.DataFrame(rows, columns=["path", "label", "role", "group", "site"])
    table["sha256"] = [hashlib.sha256((root / p).read_bytes()).hexdigest() for p in table["path"]]
    return Federation(root, table, np.array(parts, dtype=np.int8))


@pytest.fixture
def federation(pristine: Federation, tmp_path: Path) -> Federation:
    """A copy to spoil."""
    root = tmp_path / "clips"
    shutil.copytree(pristine.root, root)
    return Federation(root, pristine.table.copy(), pristine.parts.copy())


def judge(fed: Federation, docs_dir: Path | None = None) -> Verdict:
    """The gate over all of its clips."""
    return run_gate(fed.table, measure_site(fed.table, fed.root), fed.parts, docs_dir)
