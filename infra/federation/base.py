"""The pretrained network as a file: loaded once per process, named by its digest."""

from __future__ import annotations

from pathlib import Path

from infra.digest import digest_bytes
from infra.federation.files import decode_arrays
from models.config import ModelConfig
from models.errors import ConfigError
from models.network import CryNet
from models.state import load_arrays

_MAX_BASE_BYTES = 2 * 2**30


def load_base(path: Path, cfg: ModelConfig, reasons: tuple[str, ...]) -> tuple[CryNet, str]:
    """The network with the weights of `path` (all of them, adapters and heads included), and the file's digest.

    Raises:
        ConfigError: the file cannot be read or does not fit the configuration.
        IntegrityError: it is not safetensors.
    """
    try:
        if path.stat().st_size > _MAX_BASE_BYTES:
            raise ConfigError(f"{path} is larger than a base model can be ({_MAX_BASE_BYTES} bytes)")
        data = path.read_bytes()
    except OSError as err:
        raise ConfigError(f"cannot read the base model {path}: {err.strerror}") from None
    net = CryNet(cfg, reasons)
    load_arrays(net, decode_arrays(data, str(path)))
    return net, digest_bytes(data)
