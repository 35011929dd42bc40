"""The paper's failure signatures (arXiv 2512.13880, section on limitations), as alarms with a cause.

    oscillation         the mean update turns back on the last one, several rounds in a row
    variates            a site lost its control variate: a new epoch began
    upload over budget  a site sent more than the round's budget
    votes               more than half of the sites voted against a round, and it was taken back
    sum too large       the summed update cannot come from clipped updates

Pure functions of the history's records: the same history gives the same alarms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Record = Mapping[str, Any]

OSCILLATION_COSINE: Final = -0.2
OSCILLATION_ROUNDS: Final = 3


def find_alarms(before: Sequence[Record], record: Record, budget_mb: float | None) -> list[dict[str, str]]:
    """Alarms of one round.

    Args:
        before: records of the rounds before it.
        record: its own, complete but for the alarms.
        budget_mb: what a site may upload in a round, in 10⁶ bytes; None for no budget.

    Returns:
        Maps with `kind`, `what` (what was seen) and `cause` (what is likely, and what to do).
    """
    alarms = []
    turns = [r.get("turn") for r in (*before, record)][-OSCILLATION_ROUNDS:]
    if len(turns) == OSCILLATION_ROUNDS and all(t is not None and t < OSCILLATION_COSINE for t in turns):
        alarms.append(
            _alarm(
                "oscillation",
                f"the mean update has turned back on the last one for {OSCILLATION_ROUNDS} rounds "
                f"(cosine {record['turn']:.2f})",
                "control variates out of step, lr too large, or the proximal weight too small: "
                "lower local.lr or the server's lr, or raise local.prox_mu",
            )
        )
    for lost in record["lost_variates"]:
        alarms.append(
            _alarm(
                "variates",
                lost,
                "a new epoch began: all variates start from zero, at the cost of about one round",
            )
        )
    largest = max(record["bytes_up"].values(), default=0) / 1e6
    if budget_mb is not None and largest > budget_mb:
        alarms.append(
            _alarm(
                "upload over budget",
                f"a site uploaded {largest:.2f} MB, the budget is {budget_mb:g} MB",
                "backbone weights in the message, too many bits, or too large a cohort for one ring: "
                "compare the schema's size with adapters and heads, lower codec.bits, or split the cohort",
            )
        )
    if record.get("rolled_back"):
        alarms.append(
            _alarm(
                "votes",
                f"{record['objections']} of {record['voters']} sites voted against round {record['rolled_back']}, "
                "and it was taken back",
                "a site sent a harmful update within the clipping norm, or the steps are too large",
            )
        )
    if record.get("too_large"):
        alarms.append(
            _alarm(
                "sum too large",
                f"the mean update has norm {record['update_norm']:.3g}, clipped updates cannot exceed {record['norm_bound']:.3g}",
                "a site does not clip: the round was left out; find it by leaving sites out in turn",
            )
        )
    return alarms


def _alarm(kind: str, what: str, cause: str) -> dict[str, str]:
    return {"kind": kind, "what": what, "cause": cause}
