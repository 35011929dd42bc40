"""One poll of one device: finish or undo what was begun, believe, install, report.

Every step can be cut short: what it leaves is either not looked at or taken up by the next poll. The running release is
touched in one place only, the link's rename (`Slots.switch`); everything before it prepares the other slot, everything
after it is written down before it is done (`State.pending`).
"""

import random
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from . import VERSION
from .build import Backend, Made
from .config import Config
from .disk import Disk
from .documents import MAX_ENVELOPE_BYTES, strict_json
from .download import fetch
from .errors import BuildFailed, ConfigError, NoSpace, Refused, StoreUnreachable, TooLarge, Unhealthy
from .manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, MODEL_NAME, Manifest, check_manifest
from .report import INSTALLING, REFUSED, ROLLED_BACK, RUNNING, Status, error_of
from .reporter import Identity, Reporter
from .service import Service
from .slots import Installed, Slots
from .state import StateFile
from .store import Store
from .trusted import Release, Ring, Trusted, Verify

MAX_ROOTS = 32  # of one poll; more are taken up by the next
_MAX_DELAY_S = 900.0


class Agent:
    """One device.

    `store`, `verify`, `identity`, `backend`, `service` and `disk` are what it works with: the real ones are put together in
    `__main__`, a simulation of many devices brings cheaper ones. `clock` gives seconds since the epoch.

    Raises:
        ConfigError: its state or its provisioned root cannot be used.
    """

    def __init__(
        self,
        config: Config,
        root: bytes,
        store: Store,
        verify: Verify,
        identity: Identity,
        backend: Backend,
        service: Service,
        disk: Optional[Disk] = None,
        clock: Callable[[], float] = time.time,
        log: Callable[[str], None] = print,
    ) -> None:
        self._config, self._store, self._backend, self._service = config, store, backend, service
        self._clock, self._log = clock, log
        self._disk = disk or Disk()
        self._disk.make_folder(config.folder)
        self._slots = Slots(config.folder, self._disk)
        self._state = StateFile(config.folder / "state.json", self._disk)
        self._reporter = Reporter(config, store, identity, self._state, clock, log)
        self._trusted = Trusted(
            config.fleet,
            config.device,
            config.hardware,
            verify,
            root,
            self._state.state.trusted,
            config.desired_floor,
        )
        self._running = self._slots.running()
        self._answered = None  # type: Optional[str]  # the release that was restarted and is not yet written down
        self._went_back = False  # the same of the way back

    @property
    def running(self) -> Optional[Installed]:
        """The release that runs, None before the first."""
        return self._running

    def cycle(self) -> Status:
        """Poll once, and report; what was reported.

        Raises:
            ConfigError: the device itself has to be put right.
        """
        try:
            self._recover()
            stale = self._renew()
            status = self._follow()
            if stale is not None and status.error is None and status.slot == stale[0]:
                status = self._status(REFUSED, stale[1])
        except Refused as err:
            status = self._status(REFUSED, error_of(err))
        self._report(status)
        return status

    def run(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Poll for ever; after refusals less often, and never in step with other devices.

        Raises:
            ConfigError: the device itself has to be put right.
        """
        failures = 0
        while True:
            try:
                failures = failures + 1 if self.cycle().error else 0
            except ConfigError:
                raise
            except Exception:  # a bug must not end the agent: the next release may bring its cure
                self._log(traceback.format_exc())
                failures += 1
            delay = min(
                self._config.poll_s * 2.0 ** min(failures, 10), max(self._config.poll_s, _MAX_DELAY_S)
            )
            sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, keeps no secret

    def _follow(self) -> Status:
        ring = self._believe()
        running, failed = self._running, self._state.state.failed
        if ring is None or (running is not None and running.release == ring.release):
            self._state.update(failed=None, begun=None)
            return self._status(RUNNING)
        if failed is not None and failed["release"] == ring.release and failed["agent"] == VERSION:
            return self._status(failed["state"], failed["error"])
        self._state.update(failed=None)
        try:
            self._install(ring)
        except (BuildFailed, Unhealthy) as err:
            self._fail(ring.release, REFUSED, error_of(err))
            raise
        failed = self._state.state.failed
        return self._status(RUNNING) if failed is None else self._status(failed["state"], failed["error"])

    def _believe(self) -> Optional[Ring]:
        """Roots and desired state; what is asked of this device."""
        self._trusted.begin(self._clock())
        for _ in range(MAX_ROOTS):
            data = self._store.get(self._key(f"root/{self._trusted.next_root}"), MAX_ENVELOPE_BYTES)
            if data is None:
                break
            self._trusted.add_root(data)
            self._remember()
        self._trusted.finish_roots()
        ring = self._trusted.add_desired(self._document("desired"))
        self._remember()
        return ring

    def _install(self, ring: Ring) -> None:
        """Bring the release of a ring into the other slot, and swap."""
        running = self._running
        signed = self._document(f"releases/{ring.release}")
        release = self._trusted.add_release(signed, 0 if running is None else running.number)
        signoff = self._store.get(self._key(f"signoffs/{ring.release}"), MAX_ENVELOPE_BYTES)
        self._trusted.add_signoff(signoff)
        raw, manifest = self._manifest(release)
        self._bring(
            (release.digest, release.name, release.number),
            {"release.json": signed, "signoff.json": signoff or b""},
            raw,
            manifest,
        )

    def _renew(self) -> "Optional[tuple[str, Dict[str, str]]]":
        """Make the running release anew where what it was made for is no more: another TensorRT, JetPack or backend.

        It was believed when it was installed, and its bytes are still those: no store is asked. Returns slot and error where
        it cannot be done; the slot stays as it is then.
        """
        running = self._running
        if running is None:
            return None
        with self._disk.errors("what trtexec says"):
            environment = self._backend.environment()
        if running.environment == environment:
            self._state.update(stale=None)
            return None
        tried = {"release": running.release, "environment": environment, "agent": VERSION}
        stale = self._state.state.stale
        if stale is None or {key: stale[key] for key in tried} != tried:
            self._running = running = self._slots.read(running.slot)
            if running is None:
                return None  # damaged since: it is installed anew instead
            self._log(f"made for {running.environment}; this is {environment}: made anew")
            try:
                self._remake(running, tried)
            except Refused as err:
                if isinstance(err, (BuildFailed, Unhealthy)):
                    self._state.update(stale=dict(tried, error=error_of(err)), begun=None)
                return running.slot, error_of(err)
        stale = self._state.state.stale
        return None if stale is None else (running.slot, stale["error"])

    def _remake(self, running: Installed, tried: Dict[str, str]) -> None:
        folder = self._slots.path(running.slot)
        raw = (folder / "bundle" / MANIFEST_NAME).read_bytes()
        documents = {name: (folder / name).read_bytes() for name in ("release.json", "signoff.json")}
        manifest = check_manifest(strict_json(raw), f"slot {running.slot}")
        self._bring((running.release, running.name, running.number), documents, raw, manifest, tried)

    def _bring(
        self,
        which: "tuple[str, str, int]",
        documents: Dict[str, bytes],
        raw: bytes,
        manifest: Manifest,
        renews: Optional[Dict[str, str]] = None,
    ) -> None:
        """Digest, name and number of a release into the other slot, made and judged there, and swapped in."""
        self._report(self._status(INSTALLING))
        digest, title, number = which
        slot = self._slots.other()
        folder = self._slots.prepare(slot, digest)
        for name, data in documents.items():
            self._disk.write(folder / name, data)
        self._disk.write(folder / "bundle" / MANIFEST_NAME, raw)
        self._fill(slot, manifest)
        made = self._make(folder, digest)
        self._slots.complete(
            slot,
            {
                "release": digest,
                "name": title,
                "number": number,
                "health": dict(made.health._asdict()),
                "environment": made.environment,
                "info": made.info,
            },
        )
        pending = {
            "slot": slot,
            "previous": self._slots.current(),
            "release": digest,
            "number": number,
            "renews": renews,
            "undo": None,
        }
        self._state.update(pending=pending)
        self._slots.switch(slot)
        self._settle(pending)

    def _manifest(self, release: Release) -> "tuple[bytes, Manifest]":
        key = f"manifests/{release.digest}.json"
        if release.manifest_size > MAX_MANIFEST_BYTES:
            raise TooLarge(f"{key}: {release.manifest_size} bytes; at most {MAX_MANIFEST_BYTES} are taken")
        raw = self._store.get(key, release.manifest_size)
        if raw is None:
            raise StoreUnreachable(f"{key}: the store does not have it")
        return raw, self._trusted.add_manifest(raw)

    def _fill(self, slot: str, manifest: Manifest) -> None:
        """Every file of the manifest and nothing else, each verified as it lies there."""
        self._slots.remove_extraneous(slot, manifest)
        self._slots.tidy(manifest.files)
        absent = self._slots.missing(slot, manifest)
        space = self._backend.space(manifest.files[MODEL_NAME].size) + self._config.keep_free
        self._slots.require_space(manifest, absent, space)
        for name in absent:
            fetch(self._store, self._slots, slot, name, manifest.files[name])

    def _make(self, folder: Path, digest: str) -> Made:
        """Build, and hold against the golden clips."""
        begun = self._state.state.begun
        times = begun["times"] if begun is not None and begun["release"] == digest else 0
        if times >= self._config.attempts:
            raise BuildFailed(
                f"its installation was begun {times} times and never came to an end: does the device run out of memory or "
                "power over it?"
            )
        self._state.update(begun={"release": digest, "times": times + 1})
        try:
            with self._disk.errors(str(folder)):
                return self._backend.make(folder / "bundle", folder / "built", self._disk)
        except NoSpace:
            self._state.update(begun=begun)  # the disk's fault and not the release's
            raise

    def _settle(self, pending: Dict[str, Any]) -> None:
        """The link points at the new slot: keep it if the service answers, else go back."""
        try:
            if self._answered != pending["release"]:  # what follows may have to be done again, on a full disk
                with self._disk.errors("the log of the restart"):
                    self._service.restart()
                self._answered = pending["release"]
        except Unhealthy as err:
            if pending.get("renews") is None:
                self._fail(pending["release"], ROLLED_BACK, error_of(err))
            else:
                self._state.update(stale=dict(pending["renews"], error=error_of(err)), begun=None)
            undone = dict(pending, undo=True)
            self._state.update(pending=undone)
            self._undo(undone)
            return
        self._trusted.installed(pending["number"])
        # what was made anew says nothing of a release that failed here
        failed = None if pending.get("renews") is None else self._state.state.failed
        self._state.update(pending=None, failed=failed, begun=None, stale=None, trusted=self._trusted.memory)
        self._answered = None
        self._running = self._slots.running()
        self._log(f"runs release {pending['release'][:12]}… in slot {pending['slot']}")

    def _undo(self, pending: Dict[str, Any]) -> None:
        if pending["previous"] is None:
            self._slots.unlink()
        else:
            self._slots.switch(pending["previous"])
        if not self._went_back:
            try:
                with self._disk.errors("the log of the restart"):
                    self._service.restart()
            except Unhealthy as err:
                self._log(f"after going back: {err}")
            self._went_back = True
        self._state.update(pending=None)
        self._went_back = False
        self._running = self._slots.running()

    def _recover(self) -> None:
        """Finish or undo a swap that was cut short."""
        pending = self._state.state.pending
        if pending is None:
            return
        if pending["undo"]:
            self._undo(pending)
        elif self._slots.current() == pending["slot"]:
            self._settle(pending)
        else:
            self._state.update(pending=None)  # the link was not reached: the install goes on from where it is

    def _fail(self, release: str, state: str, error: Dict[str, str]) -> None:
        self._state.update(
            failed={"release": release, "state": state, "error": error, "agent": VERSION}, begun=None
        )

    def _document(self, name: str) -> bytes:
        data = self._store.get(self._key(name), MAX_ENVELOPE_BYTES)
        if data is None:
            raise StoreUnreachable(f"{self._key(name)}: the store does not have it")
        return data

    def _key(self, name: str) -> str:
        return f"fleets/{self._config.fleet}/{name}.json"

    def _remember(self) -> None:
        self._state.update(trusted=self._trusted.memory)

    def _status(self, state: str, error: Optional[Dict[str, str]] = None) -> Status:
        running = self._running
        return Status(
            desired=self._trusted.desired_version,
            release=None if running is None else running.release,
            slot=None if running is None else running.slot,
            state=state,
            error=error,
            health=None if running is None else running.health,
        )

    def _report(self, status: Status) -> None:
        info = {} if self._running is None else self._running.info
        self._reporter.tell(status, dict(info, agent=VERSION, hardware=self._config.hardware))
