"""One site's stages as its own process runs them: pure functions of its folder, in this order.

    data = SiteData("ward1", manifest, folder, plan, log_mel, reasons)
    check(data)                      → GateReply
    extract(data)                    → FeaturesReply
    calibrate(data, trained model)   → CalibrationReply

What a function returns may leave the site; that is all that does. The full verdict with its Data Docs, frames, scores and the
full calibration stay in the site's folder, where its own people read them:

    folder/gate/verdict.json, folder/gate/data_docs/index.html    folder/calibration.json    folder/artifacts/…
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from infra.data.audio import ClipLimits, ReadLimits
from infra.data.manifest import load_manifest
from infra.data.splits import assign_folds, parts
from infra.digest import digest_file
from infra.federation.files import encode_arrays, write_atomic
from infra.federation.local.frames import FRAMES, Clips, Rendering
from infra.federation.local.plan import DataPlan
from infra.federation.local.score import CALIBRATION, Trained
from infra.federation.local.travel import CalibrationReply, FeaturesReply, GateReply
from infra.federation.local.verdict import VERDICT, let_through
from infra.federation.local.work import (
    DOCS,
    carry_out,
    extracting,
    judging,
    measuring,
    probing,
    scoring,
    site_store,
)
from infra.federation.own_features import OwnFeatures, current, point_to, withdraw
from infra.stages import Artifact, fetch, resolve
from models.calibration import SiteCalibration
from models.config import LogMelConfig
from models.errors import GateError, ManifestError, OutputError
from validation.verdict import Verdict

_GATE: Final = "gate"


@dataclass(frozen=True)
class SiteData:
    """A site's recordings, and how they are to be used.

    Attributes:
        site: its name in the manifest and in the federation.
        manifest: the table of its own clips and of public noise; rows of other sites are passed over.
        folder: its own folder; everything that its stages make stays there.
        plan: what all sites agree on.
        log_mel: the network's front end.
        reasons: the federation's label set.
        override: the site's own reason to go on although its gate fails; None stops there.
        limits: bounds on what is read.
    """

    site: str
    manifest: Path
    folder: Path
    plan: DataPlan
    log_mel: LogMelConfig
    reasons: tuple[str, ...]
    override: str | None = None
    limits: ClipLimits = field(default_factory=ReadLimits)

    @property
    def rendering(self) -> Rendering:
        """How recordings become frames."""
        return Rendering(self.reasons, self.log_mel, self.plan.vad, self.plan.features)


@dataclass(frozen=True)
class _Rows:
    own: Clips
    noise: Clips  # public

    def usable(self, unusable: tuple[str, ...]) -> Clips:
        """Own clips with a gate label, less those that cannot be decoded (there are none unless the gate was overridden)."""
        rows = self.own.rows
        keep = (~rows["path"].isin(list(unusable)) & (rows["role"] != "unlabelled")).to_numpy()
        return Clips(rows[keep], self.own.parts[keep], self.own.root)


def check(data: SiteData) -> GateReply:
    """Measure and probe the site's clips and judge them; the verdict, its rows and the Data Docs stay in the folder.

    Where critical rules are broken, and the site gave no reason to go on, the frames of an earlier gate are withdrawn.

    Raises:
        ManifestError: the manifest cannot be used, or has no clip of this site.
        GateError: a rule could not be evaluated.
        OutputError: the folder cannot be written.
    """
    verdict = _judge(data, _rows(data))
    try:
        overridden = _release(data, verdict).override_reason is not None
    except GateError:
        overridden = False
    bare = verdict.without_paths()
    return GateReply(
        data.site,
        passed=bare.passed,
        overridden=overridden,
        criticals=tuple(f.rule for f in bare.criticals),
        warnings=tuple(f.rule for f in bare.warnings),
    )


def extract(data: SiteData) -> FeaturesReply:
    """Extract the site's frames into its folder, once its gate lets it; they are the current ones from then on.

    Raises:
        GateError: a critical rule is broken and the site gave no reason to go on; frames are withdrawn as by `check`.
        AudioError: a clip of public noise cannot be used.
        ManifestError, OutputError: as for `check`.
    """
    rows = _rows(data)
    verdict = _release(data, _judge(data, rows))
    made = carry_out(
        extracting(rows.usable(verdict.unusable), rows.noise, data.rendering, data.limits), data.folder
    )
    point_to(OwnFeatures(made.uri, made.files[FRAMES]), data.folder)
    return FeaturesReply(data.site, made.files[FRAMES])


def calibrate(
    site: str,
    folder: Path,
    *,
    network: Mapping[str, Any],
    reasons: tuple[str, ...],
    base: Path,
    theta: npt.NDArray[np.float32],
) -> CalibrationReply:
    """Score the site's current frames and fit its calibration; scores and counts stay in the folder.

    Args:
        site: its name.
        folder: its own folder, with current frames.
        network: `ModelConfig.to_dict()`.
        reasons: the federation's label set.
        base: the base model's file.
        theta: (P,) trained adapters and heads.

    Raises:
        DataError: there are no current frames, or they are not the network's.
        OutputError: the folder cannot be written.
    """
    store = site_store(folder)
    frames = resolve(store, current(folder).uri)
    file = folder / "theta.safetensors"
    write_atomic(file, encode_arrays({"theta": theta}))
    trained = Trained(network, reasons, base, file)
    parents = {"features": frames.digest, "base": digest_file(base), "theta": digest_file(file)}
    made = carry_out(scoring(trained, fetch(store, frames, FRAMES), site=site, parents=parents), folder)
    fitted = SiteCalibration.from_dict(made.values[CALIBRATION])
    _write(folder / "calibration.json", json.dumps(fitted.to_dict(), indent=2, sort_keys=True))
    return CalibrationReply.of(fitted)


def own_verdict(folder: Path) -> Verdict:
    """The last verdict in a site's folder, with the names of files and groups: for the site's own people.

    Raises:
        GateError: there is none.
    """
    path = folder / _GATE / VERDICT
    try:
        return Verdict.from_json(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise GateError(f"no verdict in {path} ({err.strerror}): run the gate first") from None


def _rows(data: SiteData) -> _Rows:
    manifest = load_manifest(data.manifest)
    table, split = manifest.table, data.plan.split
    folds = assign_folds(table, n_folds=split.folds)
    codes = parts(folds, test_fold=split.test_fold, val_fold=split.val_fold)

    def pick(mask: pd.Series) -> Clips:
        return Clips(table[mask], codes[mask].to_numpy(np.int8), manifest.root)

    own = pick(table["site"] == data.site)
    if own.rows.empty:
        raise ManifestError(
            f"{data.manifest} has no clip of site {data.site!r}, only of {', '.join(manifest.sites) or 'none'}"
        )
    return _Rows(own, pick((table["site"] == "") & (table["role"] == "noise")))


def _judge(data: SiteData, rows: _Rows) -> Verdict:
    own = rows.own
    measured = carry_out(measuring(own.rows, own.root, data.limits), data.folder)
    probed = carry_out(probing(own.rows, own.parts, own.root, data.limits, data.reasons), data.folder)
    judged = carry_out(judging(data.site, own.rows, own.parts, measured, probed, data.folder), data.folder)
    text = site_store(data.folder).fetch(judged.files[VERDICT]).read_text(encoding="utf-8")
    _show(data.folder, judged, text)
    return Verdict.from_json(text)


def _release(data: SiteData, verdict: Verdict) -> Verdict:
    """Let the verdict through, with a reason recorded in the site's folder; or withdraw the frames of an earlier one."""
    try:
        released = let_through(verdict, data.override)
    except GateError:
        withdraw(data.folder)
        raise
    if released.override_reason is not None:
        _write(data.folder / _GATE / VERDICT, released.to_json())
    return released


def _show(folder: Path, judged: Artifact, verdict: str) -> None:
    """Put the verdict and its Data Docs where the site's people look."""
    shown = folder / _GATE
    mark = shown / VERDICT
    if mark.is_file() and mark.read_text(encoding="utf-8") == verdict:
        return
    archive = site_store(folder).fetch(judged.info[DOCS])
    try:
        mark.unlink(missing_ok=True)  # no verdict beside the Data Docs of another
        shutil.rmtree(shown / DOCS, ignore_errors=True)
        (shown / DOCS).mkdir(parents=True, exist_ok=True)
        shutil.unpack_archive(archive, shown / DOCS, "zip")
    except OSError as err:
        raise OutputError(f"cannot write the site's folder {shown}: {err.strerror}") from None
    _write(mark, verdict)


def _write(path: Path, text: str) -> None:
    write_atomic(path, text.encode())
