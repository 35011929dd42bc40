"""What one site's operator writes: one TOML file, and what can be said about it before anything is started.

    site = "ward1"                          # the name that the job uses
    superlink = "federation.example.org:9092"
    ca = "ca.pem"                           # the server's authority
    key = "ward1.key"                       # this site's own private key
    job = "federation.json"                 # the job, beside it the base model that it names
    folder = "own"                          # everything that the site makes stays in here
    manifest = "/data/manifest.csv"         # its recordings; or `features`, frames that are ready

Optional: `base_model`, where it lies elsewhere than the job says; `override`, the site's own reason to train although its gate
fails; `secure_only = true`, no part in a round whose updates are not masked; a table `[privacy]`, noise and budget of private
training. Relative paths are relative to the file.
"""

from __future__ import annotations

import re
import socket
import ssl
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infra.federation.job import FederationJob, load_job
from infra.federation.real.certificates import load_certificate, load_site_key
from models.errors import ConfigError, CryfedError, OutputError

JOB: Final = "federation.json"

_MAX_CONFIG_BYTES: Final = 64 * 1024
_ADDRESS: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})")
_CONNECT_S: Final = 5.0


class SiteConfig(BaseModel):
    """One site's file, its paths absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str = Field(min_length=1, max_length=120)
    superlink: str
    ca: Path
    key: Path
    job: Path
    folder: Path
    manifest: Path | None = None
    features: Path | None = None
    base_model: Path | None = None
    override: str | None = None
    secure_only: bool | None = None
    smallest_cohort: int | None = None
    privacy: dict[str, Any] | None = None

    @field_validator("superlink")
    @classmethod
    def _address(cls, value: str) -> str:
        match = _ADDRESS.fullmatch(value)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ValueError("give host and port, as in federation.example.org:9092")
        return value

    @field_validator("override")
    @classmethod
    def _reason(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("an override needs a reason in words; leave the line out where there is none")
        return value

    @field_validator("privacy")
    @classmethod
    def _budget(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            from infra.federation.private import Privacy  # brings torch

            try:
                Privacy.from_dict(value)
            except ConfigError as err:
                raise ValueError(str(err)) from None
        return value

    @model_validator(mode="after")
    def _one_source(self) -> SiteConfig:
        if (self.manifest is None) == (self.features is None):
            raise ValueError(
                "name what the site brings: either manifest (recordings) or features (ready frames)"
            )
        return self

    @property
    def server(self) -> tuple[str, int]:
        """Host and port of the SuperLink."""
        host, _, port = self.superlink.rpartition(":")
        return host.strip("[]"), int(port)

    def own_job(self) -> FederationJob:
        """The job as this site takes part in it: what the site brings, and where it works, is its own word.

        Raises:
            ConfigError: the job cannot be read, or has no such site.
        """
        job = load_job(self.job)
        if self.site not in job.site_names:
            raise ConfigError(
                f"{self.job} has no site {self.site!r}, only {', '.join(job.site_names)}: use the name that the job uses"
            )
        said = {name: getattr(self, name) for name in ("manifest", "features", "folder", "override")}
        stricter = {
            "secure_only": self.secure_only,
            "smallest_cohort": self.smallest_cohort,
            "privacy": self.privacy,
        }
        said |= {name: value for name, value in stricter.items() if value is not None}
        own = job.site(self.site).model_copy(update=said)
        sites = tuple(own if site.name == self.site else site for site in job.sites)
        base = self.base_model or job.base_model
        return job.model_copy(update={"sites": sites, "base_model": base})

    def write_own_job(self) -> Path:
        """`own_job` as a file in the site's folder.

        Raises:
            ConfigError: as `own_job`.
            OutputError: the folder cannot be written.
        """
        job = self.own_job()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as err:
            raise OutputError(f"cannot make the site's folder {self.folder}: {err.strerror}") from None
        path = self.folder / JOB
        job.save(path)
        return path


def load_site_config(path: Path) -> SiteConfig:
    """Read and check a site's file; nothing that it names is opened.

    Raises:
        ConfigError: it cannot be read, is no TOML, or a line is missing, unknown or wrong; the message names it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as err:
        raise ConfigError(f"cannot read the site's configuration {path}: {err.strerror}") from None
    if len(data) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than a site's configuration can be ({_MAX_CONFIG_BYTES} bytes)")
    try:
        config = SiteConfig.model_validate(tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} is not TOML: {err}") from None
    except ValidationError as err:
        lines = [
            f"  {'.'.join(str(p) for p in e['loc']) or 'file'}: {e['msg'].removeprefix('Value error, ')}"
            for e in err.errors()
        ]
        raise ConfigError(f"{path} is not a valid site configuration:\n" + "\n".join(lines)) from None
    folder = path.resolve().parent
    names = [name for name, field in SiteConfig.model_fields.items() if "Path" in str(field.annotation)]
    paths = {name: folder / getattr(config, name) for name in names if getattr(config, name) is not None}
    return config.model_copy(update=paths)


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, or what is wrong with it."""

    what: str
    found: str
    ok: bool


def check_site(config: SiteConfig) -> list[Check]:
    """Look at everything that the file names, the server included; never raises, and sends nothing of the site."""
    looks: dict[str, Callable[[SiteConfig], str]] = {
        "authority": _look_at_ca,
        "key": _look_at_key,
        "job": _look_at_job,
        "data": _look_at_data,
        "folder": _look_at_folder,
        "identity": _look_at_identity,
        "server": _look_at_server,
    }
    checks = []
    for what, look in looks.items():
        try:
            checks.append(Check(what, look(config), ok=True))
        except CryfedError as err:
            checks.append(Check(what, str(err), ok=False))
    return checks


def _look_at_ca(config: SiteConfig) -> str:
    return f"valid until {load_certificate(config.ca).not_valid_after_utc:%Y-%m-%d}"


def _look_at_key(config: SiteConfig) -> str:
    load_site_key(config.key)
    return "readable by its owner alone"


def _look_at_job(config: SiteConfig) -> str:
    from infra.federation.base import load_base  # brings torch

    job = config.own_job()
    _, base = load_base(job.base_model, job.model(), job.reasons)
    return f"{len(job.sites)} sites, {job.rounds} rounds, base model {base[:12]}…"


def _look_at_data(config: SiteConfig) -> str:
    if config.features is not None:
        from infra.federation.tokens import features_digest

        return f"frames {features_digest(config.features)[:12]}…"
    from infra.data.manifest import load_manifest

    assert config.manifest is not None
    table = load_manifest(config.manifest).table
    own = int((table["site"] == config.site).sum())
    if not own:
        sites = ", ".join(sorted(set(table["site"]) - {""})) or "none"
        raise ConfigError(f"{config.manifest} has no clip of site {config.site!r}, only of {sites}")
    return f"{own} clips of this site; `cryfed gate {config.manifest}` listens to them"


def _look_at_folder(config: SiteConfig) -> str:
    probe = config.folder / ".writable"
    try:
        config.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe.touch()
        probe.unlink()
    except OSError as err:
        raise OutputError(f"cannot write {config.folder}: {err.strerror}") from None
    return str(config.folder)


def _look_at_identity(config: SiteConfig) -> str:
    from infra.federation.identity import load_identity, verification_key

    return f"{verification_key(load_identity(config.folder)).hex()}, for the job to pin"


def _look_at_server(config: SiteConfig) -> str:
    host, port = config.server
    try:
        context = ssl.create_default_context(cafile=config.ca)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, port), timeout=_CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            return f"{config.superlink} answers, {secured.version()}"
    except ssl.SSLCertVerificationError as err:
        raise ConfigError(
            f"{config.superlink} shows a certificate that {config.ca} does not vouch for ({err.verify_message}): "
            "ask the server's operator for the authority's certificate, or the address that it is made out to"
        ) from None
    except (OSError, ValueError) as err:
        raise ConfigError(
            f"{config.superlink} does not answer ({err}): is it up, and does the firewall let you out?"
        ) from None
