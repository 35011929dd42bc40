"""Secrets of the embedded store, made once per work folder and readable by their owner alone.

- The S3 key pair, and JWT keys for the filer and volume ports: without those the filer port reads and writes
  unauthenticated, past S3.
- A certificate for the server's internal gRPC ports. Without mutual TLS there, any user of the machine could list and
  delete buckets through the filer (`weed shell`, `fs.rm`).
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.servers.process import LOOPBACK, write_private

_CERTIFICATE_DAYS = 3650
_JWT_KEYS = (
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)
_GRPC_ROLES = ("MASTER", "VOLUME", "FILER", "S3", "CLIENT", "ADMIN", "WORKER", "MSG_BROKER")


@dataclass(frozen=True)
class Identity:
    """Keys of one embedded store."""

    access_key: str
    secret_key: str = field(repr=False)
    jwt: dict[str, str] = field(repr=False)  # environment variable → key


def load_or_make(folder: Path) -> Identity:
    """The folder's identity; a missing or unreadable one is made anew (stored data do not depend on it)."""
    path = folder / "credentials.json"
    try:
        raw = json.loads(path.read_text())
        identity = Identity(
            str(raw["access_key"]),
            str(raw["secret_key"]),
            {name: str(raw["jwt"][name]) for name in _JWT_KEYS},
        )
    except (OSError, ValueError, KeyError, TypeError):
        identity = Identity(
            "CRYFED" + secrets.token_hex(7).upper(),
            secrets.token_urlsafe(30),
            {name: secrets.token_urlsafe(30) for name in _JWT_KEYS},
        )
        document = {
            "access_key": identity.access_key,
            "secret_key": identity.secret_key,
            "jwt": identity.jwt,
        }
        write_private(path, json.dumps(document, indent=1))
        write_private(folder / "s3.json", json.dumps(_s3_config(identity), indent=1))
        _make_certificate(folder)
    return identity


def server_environment(folder: Path, identity: Identity) -> dict[str, str]:
    """Environment variables that hand the secrets to the server, out of sight of its command line."""
    environment = dict(identity.jwt)
    environment["WEED_GRPC_CA"] = str(folder / "grpc.crt")
    for role in _GRPC_ROLES:
        environment[f"WEED_GRPC_{role}_CERT"] = str(folder / "grpc.crt")
        environment[f"WEED_GRPC_{role}_KEY"] = str(folder / "grpc.key")
    return environment


def _s3_config(identity: Identity) -> dict[str, object]:
    key = {"accessKey": identity.access_key, "secretKey": identity.secret_key}
    return {
        "identities": [
            {
                "name": "cryfed",
                "credentials": [key],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
        ]
    }


def _make_certificate(folder: Path) -> None:
    """One self-signed certificate is authority, server and client at once: all its users are the one process."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cryfed embedded store")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.IPAddress(ipaddress.ip_address(LOOPBACK)), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(folder / "grpc.crt", certificate.public_bytes(pem).decode())
    write_private(folder / "grpc.key", secret.decode())
