"""Masked words: arithmetic in the ring, refusals, and how an upload looks to someone without the keys."""

from __future__ import annotations

import numpy as np
import pytest

from infra.federation.secagg.context import Section
from infra.federation.secagg.masking import (
    add_mask,
    add_words,
    from_buffer,
    pack_words,
    reduce,
    to_buffer,
    to_words,
    unpack_words,
    zeros,
)
from infra.federation.secagg.messages import MaskedVector
from models.errors import FederationError, UpdateRejected
from tests.infra.federation.secagg.world import World, identity, make_context, site_name, values_of

CONTEXT = make_context()
SEEDS = [bytes([i]) * 32 for i in range(4)]


@pytest.mark.parametrize("bits", [1, 7, 8, 11, 15, 16, 17, 24, 31, 32])
def test_masks_cancel_in_every_ring(bits: int) -> None:
    """x₀ + m, x₁ − m, each packed to k bits on the way: the sum is x₀ + x₁ mod 2^k."""
    context = make_context(sections=(Section(101, bits),))
    rng = np.random.default_rng(bits)
    x = [rng.integers(0, 2**bits, 101, np.uint64) for _ in range(2)]
    total = zeros(context)
    for k in range(2):
        words = to_words(context, [x[k]])
        add_mask(words, SEEDS[0], subtract=bool(k))
        total = add_words(total, unpack_words(context, pack_words(context, words)))
    (found,) = reduce(context, total)
    assert found.tolist() == ((x[0].astype(object) + x[1].astype(object)) % 2**bits).tolist()


def test_a_site_keeps_its_own_values() -> None:
    values = values_of(CONTEXT, 0)
    before = [v.copy() for v in values]
    words = to_words(CONTEXT, values)
    add_mask(words, SEEDS[0])
    assert all((a == b).all() for a, b in zip(values, before, strict=True))


def test_words_survive_the_disk() -> None:
    words = zeros(CONTEXT)
    add_mask(words, SEEDS[0])
    again = from_buffer(CONTEXT, to_buffer(words))
    assert all((a == b).all() for a, b in zip(words, again, strict=True))
    for bad in (to_buffer(words)[:-1], to_buffer(words) + b"x", b""):
        with pytest.raises(FederationError, match="damaged"):
            from_buffer(CONTEXT, bad)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([np.zeros(6, int)], "1 sections"),
        ([np.zeros(5, int), np.zeros(2, int)], "section 0 to mask is int64 of shape"),
        ([np.zeros((6, 1), int), np.zeros(2, int)], "section 0"),
        ([np.zeros(6), np.zeros(2, int)], "float64"),
        ([np.zeros(6, bool), np.zeros(2, int)], "bool"),
        ([np.full(6, -1), np.zeros(2, int)], "outside its 11 bits"),
        ([np.full(6, 2**11), np.zeros(2, int)], "outside its 11 bits"),
        ([np.zeros(6, int), np.full(2, 2**32)], "section 1 to mask has a value outside its 32 bits"),
        ([np.full(6, np.nan), np.zeros(2, int)], "not integers"),
    ],
)
def test_what_is_not_masked(values: list[np.ndarray], says: str) -> None:
    with pytest.raises(UpdateRejected, match=says):
        to_words(CONTEXT, values)


def _upload(vector: np.ndarray, attempt: int = 0) -> np.ndarray:
    """What one site of five uploads, as ring elements."""
    context = make_context(sections=(Section(vector.size, 11),), attempt=attempt)
    world = World(context).announce().share()
    site = world.sites[2]
    _, sent = site.mask(world.deliveries[site_name(2)], [vector], identity(2), site.spent)
    assert isinstance(sent, MaskedVector)
    return reduce(context, unpack_words(context, sent.payload))[0]


def test_an_upload_looks_uniform() -> None:
    """χ² over the 2048 values of an all-zero and of an all-ones vector: mean 2047, σ = √(2·2047) = 64; within 6 σ.

    A vector masked with too short or repeated streams, or left unmasked, is far outside.
    """
    n = 2**18
    for fill in (0, 254):
        upload = _upload(np.full(n, fill))
        expected = n / 2048
        chi2 = float(((np.bincount(upload, minlength=2048) - expected) ** 2 / expected).sum())
        assert abs(chi2 - 2047) < 6 * 64


def test_two_attempts_share_no_mask() -> None:
    """Equal vectors, fresh keys: the difference of the uploads is uniform too, and so is that of neighbouring words."""
    n = 2**18
    vector = np.arange(n) % 255
    first, second = _upload(vector), _upload(vector, attempt=1)
    for difference in ((first - second) % 2048, np.diff(first) % 2048):
        expected = difference.size / 2048
        chi2 = float(((np.bincount(difference, minlength=2048) - expected) ** 2 / expected).sum())
        assert abs(chi2 - 2047) < 6 * 64
