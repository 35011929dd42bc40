"""The unmasking: secrets out of shares, masks out of secrets, the sum out of the masked sum.

A survivor's self-mask comes off; of a site that dropped, what its pair masks left in the others' vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Final

import numpy as np
import numpy.typing as npt

from infra.federation.secagg import statements
from infra.federation.secagg.context import Context
from infra.federation.secagg.masking import Words, add_mask, reduce
from infra.federation.secagg.messages import Announcement, Reveal, Table
from infra.federation.secagg.primitives import public_key
from infra.federation.secagg.shamir import combine, interpolate, read_share
from models.errors import RoundSkipped, UpdateRejected

_TRIES: Final = 1000  # choices of t shares, where some are wrong


@dataclass(frozen=True)
class Total:
    """The result: sums over the sites in U, and nothing of any one of them."""

    sums: tuple[npt.NDArray[np.int64], ...]  # one array (length,) per section, in 0..2^bits − 1
    survivors: tuple[str, ...]  # U, in aggregation order
    dropped: tuple[str, ...]  # shared, but sent no vector
    wrong_shares: tuple[tuple[str, str], ...]  # (owner, holder): the holder's share is not on the polynomial


def unmask(
    context: Context,
    masked_sum: Sequence[Words],
    keys: Mapping[int, Announcement],
    shared: Sequence[int],
    survivors: Sequence[int],
    reveals: Mapping[int, Reveal],
) -> Total:
    """Take the masks off the sum of the survivors' vectors.

    Args:
        shared: U2, ascending.
        survivors: U, ascending.
        reveals: of at least t sites, each about every site of U2.

    Raises:
        RoundSkipped: a secret cannot be recovered.
    """
    words = tuple(np.array(section) for section in masked_sum)
    wrong: list[tuple[int, int]] = []
    for owner in shared:
        try:
            if owner in survivors:
                held = {by: reveal.self_masks[owner] for by, reveal in reveals.items()}
                seed, liars = recover(held, context.threshold, _is_self_seed(context, keys[owner]))
                add_mask(words, statements.self_mask_seed(context, owner, seed), subtract=True)
            else:
                held = {by: reveal.pair_keys[owner] for by, reveal in reveals.items()}
                key, liars = recover(held, context.threshold, _is_mask_key(keys[owner]))
                for other in survivors:
                    pair = statements.pair_mask_seed(context, key, keys[other].mask_key, owner, other)
                    add_mask(words, pair, subtract=other < owner)
        except UpdateRejected as err:
            raise RoundSkipped(
                f"round {context.round}: the secret of site {context.name(owner)!r}: {err}"
            ) from None
        wrong += [(owner, holder) for holder in liars]
    return Total(
        reduce(context, words),
        tuple(context.name(i) for i in survivors),
        tuple(context.name(i) for i in shared if i not in survivors),
        tuple((context.name(owner), context.name(holder)) for owner, holder in wrong),
    )


def recover(shares: Table, threshold: int, matches: Callable[[bytes], bool]) -> tuple[bytes, tuple[int, ...]]:
    """A secret from at least t shares of which some may be wrong, and the holders of wrong ones.

    Raises:
        UpdateRejected: no choice of t shares gives what the owner announced.
    """
    for chosen in islice(_choices(sorted(shares), threshold), _TRIES):
        part = {holder: shares[holder] for holder in chosen}
        try:
            secret = combine(part, threshold)
        except UpdateRejected:
            continue
        if matches(secret):
            rest = shares.keys() - part.keys()
            wrong = [h for h in sorted(rest) if interpolate(part, threshold, h + 1) != read_share(shares[h])]
            return secret, tuple(wrong)
    raise UpdateRejected(
        f"no {threshold} of {len(shares)} shares give what its owner announced: wrong shares were dealt, or too many revealed"
    )


def _choices(holders: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Choices of `size` holders: all first ones, then without one of them, without two …; so one wrong share costs n tries."""
    for fewer in range(len(holders) - size + 1):
        for left_out in combinations(holders, fewer):
            yield [h for h in holders if h not in left_out][:size]


def _is_self_seed(context: Context, announced: Announcement) -> Callable[[bytes], bool]:
    return lambda seed: statements.commitment(context, announced.site, seed) == announced.commitment


def _is_mask_key(announced: Announcement) -> Callable[[bytes], bool]:
    return lambda key: public_key(key) == announced.mask_key
