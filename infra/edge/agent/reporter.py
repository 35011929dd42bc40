"""Telling the fleet: when there is something new, or long enough after the last time, and again where it did not get through."""

from typing import Any, Callable, Dict, NamedTuple, Optional

from .config import Config
from .errors import NoSpace, Refused
from .report import Sign, Status, report_key, write_report
from .state import StateFile
from .store import Store


class Identity(NamedTuple):
    """How the device signs its reports."""

    key_id: str
    sign: Sign


class Reporter:
    """A device's reports; their numbers, which never go back, are kept in `state`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        identity: Identity,
        state: StateFile,
        clock: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self._config, self._store, self._identity = config, store, identity
        self._state, self._clock, self._log = state, clock, log
        self._told: Optional[Status] = None
        self._told_at = 0.0

    def tell(self, status: Status, info: Dict[str, Any]) -> None:
        """Report what is new; a report that does not get through is made again at the next poll. `info` is for people."""
        now = self._clock()
        if status == self._told and 0 <= now - self._told_at < self._config.report_every_s:
            return
        if status.error is not None and status != self._told:
            self._log(f"{status.state}: {status.error['kind']}: {status.error['message']}")
        version = self._state.state.report + 1
        try:
            self._state.update(report=version)
        except NoSpace as err:  # a full disk is what the fleet has to hear of
            self._log(str(err))
        config, identity = self._config, self._identity
        data = write_report(
            status, config.fleet, config.device, version, now, identity.key_id, identity.sign, info
        )
        try:
            self._store.put(report_key(config.fleet, config.device), data)
        except Refused as err:
            self._log(f"no report: {err}")
            self._told = None
            return
        self._told, self._told_at = status, now
