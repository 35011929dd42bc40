"""Digests are stable across runs and machines, so their values are written down."""

from __future__ import annotations

import pytest

from infra.digest import canonical_json, digest_file, digest_json
from models.seeds import derive_seed


def test_canonical_json_ignores_order_and_space() -> None:
    assert canonical_json({"b": 1, "a": [1, 2.5, "é"]}) == '{"a":[1,2.5,"é"],"b":1}'.encode()


def test_known_values() -> None:
    assert digest_json({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert derive_seed(7, "site03", "round", 4) == derive_seed("7", "site03", "round", "4")
    assert 0 <= derive_seed("x") < 2**63


def test_parts_cannot_run_together() -> None:
    assert derive_seed("ab", "c") != derive_seed("a", "bc")


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):
        digest_json({"x": float("nan")})


def test_file_digest_streams(tmp_path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert digest_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
