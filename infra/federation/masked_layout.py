"""The sections of a masked vector: the update's levels in the smallest ring that their sum fits, and the tally behind them."""

from __future__ import annotations

from infra.federation.secagg.context import Section
from infra.federation.tally import BITS, tally_size
from infra.federation.training import TrainingPlan
from models.errors import FederationError
from models.ring import ring_bits
from models.rotation import padded_size


def sections(
    plan: TrainingPlan, size: int, n_reasons: int, cohort: int, *, train: bool
) -> tuple[Section, ...]:
    """Sections of a round's masked vectors.

    Args:
        plan: its codec decides the width of a level.
        size: P.
        n_reasons: C.
        cohort: how many sites may be summed.
        train: False in the closing exchange, which sums tallies alone.

    Raises:
        FederationError: the plan has no codec.
    """
    if plan.codec is None:
        raise FederationError("only integers can be summed under masks: the plan needs a codec")
    tally = Section(tally_size(n_reasons), BITS)
    if not train:
        return (tally,)
    return Section(padded_size(size), ring_bits(2**plan.codec.bits - 2, cohort)), tally
