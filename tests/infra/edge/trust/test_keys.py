"""Key files: readable by their owner alone, made once, never shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from infra.edge.trust.keys import load_key, load_keys, make_key, read_public, save_key
from models.errors import KeyFileError, OutputError
from tests.fleets import key


def test_a_key_comes_back_as_it_was(tmp_path: Path) -> None:
    made = make_key("clinical-1")
    path = save_key(tmp_path / "keys", made)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    again = load_key(path)
    assert (again.name, again.public) == ("clinical-1", made.public)
    assert made.public.verifies(again.sign(b"data"), b"data")
    assert not made.public.verifies(again.sign(b"data"), b"dat")
    assert not made.public.verifies(b"no signature", b"data")
    assert load_keys(tmp_path / "keys") == {made.keyid: again}
    assert load_keys(tmp_path / "none") == {}


def test_its_id_is_that_of_the_der_as_openssl_writes_it(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(key("a").public.pem)
    command = "openssl pkey -pubin -in key.pem -outform DER | openssl dgst -sha256"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == key("a").keyid


def test_a_compressed_point_is_the_same_key() -> None:
    """Else one key under two ids would reach a threshold of two."""
    secret = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = secret.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    header = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-inform", "DER", "-outform", "PEM", "-ec_conv_form", "compressed"],
        input=header + point,
        capture_output=True,
        check=False,
    )
    assert der.returncode == 0, der.stderr
    plain = secret.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert der.stdout != plain
    assert read_public(der.stdout).keyid == read_public(plain).keyid
    assert read_public(der.stdout).pem == plain.decode()


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    made = make_key("fleet-1")
    secret = save_key(tmp_path, made).read_text().splitlines()[1]
    assert secret not in repr(made) + str(made)
    assert "_key" not in repr(made)


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    before = save_key(tmp_path, make_key("root-1")).read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        save_key(tmp_path, make_key("root-1"))
    (tmp_path / "root-2.pem").symlink_to(tmp_path / "root-1.pem")
    with pytest.raises(OutputError, match="is there already"):
        save_key(tmp_path, make_key("root-2"))
    assert (tmp_path / "root-1.pem").read_bytes() == before
    for name in ("../root", "Root", "", ".", "a/b", "a\n"):
        with pytest.raises(KeyFileError, match="no name for a key"):
            save_key(tmp_path, make_key(name))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = save_key(tmp_path, make_key("root-1"))
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="can be read by others than you"):
        load_key(path)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no key at"):
        load_key(tmp_path / "none.pem")
    with pytest.raises(KeyFileError):
        load_key(tmp_path)
    save_key(tmp_path, make_key("real"))
    (tmp_path / "link.pem").symlink_to(tmp_path / "real.pem")
    with pytest.raises(KeyFileError, match="cannot read"):
        load_key(tmp_path / "link.pem")
    pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
    others = {
        "empty": b"",
        "long": b"x" * 100_000,
        "rsa": rsa.generate_private_key(65537, 2048).private_bytes(pem, pkcs8, NoEncryption()),
        "p384": ec.generate_private_key(ec.SECP384R1()).private_bytes(pem, pkcs8, NoEncryption()),
    }
    for name, data in others.items():
        path = tmp_path / f"{name}.pem"
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match="no P-256 private key"):
            load_key(path)
    p384 = ec.generate_private_key(ec.SECP384R1()).public_key()
    for public in (b"", b"x" * 5000, p384.public_bytes(pem, PublicFormat.SubjectPublicKeyInfo)):
        with pytest.raises(ValueError, match=r"public key"):
            read_public(public)
