"""https: a store whose certificate the device was told to trust, and strangers."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from infra.edge.agent.errors import ConfigError, StoreUnreachable
from infra.edge.agent.s3 import S3Store
from tests.infra.edge.agent.hostile import Server
from tests.infra.edge.agent.signing import new_key


def _certificate(folder: Path, host: str) -> tuple[Path, Path]:
    key, name = new_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / f"{host}.crt", folder / f"{host}.key"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    private.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return cert, private


@pytest.fixture(params=["127.0.0.1", "127.0.0.2"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """A server on 127.0.0.1 with a certificate for that address, or for another; address, what it is for, certificate."""
    cert, private = _certificate(tmp_path, request.param)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, private)
    (tmp_path / "store").mkdir()
    (tmp_path / "store/key").write_bytes(b"value")
    server = Server(tmp_path / "store")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                try:
                    server.serve(context.wrap_socket(sock, server_side=True))
                except (OSError, ssl.SSLError):
                    sock.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/bucket", request.param, cert
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_only_the_certificate_of_the_store_itself(served: tuple[str, str, Path]) -> None:
    url, host, cert = served
    store = S3Store(url, ca=cert, patience=5)
    if host == "127.0.0.1":
        assert store.get("key", 10) == b"value"
    else:
        with pytest.raises(StoreUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            store.get("key", 10)


def test_a_stranger(served: tuple[str, str, Path]) -> None:
    url, _, _ = served
    with pytest.raises(StoreUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
        S3Store(url, patience=5).get("key", 10)


def test_certificates_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ConfigError, match="no usable certificates"):
        S3Store("https://host/bucket", ca=tmp_path / "ca")
