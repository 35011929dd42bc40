"""Where a rollout is kept: in the store, signed by the fleet role, moved by compare-and-swap.

    fleets/<fleet>/rollout.json          the present rollout, or the last one
    fleets/<fleet>/rollouts/<n>.json     those that are over, written once

It is signed because what is signed as desired state follows from it: whoever can write into the bucket could otherwise make the
deploy flow roll out, or roll back, what nobody decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from infra.digest import canonical_json
from infra.edge.fleet import state
from infra.edge.fleet.state import Rollout
from infra.edge.trust.envelope import MAX_ENVELOPE_BYTES, sign
from infra.edge.trust.keys import PrivateKey
from infra.edge.trust.trusted import TrustedRoot
from infra.store.client import ObjectStore
from infra.store.content import check_name, parse_document
from models.errors import ConflictError, WrongSoftware

PAYLOAD_TYPE: Final = "application/vnd.cryfed.rollout+json"

_OVERTAKEN: Final = (
    "rollout {} is driven by another process, which was first: let it, or stop it and run this again"
)


@dataclass(frozen=True)
class Stored:
    """A rollout as it lies in the store, and the tag that replacing it needs."""

    rollout: Rollout
    etag: str


def load(store: ObjectStore, fleet: str, trust: TrustedRoot, *, adopt: bool = False) -> Stored | None:
    """The present rollout of a fleet, or the last one; None where there never was one.

    Args:
        adopt: accept what keys signed that the role has lost.

    Raises:
        KeyRevoked: signed by keys that the role has lost.
        TrustError: not signed by the fleet role, or of another fleet.
        StoreError: out of reach, or not a rollout.
    """
    key = _key(fleet)
    found = store.find(key, max_bytes=MAX_ENVELOPE_BYTES)
    if found is None:
        return None
    payload = trust.vouched("fleet", PAYLOAD_TYPE, found.data, key, adopt=adopt)
    rollout = state.parse(parse_document(payload, key), key)
    if rollout.fleet != fleet:
        raise WrongSoftware(f"{key} is the rollout of {rollout.fleet!r}: it was put there by mistake")
    return Stored(rollout, found.etag)


def save(
    store: ObjectStore, rollout: Rollout, keys: Sequence[PrivateKey], *, before: Stored | None
) -> Stored:
    """Write the next state; one that is over is filed under its number too.

    Raises:
        ConflictError: another process drives the rollout and was first.
        TooLarge: too many devices for one document.
    """
    data = sign(PAYLOAD_TYPE, canonical_json(rollout.to_json()), keys).to_bytes()
    key = _key(rollout.fleet)
    if before is None:
        if not store.put_if_absent(key, data):
            raise ConflictError(
                f"a rollout of {rollout.fleet} began just now: run the command again to follow it"
            )
        found = store.find(key, max_bytes=MAX_ENVELOPE_BYTES)
        if found is None or found.data != data:  # its tag would let us overwrite what was decided since
            raise ConflictError(_OVERTAKEN.format(rollout.id))
        etag = found.etag
    else:
        if before.rollout.phase.over and before.rollout.number != rollout.number:
            _file(store, before.rollout, keys)  # whoever ended it may have been killed before that
        try:
            etag = store.replace_if_match(key, data, before.etag)
        except ConflictError:
            raise ConflictError(_OVERTAKEN.format(rollout.id)) from None
    if rollout.phase.over:
        _file(store, rollout, keys)
    return Stored(rollout, etag)


def _file(store: ObjectStore, rollout: Rollout, keys: Sequence[PrivateKey]) -> None:
    data = sign(PAYLOAD_TYPE, canonical_json(rollout.to_json()), keys).to_bytes()
    store.put_if_absent(f"fleets/{check_name('fleet', rollout.fleet)}/rollouts/{rollout.number}.json", data)


def require_present(store: ObjectStore, stored: Stored) -> None:
    """Whether this is still what the store has: whoever acts on a decision asks, after reading what it is to change.

    Raises:
        ConflictError: another process has decided since.
    """
    found = store.stat(_key(stored.rollout.fleet))
    if found is None or found.etag != stored.etag:
        raise ConflictError(_OVERTAKEN.format(stored.rollout.id))


def _key(fleet: str) -> str:
    return f"fleets/{check_name('fleet', fleet)}/rollout.json"
