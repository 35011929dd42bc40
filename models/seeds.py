"""Seeds: everything reproducible is drawn from SHA-256 over names, so that it depends on them and not on order or process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from SHA-256 of the parts, e.g. `derive_seed(run_seed, "site03", "round", 4)`."""
    return int.from_bytes(_hash(parts)[:8], "big") >> 1


def local_seed(run_seed: int, site: str, round_number: int) -> int:
    """The seed of one site's step in one round."""
    return derive_seed(run_seed, "local", site, round_number)


def rotation_seed(run_seed: int, round_number: int) -> bytes:
    """The public seed (32 bytes) of one round's rotation: the same at every site and at the server."""
    return _hash((run_seed, "rotation", round_number))


def participants(names: Sequence[str], count: int, run_seed: int, round_number: int) -> tuple[str, ...]:
    """The sites asked in a round, in the order of `names`: all, or a draw that depends on the seed and the round alone."""
    if count >= len(names):
        return tuple(names)
    rng = np.random.Generator(np.random.PCG64(derive_seed(run_seed, "participation", round_number)))
    chosen = rng.choice(len(names), size=count, replace=False)
    return tuple(names[i] for i in sorted(chosen.tolist()))


def _hash(parts: Sequence[object]) -> bytes:
    return hashlib.sha256("\x1f".join(str(p) for p in parts).encode()).digest()
