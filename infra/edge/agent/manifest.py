"""The bundle's manifest as far as a device needs it: which files, how large, under which digests. No I/O."""

import re
from typing import Any, Dict, NamedTuple

from .documents import is_digest, is_version
from .errors import Extraneous, TooLarge, WrongSoftware

FORMAT = "cryfed-bundle/1"
MANIFEST_NAME = "manifest.json"
MODEL_NAME = "model.onnx"
TYPED_NAME = "model.typed.onnx"
GOLDEN_INPUTS = "golden/inputs.f32"
GOLDEN_OUTPUTS = "golden/outputs.json"

MAX_FILES = 64
MAX_FILE_BYTES = 512 * 2**20
MAX_MANIFEST_BYTES = 8 * 2**20

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}(/[A-Za-z0-9._-]{1,100}){0,7}\Z")
# the keys of a manifest of this format (`infra.edge.release.BundleManifest`); another would be a rule not followed
_KEYS = frozenset(
    {
        "format", "heads", "reasons", "model", "vad", "default_calibration", "calibrations", "data",
        "provenance", "evidence", "notes", "files", "info",
    }
)  # fmt: skip


class File(NamedTuple):
    """One file of a bundle."""

    sha256: str
    size: int  # bytes


class Manifest(NamedTuple):
    """A manifest in form."""

    files: Dict[str, File]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


def check_manifest(raw: Any, where: str) -> Manifest:
    """A parsed manifest's files, each under a plain relative name.

    Raises:
        WrongSoftware: another format, or not in form.
        TooLarge: too many files, or one that is too large.
        Extraneous: keys or names that a manifest must not have.
    """
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise WrongSoftware(f"{where}: not a {FORMAT} manifest; this agent knows no other")
    extra = sorted(set(raw) - _KEYS)
    if extra:
        raise Extraneous(f"{where}: unknown key {extra[0][:80]!r}; a newer agent may know it")
    files = raw.get("files")
    if not isinstance(files, dict) or MODEL_NAME not in files:
        raise WrongSoftware(f"{where}: it names no {MODEL_NAME}")
    if len(files) > MAX_FILES:
        raise TooLarge(f"{where}: {len(files)} files; at most {MAX_FILES} are taken")
    checked = {}  # type: Dict[str, File]
    for name, entry in sorted(files.items()):
        _check_name(name, where)
        if not isinstance(entry, dict) or not {"sha256", "size"} <= set(entry):
            raise WrongSoftware(f"{where}: {name} has no sha256 and size")
        if len(entry) > 2:
            raise Extraneous(f"{where}: {name} has more than sha256 and size")
        if not is_digest(entry["sha256"]) or not is_version(entry["size"], least=0):
            raise WrongSoftware(f"{where}: {name} has no usable digest or size")
        if entry["size"] > MAX_FILE_BYTES:
            raise TooLarge(f"{where}: {name} has {entry['size']} bytes; at most {MAX_FILE_BYTES} are taken")
        checked[name] = File(entry["sha256"], entry["size"])
    folders = {
        "/".join(name.split("/")[:depth]) for name in checked for depth in range(1, name.count("/") + 1)
    }
    clash = sorted(folders & set(checked))
    if clash:
        raise Extraneous(f"{where}: {clash[0]} is a file and a folder at once")
    return Manifest(checked)


def _check_name(name: str, where: str) -> None:
    if not _NAME.match(name) or any(set(part) == {"."} for part in name.split("/")):
        raise Extraneous(f"{where}: {name[:80]!r} is not a plain relative path")
    if name == MANIFEST_NAME:
        raise Extraneous(f"{where}: {MANIFEST_NAME} names itself")
