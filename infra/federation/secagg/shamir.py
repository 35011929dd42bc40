"""Secret sharing (Shamir, CACM 1979): any t of n shares give the secret, fewer say nothing about it.

The field is Z_p with p = 2^256 + 297, the smallest prime above 2^256, so that every secret of 32 bytes is an element.
The secret is the constant term of a polynomial of degree t − 1 whose other coefficients are uniform; holder i has its value at
x = i + 1. For any t − 1 shares and any candidate secret exactly one such polynomial exists: that is the secrecy.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

from models.errors import FederationError, UpdateRejected

PRIME: Final = 2**256 + 297
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33  # one field element, big-endian


def split(
    secret: bytes, threshold: int, holders: Iterable[int], below: Callable[[int], int] = secrets.randbelow
) -> dict[int, bytes]:
    """Share a secret.

    Args:
        secret: 32 bytes.
        threshold: t, how many shares recover it.
        holders: numbers of the holders, from 0.
        below: uniform in [0, p); the operating system's entropy unless a test says otherwise.

    Returns:
        Share of each holder, 33 bytes.

    Raises:
        FederationError: wrong length of the secret, holders that repeat, or a threshold not in 1..number of holders.
    """
    numbers = list(holders)
    if len(secret) != SECRET_BYTES:
        raise FederationError(f"a secret to share has {len(secret)} bytes, not {SECRET_BYTES}")
    if len(set(numbers)) != len(numbers) or any(i < 0 for i in numbers):
        raise FederationError("holders of shares must be different numbers from 0 on")
    if not 1 <= threshold <= len(numbers):
        raise FederationError(f"a threshold of {threshold} cannot be met by {len(numbers)} holders")
    polynomial = [int.from_bytes(secret), *(below(PRIME) for _ in range(threshold - 1))]
    return {i: _evaluate(polynomial, i + 1).to_bytes(SHARE_BYTES) for i in numbers}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret from exactly `threshold` shares, 32 bytes.

    Wrong shares give a wrong secret, or an error if it is none: compare the result with something the owner committed to.

    Raises:
        UpdateRejected: fewer or more shares than the threshold, a share out of range, or no 32-byte secret lies behind them.
    """
    value = interpolate(shares, threshold, 0)
    if value >> 8 * SECRET_BYTES:
        raise UpdateRejected("the shares do not belong together: no secret lies behind them")
    return value.to_bytes(SECRET_BYTES)


def interpolate(shares: Mapping[int, bytes], threshold: int, at: int) -> int:
    """Value at x = `at` of the polynomial through exactly `threshold` shares (Lagrange); errors as in `combine`."""
    if len(shares) != threshold:
        raise UpdateRejected(f"{len(shares)} shares of a secret that takes {threshold}")
    if any(i < 0 for i in shares):
        raise UpdateRejected("a share's holder is not a number from 0 on")
    holders = tuple(sorted(shares))
    weights = _weights(tuple(i + 1 for i in holders), at)
    return sum(w * read_share(shares[i]) for w, i in zip(weights, holders, strict=True)) % PRIME


def read_share(share: bytes) -> int:
    """A share as a field element.

    Raises:
        UpdateRejected: not 33 bytes, or not below p.
    """
    value = int.from_bytes(share)
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise UpdateRejected("a share is not an element of the field")
    return value


def _evaluate(polynomial: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * x + coefficient) % PRIME
    return value


@lru_cache(maxsize=64)
def _weights(xs: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Lagrange weights λ_i(at) = Π_{j≠i} (at − x_j) / (x_i − x_j); the same for every secret of a round."""
    weights = []
    for i, x in enumerate(xs):
        above = below = 1
        for other in xs[:i] + xs[i + 1 :]:
            above = above * (at - other) % PRIME
            below = below * (x - other) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
