"""The exported graph is the network: same numbers, same bytes every time, nothing the oldest target does not know."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from infra.edge.export import compare, export_onnx, require_agreement
from infra.edge.fuse import fuse_attention
from infra.edge.graph import check_graph
from infra.edge.runtime import Graph
from models.adapters import get_vector
from models.errors import ExportError, OutputError
from models.network import CryNet

Waves = npt.NDArray[np.float32]
Make = Callable[..., CryNet]


@pytest.mark.parametrize(
    ("name", "n_mels", "causal"),
    [("tiny", 64, False), ("tiny", 128, False), ("tiny", 64, True), ("compact", 64, False)],
)
def test_agrees_with_torch(
    tmp_path: Path, stirred: Make, waves: Waves, name: str, n_mels: int, causal: bool
) -> None:
    net = stirred(name, n_mels=n_mels, causal=causal)
    operators = export_onnx(net, tmp_path / "model.onnx")
    assert compare(tmp_path / "model.onnx", net, waves) <= 1e-4
    assert operators == check_graph(tmp_path / "model.onnx")
    assert "Conv" in operators


def test_same_network_same_bytes(tmp_path: Path, tiny_net: CryNet) -> None:
    export_onnx(tiny_net, tmp_path / "a.onnx")
    export_onnx(tiny_net, tmp_path / "elsewhere/b.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    assert data == (tmp_path / "elsewhere/b.onnx").read_bytes()
    assert str(tmp_path).encode() not in data
    assert b".py" not in data  # a source path would make the bytes depend on where the code lies


def test_adapters_are_merged_and_the_network_untouched(tmp_path: Path, stirred: Make, waves: Waves) -> None:
    net = stirred("tiny")
    net.train()
    before = get_vector(net)
    with torch.no_grad():
        expected = net(torch.from_numpy(waves[:3])).gate_logit.numpy()
    operators = export_onnx(net, tmp_path / "model.onnx")
    assert net.training
    np.testing.assert_array_equal(before, get_vector(net))
    # 2 layers of qkv, o, ff1, ff2, scores and mix, and the tokenizer's projection; unmerged there would be 24 more
    assert operators["MatMul"] == 2 * (4 + 2) + 1
    got = Graph((tmp_path / "model.onnx").read_bytes()).run(waves[:3])
    np.testing.assert_allclose(got["gate_logit"], expected, atol=1e-5)


def test_no_shape_is_computed_in_the_graph(tmp_path: Path, tiny_net: CryNet) -> None:
    """All sizes but the batch are constants: a parser that mistrusts shape tensors has none to mistrust."""
    operators = export_onnx(tiny_net, tmp_path / "model.onnx")
    assert not {"Shape", "Gather", "Cast", "Concat", "Range", "ConstantOfShape"} & set(operators)


def test_biases_of_attention_are_scaled_with_their_weights(
    tmp_path: Path, stirred: Make, waves: Waves
) -> None:
    """They start at zero, and pretraining moves them."""
    net = stirred("tiny")
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith((".q.bias", ".k.bias", ".v.bias", ".o.bias")):
                parameter.normal_(0.0, 1.0, generator=generator)
    export_onnx(net, tmp_path / "model.onnx")
    assert compare(tmp_path / "model.onnx", net, waves[50:60]) <= 1e-4


def test_active_adapters_cannot_be_fused(stirred: Make) -> None:
    with pytest.raises(ExportError, match="merge them first"):
        fuse_attention(stirred("tiny"))


def test_batch_is_dynamic_and_rows_do_not_mix(tmp_path: Path, tiny_net: CryNet, waves: Waves) -> None:
    export_onnx(tiny_net, tmp_path / "model.onnx")
    graph = Graph((tmp_path / "model.onnx").read_bytes())
    together = graph.run(waves[:70])  # more than one internal batch
    for row in (0, 1, 69):
        alone = graph.run(waves[row : row + 1])
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], together[name][row], atol=1e-5)
    np.testing.assert_allclose(together["reason_probabilities"].sum(1), 1.0, atol=1e-5)
    assert np.ptp(together["gate_logit"]) > 1e-3  # the input reaches the output


def test_level_does_not_matter(tmp_path: Path, tiny_net: CryNet, waves: Waves) -> None:
    export_onnx(tiny_net, tmp_path / "model.onnx")
    graph = Graph((tmp_path / "model.onnx").read_bytes())
    loud = waves[-4:]
    np.testing.assert_allclose(
        graph.run(loud)["gate_logit"], graph.run(loud * np.float32(0.25))["gate_logit"], atol=2e-2
    )


def test_gate_alone_has_no_reason_outputs(tmp_path: Path, tiny_net: CryNet, waves: Waves) -> None:
    export_onnx(tiny_net, tmp_path / "model.onnx", reason_head=False)
    graph = Graph((tmp_path / "model.onnx").read_bytes())
    assert not graph.has_reasons
    assert set(graph.run(waves[:2])) == {"gate_probability", "gate_logit", "energy"}
    assert compare(tmp_path / "model.onnx", tiny_net, waves[:8]) <= 1e-4


def test_another_network_is_told_apart(tmp_path: Path, stirred: Make, tiny_net: CryNet, waves: Waves) -> None:
    export_onnx(tiny_net, tmp_path / "model.onnx")
    other = stirred("tiny")
    with torch.no_grad():
        other.gate_head[2].bias += 0.01
    with pytest.raises(ExportError, match=r"differ by 1\.00e-02"):
        require_agreement(tmp_path / "model.onnx", other, waves[:4])
    assert require_agreement(tmp_path / "model.onnx", tiny_net, waves[:4]) <= 1e-4
    with pytest.raises(ExportError, match="needs frames"):
        compare(tmp_path / "model.onnx", tiny_net, waves[:0])


def test_weights_that_are_not_finite_leave_nothing(tmp_path: Path, stirred: Make) -> None:
    net = stirred("tiny")
    with torch.no_grad():
        net.gate_head[0].weight[0, 0] = float("nan")
    with pytest.raises(ExportError, match=r"gate_head\.0\.weight"):
        export_onnx(net, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class _Foreign(CryNet):
    def forward(self, wave_BT: torch.Tensor):  # type: ignore[no-untyped-def]
        out = super().forward(wave_BT)
        return out._replace(energy=out.energy.round())


def test_foreign_operator_leaves_the_old_file(tmp_path: Path, tiny_net: CryNet) -> None:
    (tmp_path / "model.onnx").write_bytes(b"old")
    with pytest.raises(ExportError, match=rf"{re.escape(str(tmp_path))}/model.onnx: .* is Round"):
        export_onnx(_Foreign(tiny_net.cfg, tiny_net.reasons), tmp_path / "model.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"old"


def test_unwritable_output(tmp_path: Path, tiny_net: CryNet) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        export_onnx(tiny_net, tmp_path / "file/model.onnx")
