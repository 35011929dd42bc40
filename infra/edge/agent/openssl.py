"""ECDSA P-256 through the `openssl` program: the oldest devices have it, and no Python library for it.

Verifying needs the key and the signature as files; they lie in a folder of their own for that moment.
"""

import hashlib
import subprocess
import tempfile
from pathlib import Path
from typing import List

from .errors import ConfigError, NoSpace

_TIMEOUT_S = 60.0


class OpenSSL:
    """The program, and where it may put its small files."""

    def __init__(self, folder: Path, program: str = "openssl") -> None:
        self._folder, self._program = folder, program

    def verify(self, pem: str, message: bytes, signature: bytes) -> bool:
        """Whether a DER ECDSA signature over SHA-256 of the message is this key's.

        Raises:
            ConfigError: the program is missing or hangs.
            NoSpace: its files cannot be written.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="verify-", dir=str(self._folder)) as scratch:
                key, sig = Path(scratch) / "key.pem", Path(scratch) / "signature"
                key.write_text(pem, encoding="ascii")
                sig.write_bytes(signature)
                done = self._run(["dgst", "-sha256", "-verify", str(key), "-signature", str(sig)], message)
        except OSError as err:
            raise NoSpace(
                f"{self._folder}: cannot write what openssl is to verify ({err.strerror})"
            ) from None
        return done.returncode == 0 and done.stdout.strip() == b"Verified OK"

    def sign(self, key: Path, message: bytes) -> bytes:
        """A DER ECDSA signature by a private key.

        Raises:
            ConfigError: the key cannot be used.
        """
        done = self._run(["dgst", "-sha256", "-sign", str(key)], message)
        if done.returncode != 0 or not done.stdout:
            raise ConfigError(
                f"{key}: openssl cannot sign with it ({_said(done)}); make a P-256 key (docs/device.md)"
            )
        return done.stdout

    def key_id(self, key: Path) -> str:
        """The id of a private key's public half: SHA-256 of its DER, in hex.

        Raises:
            ConfigError: the key cannot be used.
        """
        done = self._run(["pkey", "-in", str(key), "-pubout", "-outform", "DER"], b"")
        if done.returncode != 0 or not done.stdout:
            raise ConfigError(
                f"{key}: openssl cannot read it ({_said(done)}); make a P-256 key (docs/device.md)"
            )
        return hashlib.sha256(done.stdout).hexdigest()

    def _run(self, arguments: List[str], given: bytes) -> "subprocess.CompletedProcess[bytes]":
        try:
            return subprocess.run(  # noqa: UP022 - capture_output came with 3.7
                [self._program, *arguments],
                input=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as err:
            raise ConfigError(f"{self._program} does not run ({err}); install openssl") from None


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    return done.stderr.decode("utf-8", "replace").strip()[-200:]
