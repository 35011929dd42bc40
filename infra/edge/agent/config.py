"""The device's one configuration file, JSON, checked on reading; a key that is not known is refused.

| key | what it is | default |
|---|---|---|
| `fleet`, `device`, `hardware` | names: of the fleet, of this device, of its hardware (`jetson-nano`) | – |
| `root`, `key` | files: the fleet's root as provisioned, the device's private key | – |
| `folder` | where slots, downloads and state lie | – |
| `store` | `{"url": "https://host/bucket", "access_key", "secret_key_file", "region", "ca"}`, or `{"directory": …}` | – |
| `backend` | `{"trtexec": path, "workspace_mib": 512}`, or `{"python": path, "threads": 1}`, or both | this Python |
| `restart`, `probe` | command lines: restart the service; exit 0 once it answers | none |
| `probe_timeout_s` | how long the service may take to answer | 60 |
| `poll_s`, `report_every_s` | seconds between polls, and between reports of no news | 60, 3600 |
| `lowest_rate`, `patience_s` | bytes a second below which a download is ended, after so many seconds | 1024, 30 |
| `build_timeout_s` | how long an engine may take to build | 3600 |
| `keep_free` | bytes of the disk that no installation may take | 64 MiB |
| `attempts` | how often an installation may be begun without coming to an end | 5 |
| `desired_floor` | the desired state's version when the device was provisioned | 0 |

`backend.python` is an interpreter with ONNX Runtime. Beside `trtexec` it serves where TensorRT gives no usable engine; without it
a release that gives none is refused.
"""

import stat
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

from .disk import read_json
from .documents import is_name
from .errors import ConfigError
from .sigv4 import Credentials

_MAX_BYTES = 2**16
_KEY_BYTES = 4096


class Config(NamedTuple):
    """A checked configuration."""

    fleet: str
    device: str
    hardware: str
    root: Path
    key: Path
    folder: Path
    store_url: Optional[str] = None
    store_directory: Optional[Path] = None
    credentials: Optional[Credentials] = None
    ca: Optional[Path] = None
    trtexec: Optional[str] = None
    workspace_mib: int = 512
    python: Optional[str] = None
    threads: int = 1
    restart: Tuple[str, ...] = ()
    probe: Tuple[str, ...] = ()
    probe_timeout_s: float = 60.0
    poll_s: float = 60.0
    report_every_s: float = 3600.0
    lowest_rate: int = 1024
    patience_s: float = 30.0
    build_timeout_s: float = 3600.0
    keep_free: int = 64 * 2**20
    attempts: int = 5
    desired_floor: int = 0


_WHOLE = ("lowest_rate", "keep_free", "attempts", "desired_floor")
_NUMBERS = (
    "probe_timeout_s",
    "poll_s",
    "report_every_s",
    "patience_s",
    "build_timeout_s",
    "lowest_rate",
    "keep_free",
    "attempts",
    "desired_floor",
)
_KNOWN = (
    "fleet",
    "device",
    "hardware",
    "root",
    "key",
    "folder",
    "store",
    "backend",
    "restart",
    "probe",
    *_NUMBERS,
)


def read_config(path: Path) -> Config:
    """The configuration in a file; relative paths are relative to its folder.

    Raises:
        ConfigError: missing, not JSON, or a value that cannot be used; the message names the key.
    """
    raw = read_json(path, _MAX_BYTES)
    if raw is None:
        raise ConfigError(f"{path}: no such file; docs/device.md shows one")
    try:
        return _check(_object(raw, "the configuration", _KNOWN), path.parent)
    except ConfigError as err:
        raise ConfigError(f"{path}: {err}") from None


def _check(raw: Dict[str, Any], base: Path) -> Config:
    values = {}  # type: Dict[str, Any]
    for key in ("fleet", "device", "hardware"):
        if not is_name(raw.get(key)):
            raise ConfigError(f"{key} has to be a plain name (letters, digits, . _ -)")
        values[key] = raw[key]
    for key in ("root", "key", "folder"):
        values[key] = base / _text(raw.get(key), key)
    store = _object(
        raw.get("store"), "store", ("url", "directory", "access_key", "secret_key_file", "region", "ca")
    )
    if ("url" in store) == ("directory" in store):
        raise ConfigError("store has to have url or directory, one of them")
    if "directory" in store:
        values["store_directory"] = base / _text(store["directory"], "store.directory")
    else:
        values["store_url"] = _text(store["url"], "store.url")
        values["ca"] = base / _text(store["ca"], "store.ca") if "ca" in store else None
        if "access_key" in store:
            secret = _secret(base / _text(store.get("secret_key_file"), "store.secret_key_file"))
            region = _text(store.get("region", "us-east-1"), "store.region")
            values["credentials"] = Credentials(
                _text(store["access_key"], "store.access_key"), secret, region
            )
    backend = _object(raw.get("backend", {}), "backend", ("trtexec", "workspace_mib", "python", "threads"))
    if "trtexec" in backend:
        values["trtexec"] = _text(backend["trtexec"], "backend.trtexec")
        values["workspace_mib"] = int(_number(backend.get("workspace_mib", 512), "backend.workspace_mib"))
        if values["workspace_mib"] < 1:
            raise ConfigError("backend.workspace_mib has to be at least 1")
    if "python" in backend:
        values["python"] = _text(backend["python"], "backend.python")
    values["threads"] = int(_number(backend.get("threads", 1), "backend.threads"))
    for key in ("restart", "probe"):
        values[key] = _command(raw.get(key) or [], key)
    for key in _NUMBERS:
        if key in raw:
            number = _number(raw[key], key)
            values[key] = int(number) if key in _WHOLE else number
    return Config(**values)


def require_private(path: Path) -> None:
    """Refuse a secret that others can read.

    Raises:
        ConfigError: missing, or readable by others.
    """
    try:
        mode = path.stat().st_mode
    except OSError as err:
        raise ConfigError(f"{path}: {err.strerror}; docs/device.md says how to make it") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        raise ConfigError(f"{path}: others may read or change it; chmod 600 it")


def _secret(path: Path) -> str:
    require_private(path)
    with path.open("rb") as file:
        return file.read(_KEY_BYTES).decode("utf-8", "replace").strip()


def _object(value: Any, name: str, known: Tuple[str, ...]) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} has to be a JSON object")
    extra = sorted(set(value) - set(known))
    if extra:
        raise ConfigError(f"{name}: unknown key {extra[0]!r}; known are {', '.join(known)}")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} has to be a text")
    return value


def _number(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not 0 <= value < 2**53:
        raise ConfigError(f"{name} has to be a number, at least 0")
    return float(value)


def _command(value: Any, name: str) -> Tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(part, str) and part for part in value):
        raise ConfigError(f"{name} has to be a list of texts: a program and its arguments")
    return tuple(value)
