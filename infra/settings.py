"""One typed settings tree: defaults, then `cryfed.toml` in the working directory, then `CRYFED_*` environment variables.

    [store]                       CRYFED_STORE__ENDPOINT=s3.example.org:9000
    endpoint = "127.0.0.1:9000"   CRYFED_STORE__ACCESS_KEY=…  CRYFED_STORE__SECRET_KEY=…

Relative paths, and `cryfed.toml` itself, are taken from CRYFED_HOME where it is set (a worker runs flows in temporary folders),
else from the working directory. Secrets come from the environment or the file and are never written to logs, artifacts or runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from models.errors import ConfigError


class StoreSettings(BaseModel, frozen=True):
    """Where releases and stage artifacts live. Without an endpoint an embedded S3 server is started on loopback."""

    endpoint: str | None = Field(
        None, description="host:port of any S3 endpoint; empty starts the embedded server"
    )
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    secure: bool = Field(True, description="TLS; the embedded server is loopback only and does without")
    region: str = "us-east-1"
    bucket: str = "cryfed"
    embedded_port: int = Field(
        0, ge=0, le=65535, description="S3 port of the embedded server; 0 picks a free one"
    )


class ComputeSettings(BaseModel, frozen=True):
    """Ray: a local cluster by default, or an existing one through `ray_address` (or RAY_ADDRESS)."""

    ray_address: str | None = None
    cpus: int | None = Field(None, ge=1, description="CPUs of the local Ray cluster; default all")


class LimitSettings(BaseModel, frozen=True):
    """Bounds on what is accepted from outside."""

    max_clip_seconds: float = Field(600.0, gt=0)
    max_file_bytes: int = Field(256 * 2**20, gt=0)
    max_manifest_rows: int = Field(5_000_000, gt=0)


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="CRYFED_", env_nested_delimiter="__", extra="ignore", frozen=True
    )

    work_dir: Path = Field(Path(".cryfed"), description="embedded servers' data, site folders, caches")
    runs_dir: Path = Field(Path("runs"), description="one folder a run, and `latest`")
    keys_dir: Path = Field(
        Path("~/.config/cryfed/keys"),
        description="private keys of fleets, a folder each; outside of what `make clean` clears",
    )
    data: Path = Field(Path("../shared/data"), description="folder of the real clips (CRYFED_DATA)")
    store: StoreSettings = StoreSettings()
    compute: ComputeSettings = ComputeSettings()
    limits: LimitSettings = LimitSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments beat the environment, the environment beats the file; no dotenv, no secrets folder."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, home() / "cryfed.toml")

    @model_validator(mode="after")
    def _absolute(self) -> Settings:
        for name in ("work_dir", "runs_dir", "keys_dir", "data"):
            object.__setattr__(self, name, home() / getattr(self, name).expanduser())
        return self


def home() -> Path:
    """Folder that relative paths are taken from."""
    return Path(os.environ.get("CRYFED_HOME") or ".").resolve()


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        ConfigError: a value has the wrong type or is out of range; the message names it and where it came from.
    """
    try:
        return Settings()
    except ValidationError as err:
        lines = [f"  {'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in err.errors()]
        raise ConfigError(
            "settings are not valid (cryfed.toml or CRYFED_* variables):\n" + "\n".join(lines)
        ) from None
