"""From one phase of a federation to the next: θ of a finished job put into its base model, which then is the next job's."""

from __future__ import annotations

from pathlib import Path

from infra.digest import digest_bytes
from infra.federation.base import load_base
from infra.federation.files import encode_arrays, write_atomic
from infra.federation.job import load_job
from infra.federation.results import load_theta
from models.adapters import Trained, Vector, adapter_schema, set_vector
from models.errors import ConfigError
from models.network import CryNet
from models.state import Arrays, to_arrays


def fold(net: CryNet, theta: Vector, trained: Trained) -> Arrays:
    """All weights of the network with θ in its place.

    Raises:
        FederationError: θ does not fit the network.
    """
    set_vector(net, theta, trained)
    return to_arrays(net)


def fold_job(job_file: Path, out: Path) -> str:
    """Write the base model that a finished job leaves to `out`; returns its digest.

    Raises:
        ConfigError, IntegrityError, FederationError: the job, its base model or its θ cannot be read, or do not fit together.
        OutputError: `out` cannot be written.
    """
    job = load_job(job_file)
    trained, theta_file = job.plan().trained, job.out_dir / "theta.safetensors"
    if not theta_file.is_file():
        raise ConfigError(f"{job_file} has not ended: {theta_file} is not there; run the job first")
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    theta = load_theta(theta_file, adapter_schema(net, trained))
    data = encode_arrays(fold(net, theta, trained))
    write_atomic(out, data)
    return digest_bytes(data)
