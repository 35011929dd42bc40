"""Secret sharing over Z_p, p = 2^256 + 297."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.secagg import shamir
from infra.federation.secagg.shamir import PRIME, SHARE_BYTES, combine, interpolate, read_share, split
from models.errors import FederationError, UpdateRejected

SECRET = bytes(range(32))


def test_the_modulus_is_prime_and_the_smallest_above_two_to_the_256() -> None:
    """Miller-Rabin with 40 bases; every smaller candidate has a Fermat witness."""

    def probably_prime(n: int, bases: range) -> bool:
        d, r = n - 1, 0
        while d % 2 == 0:
            d, r = d // 2, r + 1
        for a in bases:
            x = pow(a, d, n)
            if x in (1, n - 1):
                continue
            for _ in range(r - 1):
                x = x * x % n
                if x == n - 1:
                    break
            else:
                return False
        return True

    assert probably_prime(PRIME, range(2, 42))
    assert not any(probably_prime(2**256 + i, range(2, 4)) for i in range(1, 297))


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, SECRET])
def test_any_t_shares_give_the_secret(secret: bytes) -> None:
    shares = split(secret, 3, range(5))
    assert {len(s) for s in shares.values()} == {SHARE_BYTES}
    for chosen in combinations(shares, 3):
        assert combine({i: shares[i] for i in chosen}, 3) == secret


def test_shares_by_hand() -> None:
    """f(x) = 5 + 2x + 3x²: holder 0 has f(1) = 10, holder 1 f(2) = 21, holder 4 f(5) = 90."""
    coefficients = iter([2, 3])
    shares = split((5).to_bytes(32), 3, [0, 1, 4], lambda _p: next(coefficients))
    assert {i: int.from_bytes(s) for i, s in shares.items()} == {0: 10, 1: 21, 4: 90}
    assert interpolate(shares, 3, 3) == 5 + 6 + 27


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.integers(0, 4), st.randoms())
def test_round_trip(secret: bytes, threshold: int, more: int, random: object) -> None:
    holders = random.sample(range(250), threshold + more)  # type: ignore[attr-defined]
    shares = split(secret, threshold, holders, random.randrange)  # type: ignore[attr-defined]
    chosen = random.sample(holders, threshold)  # type: ignore[attr-defined]
    assert combine({i: shares[i] for i in chosen}, threshold) == secret


def test_shares_are_not_reproducible() -> None:
    assert split(SECRET, 3, range(5)) != split(SECRET, 3, range(5))


def test_fewer_than_t_shares_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Z_7 with t = 3, over all 49 polynomials of each secret, every pair of two shares occurs exactly once."""
    monkeypatch.setattr(shamir, "PRIME", 7)
    for secret in range(7):
        seen = []
        for a in range(7):
            for b in range(7):
                coefficients = iter([a, b])
                shares = split(secret.to_bytes(32), 3, range(5), lambda _p, c=coefficients: next(c))
                seen.append((shares[1], shares[3]))
        assert len(set(seen)) == 49


@pytest.mark.parametrize(
    ("secret", "threshold", "holders"),
    [
        (b"short", 2, [0, 1]),
        (SECRET + b"x", 2, [0, 1]),
        (SECRET, 3, [0, 1]),
        (SECRET, 0, [0, 1]),
        (SECRET, 2, [0, 1, 1]),
        (SECRET, 2, [-1, 0, 1]),
    ],
)
def test_what_cannot_be_split(secret: bytes, threshold: int, holders: list[int]) -> None:
    with pytest.raises(FederationError):
        split(secret, threshold, holders)


@pytest.mark.parametrize(
    "change", [{2: None}, {3: b"x" * 33}, {1: b""}, {1: b"\x02" + bytes(32)}, {-1: bytes(33), 2: None}]
)
def test_shares_that_cannot_be_combined(change: dict[int, bytes | None]) -> None:
    shares: dict[int, bytes | None] = {**split(SECRET, 3, range(3)), **change}
    with pytest.raises(UpdateRejected):
        combine({i: s for i, s in shares.items() if s is not None}, 3)


def test_the_largest_element_is_a_share_and_the_modulus_is_not() -> None:
    assert read_share((PRIME - 1).to_bytes(33)) == PRIME - 1
    with pytest.raises(UpdateRejected):
        read_share(PRIME.to_bytes(33))


def test_shares_of_no_secret() -> None:
    """The line through (1, p − 1) and (2, p − 2) meets x = 0 at 0; through (1, 2^256 + 5) and (2, 2^256 + 5) at 2^256 + 5."""
    edge = (2**256 + 5).to_bytes(33)
    with pytest.raises(UpdateRejected, match="do not belong together"):
        combine({0: edge, 1: edge}, 2)
    shares = {0: (PRIME - 1).to_bytes(33), 1: (PRIME - 2).to_bytes(33)}
    assert combine(shares, 2) == bytes(32)


def test_a_wrong_share_gives_another_secret() -> None:
    shares = split(SECRET, 3, range(3))
    shares[0] = ((read_share(shares[0]) + 1) % PRIME).to_bytes(33)
    assert interpolate(shares, 3, 0) != int.from_bytes(SECRET)
