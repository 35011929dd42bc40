"""A release onto a fleet: signed off by a clinician, ring by ring, watched, confirmed or rolled back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from prefect import task
from prefect.artifacts import create_table_artifact

from infra.edge.fleet.operate import Driver, open_driver
from infra.edge.fleet.page import headline, lede, render_page, ring_rows, rows
from infra.edge.fleet.rollout import Decision, Step, tally
from infra.edge.fleet.state import Phase, Policy, Rollout
from infra.edge.fleet.view import FleetView
from infra.edge.fleet_documents import FleetDocuments
from infra.edge.trust.documents import ReleaseDocument, SignoffDocument, to_text
from infra.edge.trust.envelope import Envelope
from infra.edge.trust.trusted import open_manifest, open_signoff
from infra.report.render import write_page
from infra.store import registry
from infra.store.client import MAX_DOCUMENT_BYTES
from models.errors import ConflictError, NoSignOff, RolloutStopped, StoreError
from tasks.progress import StageProgress
from tasks.runtime import runtime

Json = dict[str, Any]

_PICTURE_SECONDS: Final = 10.0  # between two pictures of a ring that does not change


@task(name="check sign-off", retries=1, retry_delay_seconds=2, persist_result=False)
def check_sign_off(release: Json, fleet: str) -> Json:
    """Who signed off this very release for this fleet: `by`, their statement, the ids of their keys, and until when.

    What counts is a signature by keys that the fleet's newest root gives the clinical role, not a name in a form.

    Raises:
        NoSignOff: nobody did, or another release or fleet was meant.
        TrustError: signed by whoever does not hold the role, or expired; or the release itself is not stated to be the fleet's.
    """
    driver = _driver(fleet)
    documents, trust, digest = FleetDocuments(runtime().store, fleet), driver.trust(), release["digest"]
    stated = documents.find_statement(trust, ReleaseDocument, digest)
    if stated is None:
        raise NoSignOff(
            f"{release['name']}@{release['version']} is not stated to be a release of {fleet}, so nobody can have signed it off"
        )
    manifest = runtime().store.get(f"manifests/{digest}.json", max_bytes=MAX_DOCUMENT_BYTES)
    open_manifest(manifest, stated.document)
    found = documents.find_statement(trust, SignoffDocument, digest)
    signed = open_signoff(trust, found.data if found else None, digest)
    envelope = Envelope.parse(found.data if found else b"")
    return {
        "by": signed.by,
        "statement": signed.statement,
        "keys": sorted(envelope.signers(trust.root.role_keys("clinical"))),
        "expires": to_text(signed.expires),
    }


@task(name="roll out", retries=0, persist_result=False)
def roll_out(release: Json, fleet: str, policy: Policy, *, poll_s: float, hold_s: float) -> Json:
    """Take a release to a fleet; what was interrupted goes on where it was.

    Args:
        poll_s: seconds between two looks at the reports.
        hold_s: how long a ring that has had too few answers is watched before this gives up; the rollout stays as it is.

    Returns:
        `phase`, `why`, `number`, `devices` asked, `running` the release, `page` (path of the view).

    Raises:
        RolloutStopped: it was rolled back, or it holds.
        ConflictError: another release is being rolled out, or another process drives this rollout.
    """
    rt, driver = runtime(), _driver(fleet)
    trust = driver.trust()
    stated = FleetDocuments(rt.store, fleet).find_statement(trust, ReleaseDocument, release["digest"])
    if stated is None:
        raise NoSignOff(f"{release['name']}@{release['version']} is no release of {fleet}")
    page = rt.settings.runs_dir / "fleets" / f"{fleet}.html"
    if driver.start(stated.document, policy) is None:
        picture(driver, page)
        return {"phase": str(Phase.CONFIRMED), "why": "every device runs it already", "page": str(page)}
    step = _watch(driver, page, poll_s=poll_s, hold_s=hold_s)
    view = picture(driver, page)
    publish(view)
    if not step.rollout.phase.over:
        raise RolloutStopped(
            f"{release['name']}@{release['version']} on {fleet} holds: {step.why}. Run the same command again to go on "
            f"watching, or `cryfed fleet stop {fleet}` to roll it back. {page} shows every device"
        )
    if step.rollout.phase is Phase.ROLLED_BACK:
        raise RolloutStopped(
            f"{release['name']}@{release['version']} was rolled back on {fleet}: {step.why}. {page} shows every device"
        )
    count = tally(step.rollout.devices)
    return {
        "phase": str(step.rollout.phase),
        "why": step.why,
        "number": step.rollout.number,
        "devices": count.asked,
        "running": count.running,
        "page": str(page),
    }


def _watch(driver: Driver, page: Path, *, poll_s: float, hold_s: float) -> Step:
    """Step until it is over, or has held for too long."""
    held_since: float | None = None
    pictured, last = 0.0, None
    with StageProgress(runtime().board, "rollout") as progress:
        while True:
            step = _patient_step(driver)
            rollout, clock = step.rollout, time.monotonic()
            progress.update(_fraction(rollout), f"{_where(rollout)}: {step.why}"[:200])
            if rollout.phase.over:
                return step
            held_since = (held_since or clock) if step.decision is Decision.HOLD else None
            if held_since is not None and clock - held_since >= hold_s:
                return step
            changed = (rollout.phase, rollout.ring) != last
            if changed or clock - pictured >= _PICTURE_SECONDS:
                view = picture(driver, page)
                if changed:
                    publish(view)
                pictured, last = clock, (rollout.phase, rollout.ring)
            if step.decision not in (Decision.WIDEN, Decision.PUBLISH, Decision.ROLL_BACK):
                time.sleep(poll_s)


def _patient_step(driver: Driver, attempts: int = 5, pause_s: float = 3.0) -> Step:
    """A step; a store that is away for a moment ends no rollout."""
    for _ in range(attempts - 1):
        try:
            return driver.step()
        except ConflictError:
            raise
        except StoreError:
            time.sleep(pause_s)
    return driver.step()


def picture(driver: Driver, page: Path) -> FleetView:
    """Write the page of the fleet as it stands."""
    titles = {r.manifest_digest: f"{r.name}@{r.version}" for r in registry.releases(driver.store)}
    view = driver.view(titles)
    write_page(render_page(view), page)
    return view


def publish(view: FleetView) -> None:
    """The same for Prefect: the rings, and the first devices, those in trouble before the others."""
    key = f"fleet-{view.fleet.lower().replace('_', '-').replace('.', '-')}"
    create_table_artifact(
        ring_rows(view), key=f"{key}-rings", description=f"**{headline(view)}**\n\n{lede(view)}"
    )
    create_table_artifact(rows(view), key=f"{key}-devices", description=lede(view))


def _driver(fleet: str) -> Driver:
    rt = runtime()
    return open_driver(rt.store, fleet, rt.settings.keys_dir)


def _fraction(rollout: Rollout) -> float:
    if rollout.phase is Phase.ROLLING_BACK:
        asked = rollout.asked_devices
        return sum(d.restored for d in asked) / max(len(asked), 1)
    return tally(rollout.devices).judged / len(rollout.devices)


def _where(rollout: Rollout) -> str:
    return (
        str(rollout.phase)
        if rollout.phase is not Phase.ROLLING
        else f"ring {rollout.rings[rollout.ring].name}"
    )
