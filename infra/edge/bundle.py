"""The release bundle: a folder with `model.onnx` and a `manifest.json` that names every file by digest.

- `model.onnx`      one graph from waveform to logits, probabilities and energy (`infra.edge.export`)
- `tensorrt.json`, `model.typed.onnx`   what a device builds an engine from (`infra.edge.variants`)
- `manifest.json`   label set, shipped heads, model and VAD configuration, calibration per site, provenance,
                    files → SHA-256 (`infra.edge.release`)

The manifest is written last, so its existence means completeness. The folder may hold other files (a run's
report, say): only the files that the manifest names belong to the bundle. Nothing in a bundle is executed or
unpickled on loading, nothing is read past its announced size, and no name may lead out of the folder.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from infra.digest import digest_bytes, digest_file
from infra.edge.release import (
    BUNDLE_FORMAT,
    MANIFEST_NAME,
    MODEL_NAME,
    BundledFile,
    BundleManifest,
)
from models.calibration import SiteCalibration, with_fallback
from models.errors import BundleError, OutputError

MAX_MANIFEST_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    folder: Path
    manifest: BundleManifest

    @property
    def digest(self) -> str:
        """The release's identity."""
        return self.manifest.digest()

    def path(self, name: str = MODEL_NAME) -> Path:
        """Where a file of the bundle lies."""
        return self.folder / name

    def read(self, name: str = MODEL_NAME) -> bytes:
        """Bytes of one file, verified again as they are read, so that what is used is what was checked.

        Raises:
            BundleError: the file is not part of the bundle or changed since loading.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.folder}: {name!r} is not part of this bundle")
        data = _read_bounded(self.path(name), entry.size)
        if digest_bytes(data) != entry.sha256:
            raise BundleError(
                f"{self.path(name)}: contents do not match {MANIFEST_NAME}; pull the release again"
            )
        return data

    def calibration(self, site: str | None = None) -> SiteCalibration:
        """The calibration of a site, filled up from the pooled one where the site had too few clips; or the pooled one.

        Raises:
            BundleError: the bundle has no calibration for that site.
        """
        pooled = self.manifest.default_calibration.calibration()
        if site is None:
            return pooled
        if site not in self.manifest.calibrations:
            known = ", ".join(sorted(self.manifest.calibrations)) or "none"
            raise BundleError(
                f"{self.folder}: no calibration for site {site!r} (it has: {known}); "
                "leave the site out to use the pooled one"
            )
        return with_fallback(self.manifest.calibrations[site].calibration(), pooled)


def describe_files(paths: Mapping[str, Path]) -> dict[str, BundledFile]:
    """Digest and size of the files that a manifest is to name."""
    return {
        name: BundledFile(sha256=digest_file(p), size=p.stat().st_size) for name, p in sorted(paths.items())
    }


def write_bundle(folder: Path, manifest: BundleManifest, sources: Mapping[str, Path]) -> Bundle:
    """Put the files and then the manifest into `folder` (made if needed); the manifest comes last.

    `sources` maps each name in `manifest.files` to the file to copy (which may already lie in place).

    Raises:
        BundleError: a source is missing or does not match the manifest.
        OutputError: the folder cannot be written.
    """
    if set(sources) != set(manifest.files):
        raise BundleError(
            f"bundle files {sorted(manifest.files)} do not match the given sources {sorted(sources)}"
        )
    staged: list[tuple[Path, Path]] = []
    target = folder / MANIFEST_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in sorted(sources.items()):
            data = _read_bounded(source, manifest.files[name].size)
            if digest_bytes(data) != manifest.files[name].sha256:
                raise BundleError(f"{source}: does not match the digest that the manifest gives for {name!r}")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            staged.append((_stage(folder / name, data), folder / name))
        staged.append((_stage(target, manifest.to_json()), target))
        # an older manifest must not vouch for files that are being replaced
        target.unlink(missing_ok=True)
        for temporary, final in staged:
            temporary.replace(final)
    except OSError as err:
        raise OutputError(
            f"{folder}: the bundle cannot be written ({err.strerror or err}); check the path and its rights"
        ) from err
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)
    return Bundle(folder, manifest)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and verify every file against its manifest.

    Raises:
        BundleError: no bundle there, not valid JSON, another format, a path that leaves the folder, or a
            file that is missing, too large or altered.
    """
    real = folder.resolve()
    path = real / MANIFEST_NAME
    if not path.is_file():
        raise BundleError(
            f"{folder}: no release bundle there ({MANIFEST_NAME} is missing); "
            "give --bundle, or run `cryfed retrain` first"
        )
    raw = _read_bounded(path, MAX_MANIFEST_BYTES, exact=False)
    try:
        manifest = BundleManifest.model_validate(_parse(raw))
    except ValidationError as err:
        lines = [f"{'.'.join(str(p) for p in e['loc']) or 'manifest'}: {e['msg']}" for e in err.errors()[:5]]
        raise BundleError(
            f"{folder / MANIFEST_NAME}: not a valid {BUNDLE_FORMAT} manifest: " + "; ".join(lines)
        ) from None
    except ValueError as err:
        raise BundleError(
            f"{folder / MANIFEST_NAME}: not valid JSON ({err}); pull the release again"
        ) from None
    bundle = Bundle(real, manifest)
    for name, entry in manifest.files.items():
        file = bundle.path(name)
        if not file.is_file():
            raise BundleError(f"{folder}: {name!r} is missing; pull the release again")
        if not file.resolve().is_relative_to(real):
            raise BundleError(f"{folder}: {name!r} links outside the bundle; pull the release again")
        if file.stat().st_size != entry.size or digest_file(file) != entry.sha256:
            raise BundleError(f"{file}: contents do not match {MANIFEST_NAME}; pull the release again")
    return bundle


def _parse(raw: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise ValueError("a key is given twice")
        return dict(pairs)

    try:
        return json.loads(raw, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read_bounded(path: Path, limit: int, *, exact: bool = True) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as err:
        raise BundleError(f"{path}: cannot be read ({err.strerror or err})") from err
    if len(data) > limit:
        raise BundleError(f"{path}: larger than the {limit} bytes allowed; pull the release again")
    if exact and len(data) != limit:
        raise BundleError(f"{path}: {len(data)} bytes where {limit} were announced; pull the release again")
    return data


def _stage(target: Path, data: bytes) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
