"""Two slots and a link: the running release is never written to.

current -> slots/a          the one atomic switch
slots/a/bundle/…            the bundle's files and its manifest.json, as published
       /built/…             what was made of it on this device
       /release.json, signoff.json   the signed documents it was installed on
       /preparing.json      which release is being put there
       /slot.json           written last: its existence means that the slot is complete
downloads/<sha256>.part     what has come so far of a file
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from .disk import TEMPORARY, Disk, read_json
from .documents import canonical_json, strict_json
from .errors import ConfigError, NoSpace, Refused
from .manifest import MANIFEST_NAME, File, Manifest, check_manifest

NAMES = ("a", "b")
_CHUNK = 2**20
_MAX_SLOT_BYTES = 2**16


class Installed(NamedTuple):
    """A complete slot."""

    slot: str
    release: str
    name: str
    number: int
    health: Dict[str, Any]
    environment: str  # what it was made for
    info: Dict[str, Any]  # what the report says of it beside its health


class Slots:
    """The folders of one device."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder, self.disk = folder, disk
        self.link = folder / "current"
        self.downloads = folder / "downloads"
        for made in (self.downloads, *(folder / "slots" / name for name in NAMES)):
            disk.make_folder(made)

    def path(self, slot: str) -> Path:
        """A slot's folder."""
        return self.folder / "slots" / slot

    def current(self) -> Optional[str]:
        """The slot that the link points at, None where there is no link yet."""
        try:
            target = os.readlink(str(self.link))
        except FileNotFoundError:
            return None
        name = Path(target).name
        return name if name in NAMES and target == f"slots/{name}" else None

    def other(self) -> str:
        """The slot that the next release goes into."""
        return NAMES[1] if self.current() == NAMES[0] else NAMES[0]

    def running(self) -> Optional[Installed]:
        """The release of the current slot, None where there is none or it is damaged; every byte is compared."""
        slot = self.current()
        return None if slot is None else self.read(slot)

    def read(self, slot: str) -> Optional[Installed]:
        """A complete, undamaged slot, else None."""
        folder = self.path(slot)
        try:
            raw = read_json(folder / "slot.json", _MAX_SLOT_BYTES)
            if raw is None:
                return None
            found = Installed(slot, **{name: raw[name] for name in Installed._fields[1:]})
            data = (folder / "bundle" / MANIFEST_NAME).read_bytes()
            parsed = strict_json(data)
            named = {key: value for key, value in parsed.items() if key != "info"}
            if hashlib.sha256(canonical_json(named)).hexdigest() != found.release:
                return None
            manifest = check_manifest(parsed, f"slot {slot}")
        except (Refused, ConfigError, OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        whole = all(matches(folder / "bundle" / name, entry) for name, entry in manifest.files.items())
        return found if whole else None

    def prepare(self, slot: str, release: str) -> Path:
        """A slot's folder for this release: emptied, unless this very release was being put there."""
        folder = self.path(slot)
        if slot == self.current():
            raise RuntimeError(f"slot {slot} is current and must not be written")
        # completeness goes first: what is half removed, or half made, must not look whole
        self.disk.remove(folder / "slot.json")
        try:
            before = read_json(folder / "preparing.json", _MAX_SLOT_BYTES)
        except ConfigError:
            before = None
        if not isinstance(before, dict) or before.get("release") != release:
            for entry in sorted(folder.iterdir()):
                self.disk.remove(entry)
            self.disk.write_json(folder / "preparing.json", {"release": release})
        self.disk.make_folder(folder / "bundle")
        self.disk.make_folder(folder / "built")
        return folder

    def complete(self, slot: str, installed: Dict[str, Any]) -> None:
        """Say that a slot is whole."""
        self.disk.write_json(self.path(slot) / "slot.json", installed)

    def switch(self, slot: str) -> None:
        """Make a slot current."""
        self.disk.point(self.link, f"slots/{slot}")

    def unlink(self) -> None:
        """No slot is current: the first release did not stay."""
        self.disk.remove(self.link)

    def missing(self, slot: str, manifest: Manifest) -> List[str]:
        """Names of files that are not there, or not as announced; those are removed."""
        bundle = self.path(slot) / "bundle"
        absent = []
        for name, entry in manifest.files.items():
            if not matches(bundle / name, entry):
                self.disk.remove(bundle / name)
                absent.append(name)
        return absent

    def remove_extraneous(self, slot: str, manifest: Manifest) -> None:
        """Remove what the manifest does not name from a slot's bundle."""
        bundle = self.path(slot) / "bundle"
        for path in sorted(bundle.rglob("*"), reverse=True):
            name = path.relative_to(bundle).as_posix()
            if name == MANIFEST_NAME or name in manifest.files:
                continue
            if (
                not path.is_dir()
                or path.is_symlink()
                or not any(f.startswith(name + "/") for f in manifest.files)
            ):
                self.disk.remove(path)

    def adopt(self, part: Path, slot: str, name: str) -> None:
        """A verified download becomes a file of a slot's bundle."""
        target = self.path(slot) / "bundle" / name
        self.disk.make_folder(target.parent)
        self.disk.rename(part, target)

    def twin(self, entry: File) -> Optional[Path]:
        """A file of either slot with these bytes, so that it need not come over the network again."""
        for slot in NAMES:
            bundle = self.path(slot) / "bundle"
            try:
                data = (bundle / MANIFEST_NAME).read_bytes()
                files = check_manifest(strict_json(data), f"slot {slot}").files
            except (Refused, OSError, ValueError):
                continue
            for name, candidate in files.items():
                if candidate == entry and matches(bundle / name, entry):
                    return bundle / name
        return None

    def tidy(self, wanted: Dict[str, File]) -> None:
        """Remove downloads that no file of `wanted` is waiting for, and what an interrupted write left."""
        keep = {f"{entry.sha256}.part" for entry in wanted.values()}
        for path in sorted(self.downloads.iterdir()):
            if path.name not in keep:
                self.disk.remove(path)
        for path in sorted(self.folder.glob("*" + TEMPORARY)):
            self.disk.remove(path)

    def require_space(self, manifest: Manifest, absent: List[str], extra: int) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            NoSpace: fewer free bytes than the missing files and `extra` need.
        """
        needed = extra + sum(manifest.files[name].size for name in absent)
        for sha256 in {manifest.files[name].sha256 for name in absent}:
            part = self.downloads / f"{sha256}.part"
            needed -= part.stat().st_size if part.exists() else 0
        free = self.free()
        if free < needed:
            raise NoSpace(f"{self.folder}: {needed} bytes are needed and {free} are free; make room")

    def free(self) -> int:
        """Free bytes of the disk."""
        return shutil.disk_usage(str(self.folder)).free


def matches(path: Path, entry: File) -> bool:
    """Whether a plain file with these bytes is there."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
            return False
        return digest_file(path) == entry.sha256
    except OSError:
        return False


def digest_file(path: Path) -> str:
    """SHA-256 of a file, streamed."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                return sha.hexdigest()
            sha.update(chunk)
