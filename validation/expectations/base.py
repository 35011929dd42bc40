"""The seam between our rules and Great Expectations: a rule over the whole table, with the rows that break it.

GX's own column expectations look at one value at a time. Leakage, duplicates and counts need the table, so a
`TableExpectation` depends on one metric, the batch itself, and a subclass writes only `offending`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd

from validation.gx import (
    BatchExpectation,
    MetricDomainTypes,
    PandasExecutionEngine,
    TableMetricProvider,
    metric_value,
)

CLIP_TABLE = "table.cryfed_clips"
NO_PART = ""


class ClipTable(TableMetricProvider):
    """The metric: the batch as the data frame that it is."""

    metric_name = CLIP_TABLE

    @metric_value(engine=PandasExecutionEngine)
    def _pandas(
        cls,  # noqa: N805 - GX calls metric functions with the class
        execution_engine: PandasExecutionEngine,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],  # noqa: ARG002
        metrics: dict[str, Any],  # noqa: ARG002
        runtime_configuration: dict[str, Any],  # noqa: ARG002
    ) -> pd.DataFrame:
        table, _, _ = execution_engine.get_compute_domain(
            metric_domain_kwargs, domain_type=MetricDomainTypes.TABLE
        )
        return table


class TableExpectation(BatchExpectation):
    """A rule over the whole table. Subclasses declare their parameters as fields and in `success_keys`."""

    metric_dependencies: ClassVar[tuple[str, ...]] = (CLIP_TABLE,)
    domain_keys: ClassVar[tuple[str, ...]] = ("batch_id",)
    success_keys: ClassVar[tuple[str, ...]] = ()
    library_metadata: ClassVar[dict[str, Any]] = {"maturity": "PRODUCTION", "tags": ["cryfed"]}

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        """The rows that break the rule, as a boolean mask (n,), and what was found in one phrase.

        A rule may be broken without any row to blame (no site at all): then the mask is all False and the phrase is not empty.
        The phrase is empty exactly when the rule holds.
        """
        raise NotImplementedError

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,  # noqa: ARG002
        execution_engine: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        table = metrics[CLIP_TABLE]
        mask, found = self.offending(table)
        paths = table.loc[mask, "path"].tolist()
        return {
            "success": not found,
            "result": {
                "observed_value": found or "as expected",
                "element_count": len(table),
                "unexpected_count": len(paths),
                "unexpected_percent": 100.0 * len(paths) / max(len(table), 1),
                "unexpected_index_list": [{"path": path} for path in paths],
            },
        }


def enumerate_some(names: list[str], limit: int = 5) -> str:
    """`a, b, c and 4 more`, for messages."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def is_cry(table: pd.DataFrame) -> pd.Series:
    """Rows on the cry side of the gate."""
    return table["role"] == "cry"


def is_other(table: pd.DataFrame) -> pd.Series:
    """Rows on the other side: rejected uploads, noise; unlabelled rows are on neither."""
    return table["role"].isin(["ood_noncry", "noise"])


def at_site(table: pd.DataFrame) -> pd.Series:
    """Rows of some site; an empty site is public audio."""
    return table["site"] != ""
