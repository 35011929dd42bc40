"""Keys and certificates: what Flower reads, readable by nobody else, never in the place of another."""

from __future__ import annotations

import logging
import os
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from flwr.cli.supernode.register import try_load_public_key

from infra.federation.real import certificates
from infra.federation.real.certificates import (
    load_certificate,
    load_site_key,
    load_site_public_key,
    make_server,
    make_site,
)
from models.errors import ConfigError, OutputError


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def verified(folder: Path, host: str, authority: Path) -> bool:
    ca, leaf = (
        x509.load_pem_x509_certificate(path.read_bytes()) for path in (authority, folder / "server.pem")
    )
    try:
        subject: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        subject = x509.DNSName(host)
    try:
        PolicyBuilder().store(Store([ca])).build_server_verifier(subject).verify(leaf, [])
    except VerificationError:
        return False
    return True


def test_a_server_certificate_is_for_its_addresses_and_of_its_authority_alone(tmp_path: Path) -> None:
    made = make_server(tmp_path / "a", ["federation.example.org", "192.0.2.7"])
    make_server(tmp_path / "b")
    assert {path.name for path in (made.ca, made.certificate, made.key)} < set(files(tmp_path / "a"))
    for host in ("127.0.0.1", "localhost", "federation.example.org", "192.0.2.7"):
        assert verified(tmp_path / "a", host, tmp_path / "a/ca.pem")
    assert not verified(tmp_path / "a", "example.org", tmp_path / "a/ca.pem")
    assert not verified(tmp_path / "b", "192.0.2.7", tmp_path / "b/ca.pem")
    assert not verified(tmp_path / "a", "localhost", tmp_path / "b/ca.pem")


def test_the_authority_outlives_the_certificate_and_signs_the_next(tmp_path: Path) -> None:
    make_server(tmp_path)
    ca, leaf = load_certificate(tmp_path / "ca.pem"), load_certificate(tmp_path / "server.pem")
    now = datetime.now(UTC)
    assert now - timedelta(hours=2) < leaf.not_valid_before_utc < now - timedelta(minutes=30)
    assert timedelta(days=390) < leaf.not_valid_after_utc - now < timedelta(days=398)
    assert timedelta(days=4 * 365) < ca.not_valid_after_utc - now < timedelta(days=6 * 365)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca

    authority = (tmp_path / "ca.pem").read_bytes()
    for name in ("server.pem", "server.key"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    make_server(tmp_path, ["new.example.org"])
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert verified(tmp_path, "new.example.org", tmp_path / "ca.pem")
    assert (tmp_path / "old-server.key").read_bytes() != (tmp_path / "server.key").read_bytes()


def test_site_keys_are_what_flower_reads(tmp_path: Path) -> None:
    private, public = make_site(tmp_path, "ward-1")
    key = load_ssh_private_key(private.read_bytes(), None)  # as flower-supernode does
    assert key.curve.name == "secp384r1"  # type: ignore[union-attr]
    assert load_site_key(private).private_numbers() == key.private_numbers()  # type: ignore[union-attr]
    assert load_site_public_key(public) == try_load_public_key(public)  # as `flwr supernode register` does
    assert make_site(tmp_path / "other", "ward-1")[1].read_bytes() != public.read_bytes()


@pytest.mark.parametrize("umask", [0o000, 0o277])
def test_every_file_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "keys"
        os.umask(umask & 0o077)
        make_server(folder)
        make_site(folder, "ward")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 6
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_overwritten_and_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_server(tmp_path)
    make_site(tmp_path, "ward")
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=r"server\.pem is there already"):
        make_server(tmp_path)
    with pytest.raises(ConfigError, match=r"ward\.key is there already"):
        make_site(tmp_path, "ward")
    (tmp_path / "ward.key").unlink()
    with pytest.raises(ConfigError, match=r"ward\.pub is there already"):
        make_site(tmp_path, "ward")
    (tmp_path / "ward.key").write_bytes(before["ward.key"])
    assert files(tmp_path) == before

    real, calls = os.open, []

    def full(path: Path, *rest: int) -> int:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(path, *rest)

    monkeypatch.setattr(certificates.os, "open", full)
    with pytest.raises(OutputError, match="No space left"):
        make_server(tmp_path / "full")
    assert files(tmp_path / "full") == {}


def test_an_authority_without_its_key_is_not_replaced(tmp_path: Path) -> None:
    make_server(tmp_path / "a")
    make_server(tmp_path / "b")
    for name in ("server.pem", "server.key"):
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a/ca.key").rename(tmp_path / "kept")
    with pytest.raises(ConfigError, match=r"ca\.pem is there already"):
        make_server(tmp_path / "a")
    (tmp_path / "a/ca.key").write_bytes((tmp_path / "b/ca.key").read_bytes())
    with pytest.raises(ConfigError, match=r"is not the key of"):
        make_server(tmp_path / "a")


@pytest.mark.parametrize("host", ["a:9092", "https://a", "", "-a", "a..b", "a_b", "x" * 64, "1.2.3.4/8"])
def test_a_host_must_be_one(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="neither a host name nor an address"):
        make_server(tmp_path / "new", [host])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 65, "a\n"])
def test_a_site_name_must_be_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a key file"):
        make_site(tmp_path / "new", name)
    assert not (tmp_path / "new").exists()


def test_foreign_loose_and_outdated_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = make_site(tmp_path, "ward")
    server = make_server(tmp_path)
    for wrong in (public, server.key, server.ca):
        with pytest.raises(ConfigError, match="is not a site's private key"):
            load_site_key(wrong)
    for wrong in (private, server.ca):
        with pytest.raises(ConfigError, match="is not a site's public key"):
            load_site_public_key(wrong)
    private.chmod(0o640)
    with pytest.raises(ConfigError, match="other users can read"):
        load_site_key(private)
    with pytest.raises(ConfigError, match="cannot read the private key"):
        load_site_key(tmp_path / "none")
    with pytest.raises(ConfigError, match="is not a certificate in PEM form"):
        load_certificate(server.key)
    monkeypatch.setattr(certificates, "_SERVER_DAYS", 0)
    for path in (server.certificate, server.key):
        path.unlink()
    make_server(tmp_path)
    with pytest.raises(ConfigError, match="not now"):
        load_certificate(server.certificate)


def test_no_secret_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    private, _ = make_site(tmp_path, "ward")
    said = (
        repr(make_server(tmp_path)) + repr(load_site_key(private)) + caplog.text + "".join(capfd.readouterr())
    )
    secrets = [
        line
        for name in ("ward.key", "server.key", "ca.key")
        for line in (tmp_path / name).read_text().split()
    ]
    assert not [s for s in secrets if len(s) > 20 and s in said]
    assert "PRIVATE" not in said
