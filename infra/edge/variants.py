"""What travels in a bundle beside `model.onnx` so that a device can build an engine: both files follow from the graph alone.

- `tensorrt.json`       which layers stay in FP32, and the graph's inputs, outputs and components (`infra.edge.tensorrt.plan`)
- `model.typed.onnx`    the graph with its precisions written into it, for TensorRT 11 (`infra.edge.tensorrt.typed`)

They are made on the host because a device has no ONNX library, and because the bundle's manifest then vouches for them.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from infra.edge.bundle import Bundle
from infra.edge.release import MODEL_NAME
from infra.edge.tensorrt.plan import PLAN_NAME
from infra.edge.tensorrt.precision import plan_of
from infra.edge.tensorrt.typed import typed_graph
from models.errors import BundleError, OutputError

TYPED_NAME = "model.typed.onnx"


def device_files(graph: Path) -> dict[str, bytes]:
    """Name → bytes, for a graph that `check_graph` has accepted; the same graph gives the same bytes.

    Raises:
        ExportError: not a graph of ours, or a weight that FP16 cannot hold.
    """
    model = onnx.load(str(graph), load_external_data=False)
    return {
        PLAN_NAME: plan_of(model).to_json(),
        TYPED_NAME: typed_graph(model).SerializeToString(deterministic=True),
    }


def write_device_files(graph: Path, folder: Path) -> dict[str, Path]:
    """`device_files` as files of `folder`: name → path, as `write_bundle` takes them.

    Raises:
        ExportError: as `device_files`.
        OutputError: the folder cannot be written.
    """
    paths = {}
    try:
        for name, data in device_files(graph).items():
            paths[name] = folder / name
            paths[name].write_bytes(data)
    except OSError as err:
        raise OutputError(f"{folder}: cannot be written ({err.strerror or err}); check its rights") from err
    return paths


def require_device_files(bundle: Bundle) -> tuple[str, ...]:
    """Hold a bundle's device files, as far as it has them, against its graph; returns their names.

    Raises:
        BundleError: one of them is not what the graph gives: devices would build something else than what was evaluated.
        ExportError: the graph is not one of ours.
    """
    present = [name for name in (PLAN_NAME, TYPED_NAME) if name in bundle.manifest.files]
    if not present:
        return ()
    expected = device_files(bundle.path(MODEL_NAME))
    for name in present:
        if bundle.read(name) != expected[name]:
            raise BundleError(
                f"{bundle.folder}: {name} is not what {MODEL_NAME} gives; export and publish anew"
            )
    return tuple(present)
