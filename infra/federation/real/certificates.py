"""Keys and certificates of a federation, made once, never overwritten, never printed.

    server folder   ca.pem  ca.key       authority: its certificate goes to every site, its key nowhere
                    server.pem  server.key
    site folder     NAME.key  NAME.pub   node authentication; the .pub goes to the server's operator, the .key nowhere

ECDSA on P-384 throughout. Server files are PEM, site keys OpenSSH: what Flower's SuperLink and SuperNode read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from models.errors import ConfigError, OutputError

CA: Final = "ca.pem"
CERTIFICATE: Final = "server.pem"
KEY: Final = "server.key"

_CA_KEY: Final = "ca.key"
_CA_DAYS: Final = 5 * 365
_SERVER_DAYS: Final = 397
_BACKDATED: Final = timedelta(hours=1)  # a site's clock may be behind
_LOOPBACK: Final = ("127.0.0.1", "localhost")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_MAX_KEY_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class ServerFiles:
    """What a SuperLink is started with."""

    ca: Path
    certificate: Path
    key: Path


def make_server(folder: Path, hosts: Sequence[str] = ()) -> ServerFiles:
    """A server certificate for loopback and `hosts`, signed by the folder's authority, which is made if there is none.

    To renew the certificate, move `server.pem` and `server.key` away and call again: sites keep the authority they trust.

    Args:
        folder: made if absent, readable by its owner alone.
        hosts: names and addresses by which sites reach the server.

    Raises:
        ConfigError: a host is neither a name nor an address, a server certificate is there already, or the authority
            cannot be read.
        OutputError: the folder cannot be written.
    """
    names = [_general_name(host) for host in dict.fromkeys((*_LOOPBACK, *hosts))]
    files = ServerFiles(folder / CA, folder / CERTIFICATE, folder / KEY)
    _refuse_existing(files.certificate, files.key)
    authority = [folder / CA, folder / _CA_KEY]
    if all(path.exists() for path in authority):
        ca, ca_key = _load_authority(folder)
        made: dict[Path, bytes] = {}
    else:
        _refuse_existing(*authority)
        ca, ca_key = _make_authority()
        made = {folder / _CA_KEY: _pem(ca_key), folder / CA: ca.public_bytes(Encoding.PEM)}
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = (
        _builder("cryfed SuperLink", ca.subject, key, _SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA384())
    )
    made |= {files.key: _pem(key), files.certificate: certificate.public_bytes(Encoding.PEM)}
    _write_all(made)
    return files


def make_site(folder: Path, name: str) -> tuple[Path, Path]:
    """A site's key pair: `NAME.key`, which stays, and `NAME.pub`, which goes to the server's operator.

    Raises:
        ConfigError: the name cannot be a file's, or one of the files is there already.
        OutputError: the folder cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a key file: up to 64 letters, digits, dots, dashes and underscores"
        )
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    _refuse_existing(private, public)
    key = ec.generate_private_key(ec.SECP384R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    shown = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + f" {name}\n".encode()
    _write_all({private: text, public: shown})
    return private, public


def load_site_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A site's private key.

    Raises:
        ConfigError: it cannot be read, is none of ours, or other users of the machine can read it.
    """
    data = _read(path, "private key")
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"other users can read the private key {path}: chmod 600 {path}")
    try:
        key = load_ssh_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(
            f"{path} is not a site's private key (OpenSSH, ECDSA P-384, no passphrase): make one with "
            "`cryfed federation keys site`"
        )
    return key


def load_site_public_key(path: Path) -> bytes:
    """A site's public key as the Control API takes it: PEM.

    Raises:
        ConfigError: it cannot be read, or is not the public half of a site's key.
    """
    data = _read(path, "public key")
    try:
        key = load_ssh_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(
            f"{path} is not a site's public key (ecdsa-sha2-nistp384 …): ask the site for its .pub file"
        )
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_certificate(path: Path) -> x509.Certificate:
    """A certificate that is valid now.

    Raises:
        ConfigError: it cannot be read, is none, or its time is over or yet to come.
    """
    try:
        certificate = x509.load_pem_x509_certificate(_read(path, "certificate"))
    except ValueError:
        raise ConfigError(f"{path} is not a certificate in PEM form") from None
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ConfigError(
            f"the certificate {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}, not now: renew it, or set the clock"
        )
    return certificate


def _make_authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _subject("cryfed federation authority")
    certificate = (
        _builder("cryfed federation authority", subject, key, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .sign(key, hashes.SHA384())
    )
    return certificate, key


def _load_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = load_certificate(folder / CA)
    try:
        key = serialization.load_pem_private_key(_read(folder / _CA_KEY, "authority's key"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"{folder / _CA_KEY} is not the key of {folder / CA}: restore the two together")
    return certificate, key


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - _BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ip_address(host))
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise ConfigError(
            f"{host!r} is neither a host name nor an address: give it as in federation.example.org, without a port"
        )
    return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as err:
        raise ConfigError(f"cannot read the {what} {path}: {err.strerror}") from None


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise ConfigError(
                f"{path} is there already and is not overwritten: move it away to make a new one"
            )


def _write_all(files: Mapping[Path, bytes]) -> None:
    """All of them or none, each readable by its owner alone, none in the place of another."""
    written: list[Path] = []
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            written.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
    except OSError as err:
        for path in written:
            path.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {err.strerror}; choose another folder") from None
