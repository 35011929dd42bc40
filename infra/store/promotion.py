"""Channels of a release name: `<name>-dev` → `<name>-staging` → `<name>-prod`, each one atomic pointer.

- prod takes only what staging holds at that moment, so nothing reaches it that nobody could have tried;
- who compares a release with the channel's present one (`champion`) moves the channel from that one and from no other;
- a channel moves by compare-and-swap: whoever decided on the ground of an older state is refused, not obeyed;
- going back is the same two steps with an earlier version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from infra.store import registry
from infra.store.client import ObjectStore
from infra.store.registry import Release
from models.errors import ConflictError, StoreError

DEV, STAGING, PROD = "dev", "staging", "prod"
CHANNELS: Final = (DEV, STAGING, PROD)
LATEST: Final = "latest"
NOTHING: Final = "nothing"
"""Expectation that a channel points nowhere yet."""

_BEFORE: Final = {DEV: LATEST, STAGING: DEV, PROD: STAGING}
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Move:
    """A channel's step; `previous` is None where it pointed nowhere, and equals `digest` where it was there already."""

    channel: str
    digest: str
    previous: str | None

    @property
    def moved(self) -> bool:
        """Whether the channel points elsewhere than before."""
        return self.previous != self.digest


def channel_name(name: str, channel: str) -> str:
    """Name of a release's channel in the store."""
    return f"{name}-{channel}"


def find(store: ObjectStore, name: str, reference: str | None, channel: str) -> Release:
    """The version of `name` that a reference means.

    Args:
        reference: a version number, `latest`, a channel (what it points at), or a manifest digest; None: what the channel
            before `channel` points at, for dev the latest.

    Raises:
        StoreError: nothing goes by it.
    """
    reference = reference or _BEFORE[channel]
    if reference in CHANNELS:
        pointer = registry.get_channel(store, channel_name(name, reference))
        if pointer is None:
            raise StoreError(
                f"channel {channel_name(name, reference)} points at nothing yet: deploy to {reference} first, or name a version"
            )
        reference = pointer.manifest_digest
    if _DIGEST.fullmatch(reference):
        found = [r for r in registry.releases(store, name) if r.manifest_digest == reference]
        if not found:
            raise StoreError(
                f"no version of {name} has the manifest {reference}; `cryfed store list` shows what is there"
            )
        return found[-1]
    return registry.resolve(store, name if reference == LATEST else f"{name}@{reference}")


def champion(
    store: ObjectStore, release: Release, channel: str, *, expect: str | None = None
) -> Release | None:
    """What the release's channel points at now, None where it points nowhere yet.

    Raises:
        ConflictError: it is neither the release nor what was expected (a manifest digest, or `nothing`).
    """
    target = channel_name(release.name, channel)
    pointer = registry.get_channel(store, target)
    current = None if pointer is None else pointer.manifest_digest
    if current == release.manifest_digest:
        return release
    _require_expected(target, current, expect)
    return None if current is None else find(store, release.name, current, channel)


def promote(store: ObjectStore, release: Release, channel: str, *, expect: str | None = None) -> Move:
    """Point a release's channel at it.

    Args:
        expect: manifest digest that the channel has to point at now, or `nothing`; None: whatever is read here, which then
            still has to hold when it is written. A channel that points at the release already is left as it is.

    Raises:
        ConflictError: the channel points elsewhere than expected, or another writer moved it meanwhile.
        StoreError: prod, and staging does not hold this release.
    """
    move = check(store, release, channel, expect=expect)
    if move.moved:
        registry.move_channel(store, move.channel, release.manifest_digest, expect=move.previous)
    return move


def check(store: ObjectStore, release: Release, channel: str, *, expect: str | None = None) -> Move:
    """The move that `promote` would make now; raises as it does, and moves nothing."""
    target = channel_name(release.name, channel)
    if channel == PROD:
        _require_staged(store, release)
    pointer = registry.get_channel(store, target)
    current = None if pointer is None else pointer.manifest_digest
    if current != release.manifest_digest:
        _require_expected(target, current, expect)
    return Move(target, release.manifest_digest, current)


def _require_expected(target: str, current: str | None, expect: str | None) -> None:
    if expect is not None and expect != (current or NOTHING):
        raise ConflictError(
            f"channel {target} points at {current or NOTHING}, not at {expect} as expected: look at what it points at "
            "and decide again"
        )


def _require_staged(store: ObjectStore, release: Release) -> None:
    staged = registry.get_channel(store, channel_name(release.name, STAGING))
    if staged is None or staged.manifest_digest != release.manifest_digest:
        held = "nothing" if staged is None else staged.manifest_digest
        raise StoreError(
            f"{release.name}@{release.version} is not on {channel_name(release.name, STAGING)} (which points at {held}): "
            "deploy it to staging first"
        )
