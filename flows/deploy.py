"""A release onto a channel, on demand: found, verified, held to its evidence, compared with what is there, promoted.

What a channel points at is what whoever follows it will pull. This flow moves that pointer and no more: it does not reach
devices. Rings of devices and their sign-off come later and will follow the same channels.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.parameters import DeployParameters
from tasks.deploy import challenge, find_release, move_channel, verify_release
from tasks.runtime import open_runtime


@flow(name="deploy", persist_result=True, result_serializer="json")
def deploy(parameters: DeployParameters) -> dict[str, Any]:
    """Move a channel; return the release's name, version and digest, the channel, what it pointed at, and whether it moved.

    Raises:
        ConflictError: the channel does not point at what was expected, or at what the release was compared with.
        ChallengerRefused: on the clips named it may be worse than what is there.
        StoreError: no such release, or one for prod that is not on staging.
        IntegrityError, BundleError, ExportError: the release is altered, incomplete or without evidence.
    """
    with open_runtime():
        release = find_release(parameters.release, parameters.reference, parameters.channel)
        facts = verify_release(release)
        outcome = challenge(
            release, parameters.channel, parameters.clips, parameters.margin, parameters.expect
        )
        # from what it was compared with, and from nothing else
        moved: dict[str, Any] = move_channel(
            release, parameters.channel, outcome["champion"], {**facts, "challenge": outcome["why"]}
        )
        return moved
