"""Files for devices follow from the graph, and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.edge.acceptance import require_acceptable
from infra.edge.bundle import Bundle, describe_files, write_bundle
from infra.edge.tensorrt.plan import load_plan
from infra.edge.variants import device_files, require_device_files, write_device_files
from models.errors import BundleError, OutputError
from tests.releases import make_bundle


def with_files(folder: Path, graph: Path, **altered: bytes) -> Bundle:
    """A release with its device files, some altered before they were vouched for."""
    plain = make_bundle(folder / "plain", graph)
    files = {"model.onnx": graph, **write_device_files(graph, folder)}
    for name, data in altered.items():
        files[name.replace("__", ".")].write_bytes(data)
    manifest = plain.manifest.model_copy(update={"files": describe_files(files)})
    return write_bundle(folder / "release", manifest, files)


def test_they_are_checked_before_a_channel_moves(tiny_graph: Path, tmp_path: Path) -> None:
    bundle = with_files(tmp_path, tiny_graph)
    assert require_device_files(bundle) == ("tensorrt.json", "model.typed.onnx")
    require_acceptable(bundle)
    assert load_plan(bundle.read("tensorrt.json")).outputs[0] == "gate_probability"


def test_a_release_without_them_is_one_too(tiny_graph: Path, tmp_path: Path) -> None:
    assert require_device_files(make_bundle(tmp_path / "r", tiny_graph)) == ()


@pytest.mark.parametrize("name", ["tensorrt__json", "model__typed__onnx"])
def test_one_of_another_graph_is_refused(
    tiny_graph: Path, gate_graph: Path, tmp_path: Path, name: str
) -> None:
    other = device_files(gate_graph)[name.replace("__", ".")]
    altered: dict[str, Any] = {name: other}
    with pytest.raises(BundleError, match=r"is not what model\.onnx gives"):
        require_acceptable(with_files(tmp_path, tiny_graph, **altered))


def test_same_graph_same_bytes(tiny_graph: Path) -> None:
    assert device_files(tiny_graph) == device_files(tiny_graph)


def test_unwritable(tiny_graph: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_device_files(tiny_graph, tmp_path / "missing")
