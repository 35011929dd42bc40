"""TensorRT engines: built on the device from the release's graph, accepted on golden clips, kept under what they depend on.

| file | runs on | what |
|---|---|---|
| `commands` | device | `trtexec` command lines by TensorRT version |
| `plan` | device | what a device cannot find out without ONNX tools: layers for FP32, components, shapes |
| `logs` | device | versions, refusals, latency and profiles out of what `trtexec` prints and writes |
| `parity` | device | whether an engine agrees with the reference |
| `cache` | device | engines under everything that they depend on |
| `build` | device | all of these: the fastest engine that agrees |
| `precision` | host | which nodes of the graph must not run in FP16 |
| `typed` | host | the graph with its precisions written into it, for TensorRT 11 |
| `rtx` | host | a real parser and builder, without a GPU |

What runs on the device is standard library only, in the syntax and with the library of Python 3.6 (JetPack 4.6).
"""
