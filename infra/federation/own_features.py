"""Which of the frames in a site's own folder are the current ones.

    site folder/features.json              {"uri": stage URI of the extraction, "frames": SHA-256 of the file}
    site folder/artifacts/blobs/sha256/…   the frames

Written when the site has extracted them, taken away when its gate no longer lets it: a federation never trains on what an earlier
gate let through.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from infra.digest import canonical_json
from infra.federation.files import write_atomic
from models.errors import DataError, OutputError

_POINTER: Final = "features.json"


@dataclass(frozen=True)
class OwnFeatures:
    """Where an extraction is filed, and its file."""

    uri: str
    frames: str

    def file(self, folder: Path) -> Path:
        """The frames' file in the site's folder."""
        return folder / "artifacts" / "blobs" / "sha256" / self.frames


def point_to(features: OwnFeatures, folder: Path) -> None:
    """Make these the current frames.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_atomic(folder / _POINTER, canonical_json(asdict(features)))


def withdraw(folder: Path) -> None:
    """Have no current frames.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        (folder / _POINTER).unlink(missing_ok=True)
    except OSError as err:
        raise OutputError(f"cannot write the site's folder {folder}: {err.strerror}") from None


def current(folder: Path) -> OwnFeatures:
    """The current frames.

    Raises:
        DataError: there are none, or the pointer is damaged.
    """
    path = folder / _POINTER
    try:
        raw = json.loads(path.read_bytes())
        return OwnFeatures(uri=str(raw["uri"]), frames=str(raw["frames"]))
    except FileNotFoundError:
        raise DataError(
            f"{folder} has no current features: run the site's gate and feature extraction first"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise DataError(f"{path} cannot be read ({err}): extract the features again") from None
