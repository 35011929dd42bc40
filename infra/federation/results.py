"""What a federation leaves: θ, a history that is the same whenever the same is computed, and the times that are not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.digest import canonical_json, digest_bytes
from infra.federation.files import decode_arrays, encode_arrays, write_atomic
from infra.federation.job import FederationJob
from infra.federation.journal import Journal
from models.adapters import AdapterSchema
from models.errors import IntegrityError, OutputError


@dataclass(frozen=True)
class FederationResult:
    """Files of a finished job, and the digest of θ's bytes.

    `before` is θ before the last round: with θ it gives the sum that the server saw, which membership attacks look at.
    """

    theta: Path
    before: Path
    history: Path
    timings: Path
    theta_digest: str
    job_digest: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON types."""
        return {name: str(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> FederationResult:
        """Inverse of `to_dict`; other keys are ignored."""
        paths = {name: Path(raw[name]) for name in ("theta", "before", "history", "timings")}
        return cls(**paths, theta_digest=raw["theta_digest"], job_digest=raw["job_digest"])


def write_results(
    job: FederationJob,
    job_digest: str,
    schema_digest: str,
    theta: npt.NDArray[np.float32],
    before: npt.NDArray[np.float32],
    journal: Journal,
) -> FederationResult:
    """Write `theta.safetensors`, `before.safetensors`, `history.json` and `timings.json` into the job's output folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    out = job.out_dir
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(f"cannot make the output folder {out}: {err.strerror}; choose another") from None
    result = FederationResult(
        theta=out / "theta.safetensors",
        before=out / "before.safetensors",
        history=out / "history.json",
        timings=out / "timings.json",
        theta_digest=digest_bytes(theta.tobytes()),
        job_digest=job_digest,
    )
    history = {
        "job": job_digest,
        "schema": schema_digest,
        "parameters": int(theta.size),
        "sites": list(job.site_names),
        "plan": job.plan().to_dict(),
        "theta": result.theta_digest,
        "rounds": _rounds(journal),
        "closing": journal.closing,
    }
    write_atomic(result.theta, encode_arrays({"theta": theta}))
    write_atomic(result.before, encode_arrays({"theta": before}))
    write_atomic(result.timings, canonical_json({"rounds": [done.timing for done in journal.closed]}) + b"\n")
    write_atomic(result.history, canonical_json(history) + b"\n")
    return result


def _rounds(journal: Journal) -> list[dict[str, Any]]:
    """The records, each with the validation of its own θ: that arrived with the round after it, or in the closing."""
    records = [{k: v for k, v in c.record.items() if k != "validation_before"} for c in journal.closed]
    later = [c.record["validation_before"] for c in journal.closed[1:]]
    for record, validation in zip(records, [*later, (journal.closing or {}).get("validation")], strict=True):
        record["validation"] = validation
    return records


def load_theta(path: Path, schema: AdapterSchema) -> npt.NDArray[np.float32]:
    """Read `theta.safetensors`, (P,) float32.

    Raises:
        IntegrityError: not such a file.
        FederationError: it does not fit the schema.
    """
    arrays = decode_arrays(path.read_bytes(), str(path))
    if set(arrays) != {"theta"}:
        raise IntegrityError(f"{path} holds {sorted(arrays)}, not one vector `theta`")
    schema.check(arrays["theta"], str(path))
    return arrays["theta"]


def describe_training(name: str, history: dict[str, Any]) -> dict[str, Any]:
    """A finished job in a few plain values, from its `history.json`: for a release's manifest and card."""
    plan, rounds = history["plan"], history["rounds"]
    sizes = [size for done in rounds for size in done["bytes_up"].values()]
    return {
        "name": name,
        "rounds": len(rounds),
        "sites": len(history["sites"]),
        "parameters": history["parameters"],
        "codec": plan["codec"],
        "secure": plan["secure"],
        "control_variates": plan["control_variates"],
        "prox_mu": plan["local"]["prox_mu"] if plan.get("gate") is None else 0.0,
        "upload_bytes": round(sum(sizes) / len(sizes)) if sizes else None,
        "privacy": history.get("privacy"),
    }
