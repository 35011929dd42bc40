"""What a device remembers across restarts: one JSON file, replaced whole."""

from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

from .disk import Disk, read_json
from .errors import ConfigError

_MAX_BYTES = 8 * 2**20


class State(NamedTuple):
    """Everything but the slots themselves.

    `pending` is a swap that has not come to its end: `{"slot", "previous", "release", "number", "undo"}`. `failed` is the
    release that did not come up here: `{"release", "state", "error", "agent"}`; it is not tried again until something else was
    asked for. `begun` counts how often the build of a release was begun: `{"release", "times"}`. `stale` says why the running
    release could not be made anew for what the device has become: `{"release", "environment", "error", "agent"}`; it is tried
    again once that has changed.
    """

    trusted: Optional[Dict[str, Any]] = None
    pending: Optional[Dict[str, Any]] = None
    failed: Optional[Dict[str, Any]] = None
    begun: Optional[Dict[str, Any]] = None
    stale: Optional[Dict[str, Any]] = None
    report: int = 0  # version of the last report


class StateFile:
    """The state of one device."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path, self._disk = path, disk
        raw = read_json(path, _MAX_BYTES)
        try:
            self.state = State() if raw is None else State(**raw)
        except TypeError:
            raise ConfigError(
                f"{path}: not this agent's state; remove it if the device may forget what it knew"
            ) from None

    def update(self, **changes: Any) -> None:
        """Change some fields, durably; nothing is written where nothing changes."""
        changed = self.state._replace(**changes)
        if changed != self.state:
            self._disk.write_json(self._path, dict(changed._asdict()))
            self.state = changed
