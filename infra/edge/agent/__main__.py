"""The command line: `python3 -m edge.agent --config /etc/cryfed/agent.json`, for ever; `--once` polls once and says how it went.

Exit status of `--once`: 0 nothing refused, 1 something refused, 2 the device is set up wrongly.
"""

import argparse
import fcntl
import sys
from pathlib import Path
from typing import List, Optional

from .agent import Agent
from .build import Backend, Fallback, OnnxRuntime
from .config import Config, read_config, require_private
from .disk import Disk, dump
from .documents import MAX_ENVELOPE_BYTES
from .engine import TensorRT
from .errors import AgentError, ConfigError
from .openssl import OpenSSL
from .reporter import Identity
from .s3 import S3Store
from .service import Service
from .store import DirectoryStore, Store


def make_agent(config: Config, disk: Disk) -> Agent:
    """The real agent of a device, as its configuration says.

    Raises:
        ConfigError: the configuration, a key or the state cannot be used.
    """
    disk.make_folder(config.folder)
    scratch = config.folder / "scratch"
    disk.remove(scratch)
    disk.make_folder(scratch)
    openssl = OpenSSL(scratch)
    require_private(config.key)
    return Agent(
        config,
        _read_root(config.root),
        make_store(config),
        openssl.verify,
        Identity(openssl.key_id(config.key), lambda message: openssl.sign(config.key, message)),
        make_backend(config),
        Service(config.restart, config.probe, config.probe_timeout_s, scratch),
        disk,
        log=_log,
    )


def make_store(config: Config) -> Store:
    """The store of a configuration.

    Raises:
        ConfigError: its address or certificates cannot be used.
    """
    if config.store_directory is not None:
        return DirectoryStore(config.store_directory)
    url = config.store_url or ""
    return S3Store(url, config.credentials, config.lowest_rate, config.patience_s, config.ca)


def make_backend(config: Config) -> Backend:
    """TensorRT where the configuration names `trtexec`, ONNX Runtime otherwise, and both where it names both."""
    runtime = OnnxRuntime(config.python or sys.executable, config.threads, config.build_timeout_s)
    if config.trtexec is None:
        return runtime
    folder = config.folder / "tensorrt"
    engine = TensorRT(config.trtexec, folder, config.workspace_mib, config.build_timeout_s)
    return engine if config.python is None else Fallback(engine, runtime)


def main(arguments: Optional[List[str]] = None, disk: Optional[Disk] = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="agent", description="keeps a device at its fleet's desired release"
    )
    parser.add_argument("--config", type=Path, required=True, help="the device's configuration")
    parser.add_argument("--once", action="store_true", help="poll once, and print what is reported")
    given = parser.parse_args(arguments)
    disk = disk or Disk()
    try:
        config = read_config(given.config)
        disk.make_folder(config.folder)
        with (config.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{config.folder}: another agent is at work there") from None
            agent = make_agent(config, disk)
            if not given.once:
                agent.run()
            status = agent.cycle()
            print(dump(dict(status._asdict())))
            return 0 if status.error is None else 1
    except (AgentError, OSError) as err:
        _log(f"agent: {err}")
        return 2


def _read_root(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as err:
        raise ConfigError(f"{path}: the fleet's root cannot be read ({err.strerror})") from None


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
