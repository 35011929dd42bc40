"""Telemetry, update checks and dependency syncs of the libraries below: off, before any of them is imported.

Import this module first in every process that we start (command line, flows, Ray workers, Flower apps, tests). Values that a
person set themselves are kept.
"""

from __future__ import annotations

import os

QUIET: dict[str, str] = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "GX_ANALYTICS_ENABLED": "false",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime reports to its maker from 1.31 on
    "TOKENIZERS_PARALLELISM": "false",
}


def apply() -> None:
    """Set what is not set yet."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)


apply()
