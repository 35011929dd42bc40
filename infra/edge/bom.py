"""The bill of materials of a release: CycloneDX 1.6, with the model, its data and everything it was made with.

Source: https://cyclonedx.org/docs/1.6/json/. Without serial number and time, both of which are optional, so that the same release
has the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from infra.digest import canonical_json
from infra.edge.card import INTENDED_USE, LIMITS, NOT_A_DEVICE
from infra.edge.graph import GATE_OUTPUTS, INPUT, REASON_OUTPUTS
from infra.edge.release import MODEL_NAME, BundleManifest
from models.errors import ConfigError

BOM_NAME: Final = "bom.cdx.json"
_MODEL_REF: Final = "model"
_DATA_REF: Final = "data"
_LINE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!_-]+)")

Json = dict[str, Any]


def bill_of_materials(manifest: BundleManifest, lock: Path) -> bytes:
    """The BOM of a bundle with this manifest; `lock` pins what it was made with (requirements.lock).

    Raises:
        ConfigError: a line of the lock file is not NAME==VERSION.
    """
    libraries = [_library(name, version) for name, version in _pinned(lock)]
    data = _data(manifest)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _model(manifest), "lifecycles": [{"phase": "post-build"}]},
        "components": [data, *_files(manifest), *libraries],
        "dependencies": [
            {
                "ref": _MODEL_REF,
                "dependsOn": sorted([_DATA_REF, *(c["bom-ref"] for c in [*_files(manifest), *libraries])]),
            },
            {"ref": _DATA_REF},
            *({"ref": c["bom-ref"]} for c in [*_files(manifest), *libraries]),
        ],
    }
    return canonical_json(document)


def _model(manifest: BundleManifest) -> Json:
    file = manifest.files[MODEL_NAME]
    outputs = [*GATE_OUTPUTS, *(REASON_OUTPUTS if manifest.reasons else ())]
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL_REF,
        "name": "cryfed infant-cry classifier",
        "version": file.sha256,
        "description": f"Cry or not{', and why' if manifest.reasons else ''}, from one second of audio. {NOT_A_DEVICE}",
        "hashes": [_hash(file.sha256)],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "audio classification",
                "architectureFamily": "convolutional tokenizer and Transformer",
                "datasets": [{"ref": _DATA_REF}],
                "inputs": [{"format": f"{INPUT}: (batch, 16000) float32, 16 kHz mono"}],
                "outputs": [{"format": name} for name in outputs],
            },
            "quantitativeAnalysis": {"performanceMetrics": list(_metrics(manifest))},
            "considerations": {
                "users": list(INTENDED_USE),
                "technicalLimitations": [NOT_A_DEVICE, *LIMITS],
            },
        },
    }


def _data(manifest: BundleManifest) -> Json:
    kind = "synthetic" if manifest.data.synthetic else "real"
    return {
        "type": "data",
        "bom-ref": _DATA_REF,
        "name": ", ".join(manifest.data.corpora) or f"{kind} recordings",
        "version": manifest.data.manifest_digest,
        "data": [
            {
                "type": "dataset",
                "name": "the manifest of clips; the recordings stay at their sites",
                "classification": kind,
                "contents": {
                    "properties": [
                        {"name": "cryfed:manifest:sha256", "value": manifest.data.manifest_digest},
                        {"name": "cryfed:synthetic", "value": str(manifest.data.synthetic).lower()},
                    ]
                },
            }
        ],
    }


def _files(manifest: BundleManifest) -> list[Json]:
    return [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [_hash(entry.sha256)]}
        for name, entry in sorted(manifest.files.items())
        if name not in (MODEL_NAME, BOM_NAME)
    ]


def _library(name: str, version: str) -> Json:
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _pinned(lock: Path) -> Iterator[tuple[str, str]]:
    for line in lock.read_text().splitlines():
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise ConfigError(f"{lock}: {text[:80]!r} is not NAME==VERSION: run `make lock`")
        yield match[1], match[2]


def _metrics(manifest: BundleManifest) -> Iterator[Json]:
    """Of the heads that are shipped."""
    evidence, shipped = manifest.evidence, bool(manifest.reasons)
    headline = evidence.get("headline")
    for name in ("gate_auroc", "gate_fpr95", *(("macro_f1", "auc") if shipped else ())):
        if isinstance(headline, Mapping):
            yield from _metric(name, headline.get(name), None)
    for row in _rows(evidence.get("sites")):
        yield from _metric("gate_auroc", row.get("gate_auroc"), f"site {row['site']}")
    for row in _rows(evidence.get("snr")):
        if row["snr_db"] is not None:
            for name in ("gate_auroc", "macro_f1")[: 1 + shipped]:
                yield from _metric(name, row.get(name), f"SNR {row['snr_db']:g} dB")


def _rows(value: Any) -> list[Json]:
    return value if isinstance(value, list) else []


def _metric(name: str, interval: Any, part: str | None) -> Iterator[Json]:
    if not isinstance(interval, Mapping) or interval.get("value") is None:
        return
    out: Json = {"type": name, "value": f"{interval['value']:.4f}"}
    if part is not None:
        out["slice"] = part
    if interval.get("low") is not None:
        out["confidenceInterval"] = {
            "lowerBound": f"{interval['low']:.4f}",
            "upperBound": f"{interval['high']:.4f}",
        }
    yield out


def _hash(sha256: str) -> Json:
    return {"alg": "SHA-256", "content": sha256}
