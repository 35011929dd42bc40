"""A site's configuration: every mistake has a line of its own, and the site's own word counts over the job's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.federation.job import load_job
from infra.federation.real.certificates import make_server, make_site
from infra.federation.real.config import SiteConfig, check_site, load_site_config
from models.errors import ConfigError
from tests.infra.federation.world import make_job

LINES = {
    "site": "site1",
    "superlink": "federation.example.org:9092",
    "ca": "ca.pem",
    "key": "site1.key",
    "job": "federation.json",
    "folder": "own",
    "features": "world/site1/features.safetensors",
}


def write(root: Path, /, **changes: Any) -> Path:
    lines = {name: value for name, value in {**LINES, **changes}.items() if value is not None}
    table = lines.pop("privacy", None)
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
    if table is not None:
        text += "[privacy]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
    path = root / "site.toml"
    path.write_text(text)
    return path


@pytest.fixture
def config(tmp_path: Path) -> SiteConfig:
    """A configuration under which everything but the server is in order."""
    make_server(tmp_path)
    make_site(tmp_path, "site1")
    make_job(tmp_path / "world", sites=2).save(tmp_path / "federation.json")
    return load_site_config(write(tmp_path, superlink="127.0.0.1:9"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"site": None}, "site: Field required"),
        ({"passphrase": "x"}, "passphrase: Extra inputs"),
        ({"superlink": "federation.example.org"}, "superlink: give host and port"),
        ({"superlink": "https://a:1"}, "superlink: give host and port"),
        ({"superlink": "a:0"}, "superlink: give host and port"),
        ({"superlink": "a:70000"}, "superlink: give host and port"),
        ({"features": None}, "either manifest"),
        ({"manifest": "m.csv"}, "either manifest"),
        ({"override": "  "}, "override: an override needs a reason"),
        ({"privacy": {"noise_multiplier": 1.0}}, "privacy: privacy needs `epsilon`"),
        ({"privacy": {"noise_multiplier": 1.0, "epsilon": 8.0, "colour": 1}}, "privacy: privacy: "),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=r"site\.toml is not a valid site configuration") as err:
        load_site_config(write(tmp_path, **changes))
    assert words in str(err.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the site's configuration"):
        load_site_config(tmp_path / "none.toml")
    path = tmp_path / "site.toml"
    for data, words in (
        (b"site = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"#" * 70_000, "is larger than"),
    ):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=words):
            load_site_config(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    found = load_site_config(write(tmp_path, base_model="/elsewhere/base.safetensors"))
    assert found.key == tmp_path / "site1.key"
    assert found.base_model == Path("/elsewhere/base.safetensors")
    assert found.manifest is None
    assert found.server == ("federation.example.org", 9092)
    assert load_site_config(write(tmp_path, superlink="[2001:db8::1]:443")).server == ("2001:db8::1", 443)


def test_the_sites_own_word_counts_over_the_jobs(tmp_path: Path, config: SiteConfig) -> None:
    job = load_job(tmp_path / "federation.json")
    found = load_job(config.write_own_job())
    spec = found.site("site1")
    assert (spec.features, spec.folder) == (config.features, tmp_path / "own")
    assert found.site("site0") == job.site("site0")
    assert found.base_model == job.base_model

    said = load_site_config(
        write(tmp_path, features=None, manifest="m.csv", override="known", base_model="b.safetensors")
    ).own_job()
    spec = said.site("site1")
    assert (spec.features, spec.manifest, spec.override) == (None, tmp_path / "m.csv", "known")
    assert said.base_model == tmp_path / "b.safetensors"
    assert not spec.secure_only
    private = {"noise_multiplier": 1.0, "epsilon": 8.0}
    spec = load_site_config(write(tmp_path, secure_only=True, privacy=private)).own_job().site("site1")
    assert (spec.secure_only, spec.privacy) == (True, private)
    with pytest.raises(ConfigError, match=r"has no site 'ward', only site0, site1"):
        load_site_config(write(tmp_path, site="ward")).own_job()


def test_check_looks_at_everything_and_reports_all_of_it(tmp_path: Path, config: SiteConfig) -> None:
    checks = {check.what: check for check in check_site(config)}
    assert [name for name, check in checks.items() if not check.ok] == ["server"]
    assert "127.0.0.1:9 does not answer" in checks["server"].found
    assert "2 sites, 3 rounds" in checks["job"].found

    (tmp_path / "site1.key").chmod(0o644)
    (tmp_path / "ca.pem").write_text("none")
    (tmp_path / "world" / "base.safetensors").write_bytes(b"")
    broken = load_site_config(write(tmp_path, features="none", folder="ca.pem/own", superlink="127.0.0.1:9"))
    assert not any(check.ok for check in check_site(broken))
