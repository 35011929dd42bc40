"""A metrics document like that of a run, on scores of a known make."""

from dataclasses import replace

import numpy as np
import pytest

from infra.evaluation.evaluate import evaluate
from infra.evaluation.protocol import EvaluationConfig
from models.calibration import calibrate_site
from models.frames import VAL

SITES = [f"site{k}" for k in range(8)]


def _rounds(n=30, sites=SITES, p=98_000):
    rng = np.random.default_rng(0)
    out = []
    for k in range(1, n + 1):
        f1 = 0.93 - 0.75 * np.exp(-k / 6) + 0.008 * rng.normal()
        out.append(
            {
                "round": k,
                "losses": {
                    "gate": 0.1 + 0.5 * np.exp(-k / 4),
                    "reason": 0.25 + 1.3 * np.exp(-k / 7),
                    "energy": 0.4 * np.exp(-k / 5),
                },
                "validation": {"reason_macro_f1": f1, "gate_macro_f1": min(0.99, f1 + 0.05)},
                "bytes_up": dict.fromkeys(sites, 4 * p + 300),
                "bytes_down": dict.fromkeys(sites, 4 * p + 200),
            }
        )
    return out


@pytest.fixture(scope="session")
def metrics(scores_of):
    size = {"sites": 8, "infants": 5, "cries": 6, "noncries": 10, "public": 24}
    val = scores_of(seed=9, signal=3.3, **size)
    val = replace(val, part=np.full_like(val.part, VAL))
    calibrations = {s: calibrate_site(val.select(val.site == s)) for s in SITES}
    test = scores_of(signal=3.3, snrs=(20.0, 10.0, 5.0, 0.0, -5.0), **size)
    evaluation = evaluate(
        test,
        calibrations,
        {
            "central": scores_of(signal=3.5, snrs=(), **size),
            "logistic_regression": scores_of(signal=1.8, snrs=(), **size),
            "support_vector_machine": scores_of(signal=1.6, snrs=(), **size),
        },
        config=EvaluationConfig(resamples=200),
        leaky={
            "warning": "not a result",
            "splits": 5,
            "test_share": 0.2,
            "clips": 321,
            "clips_after_oversampling": 1335,
            "systems": {
                "logistic_regression": {
                    "macro_f1": {"value": 0.987, "least": 0.98, "most": 0.99},
                    "shuffled_labels": {"value": 0.976, "least": 0.97, "most": 0.98},
                },
            },
        },
    )
    digest = "3f7a" * 16
    return {
        "run": {
            "id": "2025-01-31-142233-3f7a9c", "created": "2025-01-31T14:22:33+00:00", "seconds": 431.0,
            "release": {"name": "infant-cry", "version": 3, "digest": digest},
        },
        "data": {
            "synthetic": True, "manifest_digest": digest, "corpora": ["synth-1"],
            "synth": {"version": "1", "difficulty": 1.0, "seed": 20},
            "parts": {
                "train": {"cries": 690, "noncries": 230, "public": 72, "groups": 155},
                "val": {"cries": 230, "noncries": 77, "public": 24, "groups": 48},
                "test": {"cries": 240, "noncries": 80, "public": 24, "groups": 49},
            },
        },
        "data_gate": {
            "scope": "federation", "passed": True, "criticals": [], "rules": ["r"] * 17, "override_reason": None,
            "docs": "data_docs/index.html",
            "probe": {
                "judged": True, "signal": True, "macro_f1": 0.362, "low": 0.332, "high": 0.391, "chance": 0.2, "needed": 0.227,
                "p": 0.002, "clips": 912, "groups": 152, "draws": 499,
            },
            "warnings": [
                {"rule": "snr_estimate", "severity": "warning", "total": 12, "paths": [], "sites": {"site3": 12},
                 "message": "12 clips have an estimated SNR below 0 dB"},
            ],
        },
        "model": {"preset": "compact", "parameters": 1_023_456, "trained_parameters": 98_000, "n_mels": 64, "causal": False},
        "federation": {"sites": SITES, "parameters": 98_000, "rounds": _rounds()},
        "evaluation": evaluation,
        "export": {
            "opset": 13, "size_bytes": 4_400_000, "max_abs_diff": 3.1e-6, "clips_compared": 100,
            "latency_ms": {"p50": 3.4, "p95": 4.0},
        },
        "provenance": dict.fromkeys(("gate", "features", "pretrain", "federate", "calibrate", "evaluate", "export"), digest),
        "timings": {"corpus": 38.0, "gate": 12.5, "features": 31.0, "pretrain": 104.0, "federate": 148.0, "central": 41.0,
                    "calibrate": 6.0, "evaluate": 9.0, "export": 4.2, "publish": 1.1},
        "peak_memory_mb": 3850.0,
    }  # fmt: skip
