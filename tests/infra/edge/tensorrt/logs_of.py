# ruff: noqa: E501, W291
"""Output and files of `trtexec` in the formats of its versions, for layers of our own names.

Written after `samples/common/sampleReporting.cpp` of each version and published logs; the numbers are made up.
"""

from __future__ import annotations

V82 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # /usr/src/tensorrt/bin/trtexec --loadEngine=m.engine --percentile=95
[05/18/2023-21:52:15] [I] === Trace details ===
[05/18/2023-21:52:15] [I] Average on 10 runs - GPU latency: 13.6963 ms - Host latency: 13.8259 ms (end to end 13.8394 ms, enqueue 7.35561 ms)
[05/18/2023-21:52:15] [I] 
[05/18/2023-21:52:15] [I] === Performance summary ===
[05/18/2023-21:52:15] [I] Throughput: 72.2544 qps
[05/18/2023-21:52:15] [I] Latency: min = 13.7075 ms, max = 14.8861 ms, mean = 13.8259 ms, median = 13.7999 ms, percentile(95%) = 14.1121 ms
[05/18/2023-21:52:15] [I] End-to-End Host Latency: min = 13.7175 ms, max = 14.9229 ms, mean = 13.8394 ms, median = 13.8109 ms, percentile(95%) = 14.331 ms
[05/18/2023-21:52:15] [I] Enqueue Time: min = 6.08826 ms, max = 9.51123 ms, mean = 7.35561 ms, median = 7.19287 ms, percentile(95%) = 9.19573 ms
[05/18/2023-21:52:15] [I] H2D Latency: min = 0.117554 ms, max = 0.13623 ms, mean = 0.120202 ms, median = 0.119202 ms, percentile(95%) = 0.128906 ms
[05/18/2023-21:52:15] [I] GPU Compute Time: min = 13.5784 ms, max = 14.7576 ms, mean = 13.6963 ms, median = 13.6698 ms, percentile(95%) = 14.0803 ms
[05/18/2023-21:52:15] [I] D2H Latency: min = 0.00830078 ms, max = 0.0100708 ms, mean = 0.00940053 ms, median = 0.00939941 ms, percentile(95%) = 0.0100098 ms
[05/18/2023-21:52:15] [I] Total Host Walltime: 3.03096 s
[05/18/2023-21:52:15] [I] Total GPU Compute Time: 2.99948 s
[05/18/2023-21:52:15] [I] Explanations of the performance metrics are printed in the verbose logs.
[05/18/2023-21:52:15] [I] 
[05/18/2023-21:52:15] [I] 
[05/18/2023-21:52:15] [I] === Profile (219 iterations ) ===
[05/18/2023-21:52:15] [I]                                                   Layer   Time (ms)   Avg. Time (ms)   Time %
[05/18/2023-21:52:15] [I]                                     /net/front_end/Conv      219.00           1.0000     20.0
[05/18/2023-21:52:15] [I]  PWN(PWN(/net/denoiser/act/Erf), /net/denoiser/act/Mul)      109.50           0.5000     10.0
[05/18/2023-21:52:15] [I]                                                   Total      328.50           1.5000    100.0
[05/18/2023-21:52:15] [I] 
&&&& PASSED TensorRT.trtexec [TensorRT v8201] # /usr/src/tensorrt/bin/trtexec --loadEngine=m.engine --percentile=95
"""

V85 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --loadEngine=m.engine --percentile=50,90,95,99
[02/26/2024-10:43:06] [I] === Performance summary ===
[02/26/2024-10:43:06] [I] Throughput: 96.8742 qps
[02/26/2024-10:43:06] [I] Latency: min = 10.5343 ms, max = 10.9575 ms, mean = 10.7824 ms, median = 10.7851 ms, percentile(50%) = 10.7851 ms, percentile(90%) = 10.9206 ms, percentile(95%) = 10.938 ms, percentile(99%) = 10.956 ms
[02/26/2024-10:43:06] [I] Enqueue Time: min = 1.01 ms, max = 2.2 ms, mean = 1.36227 ms, median = 1.19873 ms, percentile(50%) = 1.19873 ms, percentile(90%) = 1.9928 ms, percentile(95%) = 2.07275 ms, percentile(99%) = 2.15002 ms
[02/26/2024-10:43:06] [I] Total Host Walltime: 3.0348 s
[02/26/2024-10:43:06] [I] 
[02/26/2024-10:43:06] [I] === Profile (309 iterations ) ===
[02/26/2024-10:43:06] [I]                                                                Layer   Time (ms)   Avg. Time (ms)   Median Time (ms)   Time %
[02/26/2024-10:43:06] [I]        Reformatting CopyNode for Input Tensor 0 to /net/front_end/Conv       16.77           0.0543             0.0285      0.5
[02/26/2024-10:43:06] [I]  {ForeignNode[/net/tokenizer/project/MatMul.../net/transformer/norm/Add_1]}     5089.98          16.4724            16.4000     93.1
[02/26/2024-10:43:06] [I]                                                                Total     5106.75          16.5267            16.4285    100.0
[02/26/2024-10:43:06] [I] 
&&&& PASSED TensorRT.trtexec [TensorRT v8502] # trtexec --loadEngine=m.engine --percentile=50,90,95,99
"""

V103 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b17] # trtexec --loadEngine=m.engine
[09/25/2026-10:00:40] [I] Warmup completed 2710 queries over 1000 ms
[09/25/2026-10:00:40] [I] Timing trace has 200 queries over 0.0741 s
[09/25/2026-10:00:40] [I] === Performance summary ===
[09/25/2026-10:00:40] [I] Throughput: 2699.06 qps
[09/25/2026-10:00:40] [I] Latency: min = 0.36377 ms, max = 0.52124 ms, mean = 0.374511 ms, median = 0.372559 ms, percentile(90%) = 0.38 ms, percentile(95%) = 0.39 ms, percentile(99%) = 0.412598 ms
[09/25/2026-10:00:40] [I] 
[09/25/2026-10:00:40] [I] === Profile (3449 iterations ) ===
[09/25/2026-10:00:40] [I]    Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer
[09/25/2026-10:00:40] [I]     3078.36       0.8925       0.8929      99.5   /net/transformer/blocks.0/ff1/MatMul + /net/transformer/blocks.0/ff1/Add
[09/25/2026-10:00:40] [I]       14.82       0.0043       0.0033       0.5   __myl_MulAdd_myl0_3
[09/25/2026-10:00:40] [I]     3093.17       0.8968       0.8960     100.0   Total
[09/25/2026-10:00:40] [I] 
&&&& PASSED TensorRT.trtexec [TensorRT v100300] [b17] # trtexec --loadEngine=m.engine
"""

V11 = V103.replace("v100300] [b17]", "v110100] [b106]").replace(
    "Precision: FP16", "Precision: Strongly Typed"
)

FAILED = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx --workspace=2048 --buildOnly
[10/05/2025-10:46:31] [W] --fp16 is weakly typed
[10/05/2025-10:46:31] [E] Unknown option: --workspace 2048
[10/05/2025-10:46:31] [E] Unknown option: --buildOnly 
&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx --workspace=2048 --buildOnly
"""

PROFILE = """\
[
  { "count" : 100 }
, { "name" : "/net/front_end/Conv", "timeMs" : 100.0, "averageMs" : 1.0, "medianMs" : 0.9, "percentage" : 10.0 }
, { "name" : "Reformatting CopyNode for Input Tensor 0 to /net/front_end/Conv", "timeMs" : 10.0, "averageMs" : 0.1, "percentage" : 1.0 }
, { "name" : "PWN(PWN(/net/denoiser/act/Erf), /net/denoiser/act/Mul)", "timeMs" : 50.0, "averageMs" : 0.5, "percentage" : 5.0 }
, { "name" : "/net/tokenizer/conv1/Conv + /net/denoiser/Add_1", "timeMs" : 30.0, "averageMs" : 0.3, "percentage" : 3.0 }
, { "name" : "{ForeignNode[/net/transformer/blocks.0/norm1/ReduceMean.../net/transformer/norm/Add_1]}", "timeMs" : 400.0, "averageMs" : 4.0, "percentage" : 40.0 }
, { "name" : "/net/gate_head/gate_head.0/Gemm", "timeMs" : 20.0, "averageMs" : 0.2, "percentage" : 2.0 }
, { "name" : "__myl_MulAdd_myl0_3", "timeMs" : 5.0, "averageMs" : 0.05, "percentage" : 0.5 }
]
"""


def times(latencies: list[float], *, warm_up: int = 0, old: bool = False) -> str:
    """`--exportTimes`: one query every 20 ms; the first `warm_up` begin before 500 ms, as only 8.2 lists them."""
    rows = []
    for k, latency in enumerate([99.0] * warm_up + latencies):
        start = 20.0 * k if k < warm_up else 500.0 + 20.0 * (k - warm_up)
        end = f', "endToEndMs" : {latency}' if old else ""
        rows.append(
            f'{{ "startEnqMs" : {start}, "startComputeMs" : {start}, "computeMs" : {latency - 0.1}, '
            f'"latencyMs" : {latency}{end} }}'
        )
    return "[\n  " + "\n, ".join(rows) + "\n]\n"
