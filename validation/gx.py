"""The parts of Great Expectations that we use, imported in one place: quietly, with its telemetry off beforehand."""

from __future__ import annotations

import warnings

import infra.quiet  # noqa: F401

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # optional clouds that are not installed
    from great_expectations import (
        Checkpoint,
        ExpectationSuite,
        RunIdentifier,
        ValidationDefinition,
        get_context,
    )
    from great_expectations.core.metric_domain_types import MetricDomainTypes
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.core import (
        ExpectColumnValuesToBeBetween,
        ExpectColumnValuesToBeInSet,
        ExpectColumnValuesToBeUnique,
        ExpectColumnValuesToMatchRegex,
        ExpectColumnValuesToNotBeInSet,
    )
    from great_expectations.expectations.expectation import BatchExpectation
    from great_expectations.expectations.metrics.metric_provider import metric_value
    from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
    from great_expectations.expectations.row_conditions import Column

__all__ = [
    "BatchExpectation",
    "Checkpoint",
    "Column",
    "ExpectColumnValuesToBeBetween",
    "ExpectColumnValuesToBeInSet",
    "ExpectColumnValuesToBeUnique",
    "ExpectColumnValuesToMatchRegex",
    "ExpectColumnValuesToNotBeInSet",
    "ExpectationSuite",
    "MetricDomainTypes",
    "PandasExecutionEngine",
    "RunIdentifier",
    "TableMetricProvider",
    "ValidationDefinition",
    "get_context",
    "metric_value",
]
