"""Command lines, spelled as each version wants them."""

from __future__ import annotations

from typing import Any

import pytest

from infra.edge.tensorrt import commands
from infra.edge.tensorrt.commands import FP16, FP32, TYPED, Version, parse_version
from infra.edge.tensorrt.plan import COMPONENTS, BuildPlan

PLAN = BuildPlan(
    input_name="waveform",
    samples=16_000,
    dynamic_batch=True,
    outputs=("gate_probability",),
    fp32_layers=("/net/a/Pow", "/net/a/Sqrt"),
    components=dict.fromkeys(COMPONENTS, ()),
)
NANO, XAVIER, ORIN, THOR = Version(8, 2, 1), Version(8, 5, 2), Version(10, 3, 0), Version(11, 1, 0)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("8.2.1", NANO),
        ("8.2.1.9", NANO),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec --help", NANO),
        ("[TensorRT v8502]", XAVIER),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b17] # trtexec", ORIN),
        ("[TensorRT v110100] [b106]", THOR),
        ("[TensorRT v11.1.0.106]", THOR),
        ("10.3", ORIN),
    ],
)
def test_versions_as_they_are_written(text: str, version: Version) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "eight", "8.2.1-rc", "[TensorRT vx]", "1.2.3.4.5", "8,2"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="holds no TensorRT version"):
        parse_version(text)


def build(version: Version, precision: str, **changes: Any) -> list[str]:
    return commands.build_command(
        "trtexec",
        version,
        PLAN,
        precision,
        model="m.onnx",
        engine="m.engine",
        timing_cache="t.cache",
        **changes,
    )


BOTH = "/net/a/Pow:fp32,/net/a/Sqrt:fp32"
SHAPES = [
    "--profilingVerbosity=detailed",
    "--minShapes=waveform:1x16000",
    "--optShapes=waveform:1x16000",
    "--maxShapes=waveform:8x16000",
]
HEAD = ["trtexec", "--onnx=m.onnx", "--saveEngine=m.engine"]
CACHE = ["--timingCacheFile=t.cache"]
OBEY = ["--fp16", "--precisionConstraints=obey", f"--layerPrecisions={BOTH}", f"--layerOutputTypes={BOTH}"]


@pytest.mark.parametrize(
    ("version", "precision", "expected"),
    [
        (NANO, FP16, [*HEAD, "--buildOnly", *CACHE, "--workspace=512", *SHAPES, "--fp16"]),
        (NANO, FP32, [*HEAD, "--buildOnly", *CACHE, "--workspace=512", *SHAPES, "--noTF32"]),
        (XAVIER, FP16, [*HEAD, "--buildOnly", *CACHE, "--memPoolSize=workspace:512", *SHAPES, *OBEY]),
        (ORIN, FP16, [*HEAD, "--skipInference", *CACHE, "--memPoolSize=workspace:512", *SHAPES, *OBEY]),
        (THOR, TYPED, [*HEAD, "--skipInference", *CACHE, "--memPoolSize=workspace:512", *SHAPES]),
        (THOR, FP32, [*HEAD, "--skipInference", *CACHE, "--memPoolSize=workspace:512", *SHAPES, "--noTF32"]),
    ],
)
def test_build(version: Version, precision: str, expected: list[str]) -> None:
    assert build(version, precision) == expected


def test_a_static_graph_gets_no_shapes() -> None:
    static = PLAN._replace(dynamic_batch=False)
    command = commands.build_command("trtexec", ORIN, static, FP32, model="m", engine="e")
    assert not [part for part in command if "Shapes" in part]
    with pytest.raises(ValueError, match="takes 1"):
        commands.run_command("trtexec", static, engine="e", inputs="i", outputs="o", batch=2)


def test_what_a_version_does_not_have() -> None:
    with pytest.raises(ValueError, match=r"older than 8\.2"):
        commands.dialect(Version(8, 0, 3))
    with pytest.raises(ValueError, match="has no precision 'fp16': choose typed or fp32"):
        build(THOR, FP16)
    with pytest.raises(ValueError, match="at least 1"):
        build(ORIN, FP16, workspace_mib=0)


def test_flags_hold_everything_but_paths() -> None:
    """Two builds differ in their flags exactly if their engines may differ."""
    flags = commands.build_flags(XAVIER, PLAN, FP16)
    assert set(flags) < set(build(XAVIER, FP16))
    assert not [flag for flag in flags if ".onnx" in flag or ".engine" in flag or ".cache" in flag]
    assert flags != commands.build_flags(XAVIER, PLAN._replace(fp32_layers=("/net/a/Pow",)), FP16)
    assert flags != commands.build_flags(XAVIER, PLAN, FP16, max_batch=4)


def test_run_and_time() -> None:
    assert commands.run_command("t", PLAN, engine="e", inputs="/w/i.bin", outputs="/w/o.json", batch=3) == [
        "t", "--loadEngine=e", "--loadInputs=waveform:/w/i.bin", "--exportOutput=/w/o.json",
        "--iterations=1", "--duration=0", "--warmUp=0", "--shapes=waveform:3x16000",
    ]  # fmt: skip
    old = commands.time_command("t", NANO, PLAN, engine="e", times="x", profile="p", seconds=5)
    new = commands.time_command("t", ORIN, PLAN, engine="e", times="x", seconds=5)
    assert "--percentile=95" in old
    assert "--percentile=50,90,95,99" in new
    assert "--exportProfile=p" in old
    assert not [part for part in new if "rofile" in part]


@pytest.mark.parametrize("path", ["", "a\0b", "a,b:c", "a'b"])
def test_paths_cannot_smuggle_inputs(path: str) -> None:
    with pytest.raises(ValueError, match="cannot be given to trtexec"):
        commands.run_command("t", PLAN, engine="e", inputs=path, outputs="o", batch=1)
