"""What t − 1 sites learn together with the server: of an honest site's vector, nothing."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from infra.federation.secagg import statements
from infra.federation.secagg.context import Section
from infra.federation.secagg.masking import add_mask, reduce, unpack_words
from infra.federation.secagg.primitives import unseal
from infra.federation.secagg.shamir import PRIME, SHARE_BYTES, combine, interpolate, read_share
from models.errors import UpdateRejected
from tests.infra.federation.secagg.world import World, identity, make_context, site_name

VICTIM = 0


def _shares_of_victim(world: World, colluders: range) -> dict[int, tuple[bytes, bytes]]:
    """The victim's shares as its colluding recipients read them: pair key, self-mask seed."""
    found = {}
    for i in colluders:
        secrets = world.sites[i].secrets
        assert secrets is not None
        theirs = world.key_list.announcement(VICTIM).cipher_key
        key = statements.share_key(world.context, secrets.cipher_key, theirs, VICTIM, i)
        label = statements.share_label(world.key_list, VICTIM, i)
        both = unseal(key, world.deliveries[site_name(i)].entries[VICTIM], label)
        found[i] = both[:SHARE_BYTES], both[SHARE_BYTES:]
    return found


def test_t_minus_one_shares_fit_every_secret() -> None:
    """n = 8, t = 6: through five real shares of the victim's seed and any candidate at x = 0 goes one polynomial of degree 5.

    Each candidate predicts another share for the honest rest, and every prediction is a field element: nothing excludes any.
    """
    context = make_context(8)
    world = World(context).announce().share()
    held = {i: own for i, (_, own) in _shares_of_victim(world, range(1, 6)).items()}
    assert len(held) == context.threshold - 1
    candidates = [bytes(32), b"\xff" * 32, hashlib.sha256(b"any").digest()]
    predictions = []
    for candidate in candidates:
        # the candidate as the share at x = 0, that is of holder −1: Lagrange by hand through six points
        points = {0: int.from_bytes(candidate), **{i + 1: read_share(s) for i, s in held.items()}}
        at_seven = 0
        for x, y in points.items():
            above = below = 1
            for other in points:
                if other != x:
                    above, below = above * (7 - other) % PRIME, below * (x - other) % PRIME
            at_seven = (at_seven + y * above * pow(below, -1, PRIME)) % PRIME
        shares = {**held, 6: at_seven.to_bytes(SHARE_BYTES)}
        assert combine(shares, context.threshold) == candidate
        predictions.append(at_seven)
    assert len(set(predictions)) == len(candidates)


def test_with_the_t_th_share_the_secret_is_there() -> None:
    """So the five above were the victim's real shares."""
    context = make_context(8)
    world = World(context).announce().share()
    both = _shares_of_victim(world, range(1, 7))
    secrets = world.sites[VICTIM].secrets
    assert secrets is not None
    assert combine({i: own for i, (_, own) in both.items()}, 6) == secrets.self_seed
    assert combine({i: pair for i, (pair, _) in both.items()}, 6) == secrets.mask_key
    five = dict(list(both.items())[:5])
    for kind, secret in ((0, secrets.mask_key), (1, secrets.self_seed)):
        few = {i: shares[kind] for i, shares in five.items()}
        with pytest.raises(UpdateRejected, match="takes 6"):
            combine(few, 6)
        assert interpolate(few, 5, 0) != int.from_bytes(secret)


def test_an_upload_stays_uniform_without_the_masks_that_colluders_share() -> None:
    """Five of eight sites give the server their pair keys with the victim; χ² of what is left of an all-zero vector.

    Mean 2047, σ = 64 for 2048 values; within 6 σ. Off come five of seven pair masks; the self-mask and two pairs stay.
    """
    n = 2**17
    context = make_context(8, sections=(Section(n, 11),))
    world = World(context).announce().share()
    site = world.sites[VICTIM]
    sent = site.mask(world.deliveries[site_name(VICTIM)], [np.zeros(n, int)], identity(VICTIM), site.spent)[1]
    words = unpack_words(context, sent.payload)
    victims_key = world.key_list.announcement(VICTIM).mask_key
    for i in range(1, 6):
        secrets = world.sites[i].secrets
        assert secrets is not None
        seed = statements.pair_mask_seed(context, secrets.mask_key, victims_key, i, VICTIM)
        add_mask(words, seed, subtract=True)  # the victim has the lowest number: it added them
    left = reduce(context, words)[0]
    expected = n / 2048
    chi2 = float(((np.bincount(left, minlength=2048) - expected) ** 2 / expected).sum())
    assert abs(chi2 - 2047) < 6 * 64


def test_with_every_other_site_and_its_own_seed_the_upload_is_open() -> None:
    """All seven pair masks and the self-mask off: zeros. So the masks of the test above are the right ones."""
    context = make_context(8)
    world = World(context).announce().share()
    site, zeros = world.sites[VICTIM], [np.zeros(6, int), np.zeros(2, int)]
    sent = site.mask(world.deliveries[site_name(VICTIM)], zeros, identity(VICTIM), site.spent)[1]
    words = unpack_words(context, sent.payload)
    victims_key = world.key_list.announcement(VICTIM).mask_key
    for i in range(1, 8):
        secrets = world.sites[i].secrets
        assert secrets is not None
        add_mask(
            words, statements.pair_mask_seed(context, secrets.mask_key, victims_key, i, VICTIM), subtract=True
        )
    assert any(section.any() for section in reduce(context, words))
    assert site.secrets is not None
    add_mask(words, statements.self_mask_seed(context, VICTIM, site.secrets.self_seed), subtract=True)
    assert not any(section.any() for section in reduce(context, words))
