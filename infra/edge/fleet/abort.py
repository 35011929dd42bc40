"""When a rollout stops: a test per ring, with error rates that can be computed beforehand.

**Failures.** Some devices fail whatever they are given (`base_rate`). Over the n devices that have answered so far, in this
ring and those before, a rollout stops at c failures, the smallest c with P[Bin(n, base_rate) ≥ c] ≤ `level`, and never more
than n: the first device that fails stops it. The count only grows, so a ring may stop at its c-th failure without waiting for
the rest (curtailed sampling): the verdict is the one that it would have come to.

With base rate 0.2 % and level 1 %, a fleet of 1,000 stops at 1 of 1, 2 of 50, 3 of 100 (asked only where one of the 50 failed: a
double sampling plan, as Dodge and Romig's), 4 of 250 and 7 of 1,000. The chance that it has stopped by the end of each ring,
exactly, from `stopping`:

| build                            | 1 device | 5 %    | 10 %, in doubt | 25 %   | 100 %  |
|----------------------------------|----------|--------|----------------|--------|--------|
| fails everywhere                 | 1.0000   | 1.0000 | 1.0000         | 1.0000 | 1.0000 |
| fails on 50 of 1,000             | 0.0500   | 0.7323 | 0.8781         | 0.9997 | 1.0000 |
| good; a device fails at 0.2 %    | 0.0020   | 0.0064 | 0.0068         | 0.0081 | 0.0120 |

**Latency.** Every device is compared with itself: ratio = its p95 with the new build / its last p95 with the old one. The rollout
stops when significantly more than half of the ratios lie above `slower` (1.2): a sign test, exact at `level` for any noise that
is independent from device to device, however heavy its tails. One device alone can't be significant; one whose p50 and p95 both
grew by more than `device_slower` times counts as a failure, which also catches a build that is slow on few devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from infra.edge.fleet.rings import Ring


@dataclass(frozen=True)
class AbortRule:
    """What a rollout tolerates. Rates and levels in (0, 1), ratios above 1."""

    base_rate: float = 0.002
    level: float = 0.01
    slower: float = 1.2
    device_slower: float = 2.0

    def __post_init__(self) -> None:
        if not (0 < self.base_rate < 0.5 and 0 < self.level < 0.5):
            raise ValueError(f"base_rate {self.base_rate} and level {self.level} must lie between 0 and 0.5")
        if not 1 <= self.slower <= self.device_slower:
            raise ValueError(f"1 ≤ slower ({self.slower}) ≤ device_slower ({self.device_slower}) must hold")

    def to_dict(self) -> dict[str, Any]:
        """As stored with a rollout."""
        return asdict(self)


def binomial_tail(n: int, p: float, at_least: int) -> float:
    """P[Bin(n, p) ≥ at_least]."""
    if at_least <= 0:
        return 1.0
    return math.fsum(_binomial(n, p, k) for k in range(at_least, n + 1))


def stop_at(n: int, rule: AbortRule) -> int:
    """Failures among n devices at which a rollout stops."""
    below, count = 0.0, 0
    while count < n:
        if 1.0 - below <= rule.level:
            break
        below += _binomial(n, rule.base_rate, count)
        count += 1
    return max(1, count)


def slow_at(n: int, rule: AbortRule) -> int | None:
    """Devices of n that must have become slower than `rule.slower` for a stop; None where n is too small for any verdict."""
    if 0.5**n > rule.level:
        return None
    tail, ways, count = (
        0,
        1,
        n + 1,
    )  # both in units of 2⁻ⁿ: ways that `count - 1` of n can be slower, and as many or more
    while count > 0:
        tail += ways
        if tail / 2**n > rule.level:
            break
        count -= 1
        ways = ways * count // (n - count + 1)
    return count


def too_slow(ratios: Sequence[float], rule: AbortRule) -> bool:
    """Whether a build made the fleet slower by more than `rule.slower`; `ratios` are new p95 / old p95, one a device."""
    bound = slow_at(len(ratios), rule)
    return bound is not None and sum(r > rule.slower for r in ratios) >= bound


def stopping(
    rings: Sequence[Ring], rule: AbortRule, *, failing: int | None = None, rate: float | None = None
) -> tuple[float, ...]:
    """The exact chance that a rollout has stopped for failures by the end of each ring, every device having answered.

    Args:
        failing: so many devices of the fleet fail, any of them equally likely (hypergeometric); or
        rate: every device fails by itself at this rate (binomial).

    Raises:
        ValueError: both, neither, or more failing devices than there are.
    """
    total = rings[-1].until
    if (failing is None) == (rate is None) or (failing is not None and not 0 <= failing <= total):
        raise ValueError(f"name either failing (0 to {total}) or rate, not {failing} and {rate}")
    alive = {(0, 0): 1.0}  # (devices asked, failures) → probability, of rollouts that go on
    stopped = 0.0
    chances = []
    for ring in rings:
        after: dict[tuple[int, int], float] = {}
        bound = stop_at(ring.until, rule)
        for (asked, failures), mass in alive.items():
            if ring.in_doubt and not failures:
                after[asked, failures] = after.get((asked, failures), 0.0) + mass
                continue
            fresh = ring.until - asked
            for more in range(fresh + 1):
                if failing is not None:
                    chance = _hypergeometric(total - asked, failing - failures, fresh, more)
                else:
                    chance = _binomial(fresh, rate or 0.0, more)
                if not chance:
                    continue
                if failures + more >= bound:
                    stopped += mass * chance
                else:
                    key = (ring.until, failures + more)
                    after[key] = after.get(key, 0.0) + mass * chance
        alive = after
        chances.append(min(1.0, stopped))
    return tuple(chances)


def _binomial(n: int, p: float, k: int) -> float:
    if not 0 < p < 1:
        return float(k == (n if p else 0))
    log = (
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
    )
    return math.exp(log)


def _hypergeometric(total: int, failing: int, drawn: int, k: int) -> float:
    """P[k of `drawn` devices are among the `failing` of `total`]."""
    if k > failing or drawn - k > total - failing:
        return 0.0
    return math.comb(failing, k) * math.comb(total - failing, drawn - k) / math.comb(total, drawn)
