"""A release onto a channel, and with it onto a fleet of devices, on demand.

Without a fleet: found, verified, held to its evidence, compared with what is there, and the channel's pointer moved by
compare-and-swap.

With a fleet, the same, and between the two: its sign-off is checked (a signature of the clinical role, for this very digest and
this fleet), devices get it ring by ring, and the channel moves once the last ring has passed. A build that fails is rolled back
everywhere, and the channel stays where it was. Killed and run again, a rollout goes on where it stopped.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.parameters import DeployParameters
from tasks.deploy import challenge, check_channel, find_release, move_channel, verify_release
from tasks.runtime import open_runtime


@flow(name="deploy", persist_result=True, result_serializer="json")
def deploy(parameters: DeployParameters) -> dict[str, Any]:
    """Move a channel; return the release's name, version and digest, the channel, what it pointed at, and whether it moved.

    With a fleet also `signed_off` (who, which keys, until when) and `rollout` (see `tasks.fleet.roll_out`).

    Raises:
        ConflictError: the channel does not point at what was expected, or at what the release was compared with; or another
            rollout is under way.
        ChallengerRefused: on the clips named it may be worse than what is there.
        StoreError: no such release, or one for prod that is not on staging.
        IntegrityError, BundleError, ExportError: the release is altered, incomplete or without evidence.
        NoSignOff, TrustError: the clinical role has not signed this release for this fleet.
        RolloutStopped: it was rolled back, or waits for a person.
    """
    with open_runtime():
        release = find_release(parameters.release, parameters.reference, parameters.channel)
        facts = verify_release(release)
        outcome = challenge(
            release, parameters.channel, parameters.clips, parameters.margin, parameters.expect
        )
        # from what it was compared with, and from nothing else
        champion, facts = outcome["champion"], {**facts, "challenge": outcome["why"]}
        if parameters.fleet is None:
            moved: dict[str, Any] = move_channel(release, parameters.channel, champion, facts)
            return moved
        return _to_fleet(parameters, parameters.fleet, release, champion, facts)


def _to_fleet(
    parameters: DeployParameters, fleet: str, release: dict[str, Any], champion: str, facts: dict[str, Any]
) -> dict[str, Any]:
    # what a fleet needs is imported only for one
    from tasks.fleet import check_sign_off, roll_out

    check_channel(release, parameters.channel, champion)
    signed_off = check_sign_off(release, fleet)
    rollout = roll_out(
        release,
        fleet,
        parameters.rollout.policy(),
        poll_s=parameters.rollout.poll_s,
        hold_s=parameters.rollout.hold_s,
    )
    moved = move_channel(release, parameters.channel, champion, facts)
    return {**moved, "signed_off": signed_off, "rollout": rollout}
