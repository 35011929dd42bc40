"""Which devices try a release first: 1 device → 5 % → 25 % → 100 %, in an order drawn afresh for every rollout.

The order is a hash of device and rollout. It needs no stored random state, anyone can recompute it, and the few devices that
go first are others every time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

SHARES: Final = (0.05, 0.25, 1.0)
"""Cumulative shares of the fleet after the first device."""


@dataclass(frozen=True)
class Ring:
    """A step of a rollout.

    `until` counts the devices of this ring and all before it. A ring `in_doubt` is a second sample as large as the ring before:
    it is asked only where a device has failed so far (a double sampling plan), and skipped otherwise.
    """

    name: str
    until: int
    in_doubt: bool = False


def order(devices: Iterable[str], rollout: str, *, last: Collection[str] = ()) -> tuple[str, ...]:
    """Devices in the order in which a rollout asks them.

    Args:
        rollout: what tells this rollout from every other, such as `ward-7/12`.
        last: devices to ask after all others, whatever their hash: those that are away or ill already would decide nothing.
    """
    later = frozenset(last)

    def place(device: str) -> tuple[bool, bytes]:
        return device in later, hashlib.sha256(f"{rollout}\n{device}".encode()).digest()

    return tuple(sorted(set(devices), key=place))


def plan(devices: int) -> tuple[Ring, ...]:
    """Rings of a fleet of so many devices; a small fleet has fewer, for every ring adds at least one device.

    Raises:
        ValueError: no device.
    """
    if devices < 1:
        raise ValueError(f"a fleet of {devices} devices has no rings")
    rings = [Ring("1 device", 1)]
    for share in SHARES:
        until = math.ceil(share * devices)
        if until <= rings[-1].until:
            continue
        rings.append(Ring(f"{share:.0%}".replace("%", " %"), until))
        again = 2 * until
        if share == SHARES[0] and again < math.ceil(SHARES[1] * devices):
            rings.append(Ring(f"{2 * share:.0%}".replace("%", " %"), again, in_doubt=True))
    return tuple(rings)
