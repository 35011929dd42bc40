"""Logs of four versions, read for what they say."""

from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.edge.tensorrt import logs
from infra.edge.tensorrt.commands import Version
from infra.edge.tensorrt.errors import BuildFailed
from infra.edge.tensorrt.logs import LayerTime
from infra.edge.tensorrt.plan import BuildPlan
from tests.infra.edge.tensorrt import logs_of


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (logs_of.V82, Version(8, 2, 1)),
        (logs_of.V85, Version(8, 5, 2)),
        (logs_of.V103, Version(10, 3, 0)),
        (logs_of.V11, Version(11, 1, 0)),
    ],
)
def test_version_and_verdict(text: str, version: Version) -> None:
    assert logs.version_of(text) == version
    logs.require_passed(text, 0)
    with pytest.raises(BuildFailed, match="ended with code 1"):
        logs.require_passed(text, 1)


def test_a_refusal_says_what_trtexec_said() -> None:
    with pytest.raises(
        BuildFailed, match=r"code 1, FAILED: Unknown option: --workspace 2048; Unknown option: --buildOnly$"
    ):
        logs.require_passed(logs_of.FAILED, 1)
    # an exit code of 0 alone is no proof
    with pytest.raises(BuildFailed, match="FAILED"):
        logs.require_passed(logs_of.FAILED, 0)
    with pytest.raises(BuildFailed, match="without a verdict"):
        logs.require_passed("Segmentation fault", -11)
    with pytest.raises(BuildFailed, match="code 0, RUNNING"):
        logs.require_passed(logs_of.V85[:400], 0)
    with pytest.raises(BuildFailed, match="no banner"):
        logs.version_of("bash: trtexec: command not found")


def test_latency_as_printed() -> None:
    old, new = logs.latency_of_summary(logs_of.V82), logs.latency_of_summary(logs_of.V85)
    assert (old.p50, old.p95, old.mean) == (13.7999, 14.1121, 13.8259)
    assert math.isnan(old.p99)  # 8.2 prints one percentile
    assert new == (10.7851, 10.938, 10.956, 10.7824, 0)
    assert logs.latency_of_summary(logs_of.V11).p99 == 0.412598
    assert logs.summary(logs_of.V82)["End-to-End Host Latency"]["median"] == 13.8109
    assert logs.summary(logs_of.V82)["GPU Compute Time"]["p95"] == 14.0803
    with pytest.raises(BuildFailed, match="printed no latency"):
        logs.latency_of_summary(logs_of.FAILED)


def test_latency_of_single_queries() -> None:
    values = [float(v) for v in range(1, 101)]
    for old in (False, True):
        found = logs.latency_of_times(logs_of.times(values, old=old).encode(), 500)
        assert (found.p50, found.p95, found.mean, found.queries) == (50.5, pytest.approx(95.05), 50.5, 100)
        assert found.p99 == pytest.approx(np.percentile(values, 99))


def test_warm_up_of_8_2_does_not_count() -> None:
    found = logs.latency_of_times(logs_of.times([2.0, 2.0, 2.0], warm_up=20, old=True).encode(), 500)
    assert found == (2.0, 2.0, 2.0, 2.0, 3)
    with pytest.raises(BuildFailed, match="no query after the warm-up"):
        logs.latency_of_times(logs_of.times([], warm_up=20).encode(), 500)


def test_tables_of_layers() -> None:
    assert logs.layers_of_table(logs_of.V82) == [
        LayerTime("/net/front_end/Conv", 1.0),
        LayerTime("PWN(PWN(/net/denoiser/act/Erf), /net/denoiser/act/Mul)", 0.5),
    ]
    copy, foreign = logs.layers_of_table(logs_of.V85)
    assert copy == ("Reformatting CopyNode for Input Tensor 0 to /net/front_end/Conv", 0.0543)
    assert foreign.mean_ms == 16.4724
    for text in (logs_of.V103, logs_of.V11):
        fused, myelin = logs.layers_of_table(text)
        assert fused == (
            "/net/transformer/blocks.0/ff1/MatMul + /net/transformer/blocks.0/ff1/Add",
            0.8925,
        )
        assert myelin == ("__myl_MulAdd_myl0_3", 0.0043)
    assert logs.layers_of_table(logs_of.FAILED) == []


def test_time_by_component(tiny_plan: BuildPlan) -> None:
    layers = logs.layers_of_profile(logs_of.PROFILE.encode())
    assert len(layers) == 7
    found = logs.by_component(layers, tiny_plan.components)
    assert found == {
        "log_mel": pytest.approx(1.1),  # with the copy in front of it
        "denoiser": 0.5,
        "tokenizer": 0.0,
        "transformer": 4.0,
        "heads": 0.2,
        "shared": 0.3,  # fused over a border: nobody knows how it divides
        "other": 0.05,
    }
    assert sum(found.values()) == pytest.approx(sum(layer.mean_ms for layer in layers))


def test_names_are_whole() -> None:
    nodes = {"log_mel": ("/a/Add",), "heads": ("/a/Add_1",)}
    found = logs.by_component([LayerTime("/a/Add_1", 1.0), LayerTime("/a/Add_2", 2.0)], nodes)
    assert (found["log_mel"], found["heads"], found["other"]) == (0.0, 1.0, 2.0)


def test_outputs_and_what_c_streams_make_of_nan() -> None:
    text = '[ { "name" : "a" , "dimensions" : "1x3" , "values" : [ 0.5, nan, -inf ] } , { "name" : "b", "values" : [ 1 ] } ]'
    found = logs.outputs_of(text.encode())
    assert found["b"] == [1.0]
    assert found["a"][0] == 0.5
    assert math.isnan(found["a"][1])
    assert found["a"][2] == -math.inf


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[", b"{}", b"[" * 100_000, b'[ { "name" : "a" } ]', b'[ { "name" : "a", "values" : [ "x" ] } ]',
        b'[ { "name" : "a", "values" : [ true ] } ]', b'[ 1 ]', b"\xff" * 40,
        b'[ { "name" : "a", "values" : [] }, { "name" : "a", "values" : [] } ]',
    ],
)  # fmt: skip
def test_files_that_are_no_answer(data: bytes) -> None:
    with pytest.raises(BuildFailed):
        logs.outputs_of(data)
    with pytest.raises(BuildFailed):
        logs.latency_of_times(data, 500)
    with pytest.raises(BuildFailed):
        logs.layers_of_profile(data)


def test_latencies_that_are_none() -> None:
    for value in ("-1.0", "nan", "inf"):
        text = f'[ {{ "startComputeMs" : 600, "latencyMs" : {value} }} ]'
        with pytest.raises(BuildFailed, match="negative or not finite"):
            logs.latency_of_times(text.encode(), 500)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], q: float) -> None:
    assert logs.quantile(sorted(values), q) == pytest.approx(
        float(np.quantile(values, q)), rel=1e-9, abs=1e-9
    )


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=300))
def test_no_text_breaks_the_parsers(text: str) -> None:
    logs.summary(text), logs.layers_of_table(text), logs.errors_of(text)
    logs.layers_of_table("=== Profile (1 iterations ) ===\n" + text)
    with contextlib.suppress(BuildFailed):
        logs.outputs_of(json.dumps([text]).encode() + text.encode("utf-8", "replace"))
