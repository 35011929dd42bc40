"""Adapters, the flat vector, and weights as arrays."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.adapters import (
    LoraLinear,
    adapter_schema,
    adapters_off,
    get_vector,
    merge_adapters,
    set_vector,
    train_only,
)
from models.config import preset
from models.errors import ConfigError, FederationError
from models.network import CryNet
from models.state import load_arrays, to_arrays

REASONS = ("a", "b", "c")


def network(seed: int = 0, *, freeze_a: bool = False) -> CryNet:
    return CryNet(replace(preset("tiny"), freeze_a=freeze_a), REASONS, seed=seed)


def test_lora_by_hand() -> None:
    """W = 0, b = 1, A = [1 2], B = [3]ᵀ, α/r = 2: y(x) = 1 + 2·3·(x1 + 2·x2), so y(1, 1) = 19."""
    layer = LoraLinear(2, 1, rank=1, alpha=2.0)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(1.0)
        layer.lora_a.copy_(torch.tensor([[1.0, 2.0]]))
        layer.lora_b.copy_(torch.tensor([[3.0]]))
        assert layer(torch.ones(1, 2)).item() == 19.0
        layer.merge()
        layer.merge()
        assert layer(torch.ones(1, 2)).item() == 19.0


def test_adapters_start_as_nothing_and_merge_exactly() -> None:
    net = network()
    tokens = torch.randn(4, net.cfg.n_tokens, net.cfg.d_model)
    theta = get_vector(net)
    rng = np.random.default_rng(0)
    set_vector(net, (theta + 0.05 * rng.standard_normal(theta.shape)).astype(np.float32))
    merged = copy.deepcopy(net)
    merge_adapters(merged)
    with torch.no_grad():
        torch.testing.assert_close(
            merged.classify(tokens).reason_logits, net.classify(tokens).reason_logits, atol=1e-5, rtol=1e-5
        )


def test_adapters_off_is_the_backbone_alone_and_comes_back() -> None:
    net = network()
    tokens = torch.randn(2, net.cfg.n_tokens, net.cfg.d_model)
    with torch.no_grad():
        bare = net.features(tokens)  # B is zero: the adapters do nothing yet
        theta = get_vector(net)
        set_vector(
            net, (theta + 0.05 * np.random.default_rng(0).standard_normal(theta.shape)).astype(np.float32)
        )
        adapted = net.features(tokens)
        with adapters_off(net):
            torch.testing.assert_close(net.features(tokens), bare)
        torch.testing.assert_close(net.features(tokens), adapted)
    assert not torch.allclose(adapted, bare, atol=1e-3)


def test_adapters_off_leaves_merged_layers_merged() -> None:
    net = network()
    merge_adapters(net)
    with adapters_off(net):
        pass
    assert not [m for m in net.modules() if isinstance(m, LoraLinear) and m.active]


def test_vector_round_trip_and_order() -> None:
    net, other = network(1), network(2)
    theta = get_vector(net)
    set_vector(other, theta)
    np.testing.assert_array_equal(get_vector(other), theta)
    schema = adapter_schema(net)
    name = "transformer.blocks.1.ff2.lora_a"
    expected = dict(net.named_parameters())[name].detach().numpy().reshape(-1)
    np.testing.assert_array_equal(theta[schema.slices()[name]], expected)
    assert schema.size == theta.size


def test_vector_is_a_copy() -> None:
    net = network()
    theta = get_vector(net)
    theta[:] = 7.0
    assert not (get_vector(net) == 7.0).any()


def test_freeze_a_sends_only_b_and_heads() -> None:
    net, ffa = network(), network(freeze_a=True)
    names = [e.name for e in adapter_schema(ffa).entries]
    assert not [n for n in names if n.endswith("lora_a")]
    assert adapter_schema(ffa).size < adapter_schema(net).size
    assert adapter_schema(ffa).digest != adapter_schema(net).digest


def test_schema_digest_depends_on_layout_alone() -> None:
    assert adapter_schema(network(1)).digest == adapter_schema(network(2)).digest
    more = CryNet(preset("tiny"), (*REASONS, "d"))
    assert adapter_schema(more).digest != adapter_schema(network()).digest


@pytest.mark.parametrize("spoil", ["short", "dtype", "nan"])
def test_bad_vectors_are_refused(spoil: str) -> None:
    net = network()
    theta = get_vector(net)
    bad: np.ndarray = {"short": theta[:-1], "dtype": theta.astype(np.float64), "nan": theta.copy()}[spoil]
    if spoil == "nan":
        bad[3] = np.nan
    with pytest.raises(FederationError, match="first at 3" if spoil == "nan" else "needs float32"):
        set_vector(net, bad)
    np.testing.assert_array_equal(get_vector(net), theta)


def test_only_adapters_and_heads_train() -> None:
    net = network()
    train_only(net)
    grads = [n for n, p in net.named_parameters() if p.requires_grad]
    assert grads == [e.name for e in adapter_schema(net).entries]


def test_arrays_round_trip_and_partition() -> None:
    net, other = network(1), network(2)
    frozen, trained, everything = (to_arrays(net, w) for w in ("frozen", "trained", "all"))
    assert set(frozen) | set(trained) == set(everything)
    assert not set(frozen) & set(trained)
    load_arrays(other, everything)
    for (name, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("spoil", ["missing", "extra", "shape", "inf"])
def test_bad_weights_are_refused_whole(spoil: str) -> None:
    net = network(1)
    arrays = to_arrays(network(2))
    name = "tokenizer.project.weight"
    if spoil == "missing":
        del arrays[name]
    elif spoil == "extra":
        arrays["surprise"] = np.zeros(1, dtype=np.float32)
    elif spoil == "shape":
        arrays[name] = arrays[name][1:]
    else:
        arrays[name][0, 0] = np.inf
    before = to_arrays(net)
    with pytest.raises(ConfigError, match="surprise" if spoil == "extra" else name):
        load_arrays(net, arrays)
    for key, value in to_arrays(net).items():
        np.testing.assert_array_equal(value, before[key])
