"""The gate runs by itself when data arrives: a short interval, a look at `incoming/`, the gate for what is new.

Where a run has left a drift reference, the outcome also says whether the data still looks like what that run learned from.
Most looks find nothing, so what only the gate needs is imported when there is something to gate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger

from models.errors import CryfedError, DataError, GateError
from tasks.incoming import next_announcements, record_outcome, require_unchanged
from tasks.runtime import open_runtime


@flow(name="watch", persist_result=False)
def watch() -> dict[str, int]:
    """Gate every manifest that was announced since the last look; return how many passed and how many failed.

    A verdict on the data (or on an announcement that is none) ends its announcement. A fault of ours (the store out of
    reach, a full disk) is no verdict: the announcement waits for the next look, and the others are gated all the same.

    Raises:
        CryfedError: at least one announcement could not be judged.
    """
    counts = {"passed": 0, "failed": 0}
    unjudged: list[str] = []
    with open_runtime():
        for item in next_announcements():
            try:
                outcome = _judge(item)
                record_outcome(item["name"], outcome)
                counts["passed" if outcome["passed"] else "failed"] += 1
            except Exception as err:
                get_run_logger().exception("announcement %s could not be judged", item["name"])
                unjudged.append(f"{item['name']}: {err}")
    if unjudged:
        raise CryfedError(
            f"{len(unjudged)} announcements could not be judged and wait for the next look:\n"
            + "\n".join(unjudged)
        )
    return counts


def _judge(item: dict[str, str]) -> dict[str, Any]:
    if item["fault"]:
        return {"passed": False, "error": item["fault"]}
    from flows.gate import gate
    from flows.parameters import GateParameters

    manifest = {"manifest": item["manifest"]}
    try:
        require_unchanged(item["manifest"], item["digest"])
        return {**manifest, "passed": True, **gate(GateParameters(manifest=Path(item["manifest"])))}
    except (DataError, GateError) as err:
        return {**manifest, "passed": False, "error": str(err)}
