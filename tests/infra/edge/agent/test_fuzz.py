"""Bent documents and bundles: whatever comes, it is a refusal or what the publisher meant, and nothing else."""

from __future__ import annotations

import base64
import json
import random
import resource
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.digest import canonical_json, digest_bytes
from infra.edge.agent.documents import parse_document, parse_envelope, strict_json
from infra.edge.agent.errors import Refused
from infra.edge.agent.manifest import check_manifest
from infra.edge.agent.trusted import Trusted
from tests.infra.edge.agent.signing import seal, verify
from tests.infra.edge.agent.world import DEVICE, FLEET, HARDWARE, NOW, Publisher, bundle_files

_VALUES = [
    None, True, False, 0, -1, 1, 2**53, 2**64, 1.5, "", "x", "a" * 64, "../x", "\u0000", "\ud800", [], {}, [[]],
    "2027-01-01T00:00:00Z", "any", [DEVICE], {"sha256": "a" * 64, "size": 1},
]  # fmt: skip


class Meant:
    """One device's correct way from its root to a manifest, and how to walk a bent one."""

    def __init__(self, folder: Path) -> None:
        self.publisher = p = Publisher(folder / "store")
        p.publish_root()
        self.digest, self.manifest = p.publish_bundle(bundle_files())
        ring = {"release": self.digest, "devices": [DEVICE]}
        self.documents = {
            "root": p.root_document(2),
            "desired": p.desired_document(ring),
            "release": p.release_document(self.digest, self.manifest, 1),
            "signoff": p.signoff_document(self.digest),
            "manifest": json.loads(self.manifest),
        }
        self.signers = {"root": "root", "desired": "fleet", "release": "release", "signoff": "clinical"}
        self.bytes = {
            kind: self.manifest if kind == "manifest" else self.sealed(kind, document)
            for kind, document in self.documents.items()
        }

    def sealed(self, kind: str, document: Any) -> bytes:
        """Signed by the right role: a publisher with a bug, or a thief."""
        return seal(kind, document, self.publisher.keys[self.signers[kind]])

    def walk(self, kind: str, data: bytes) -> None:
        """All steps, one of them with other bytes.

        Raises:
            Refused: the only thing it may raise.
        """
        given = {**self.bytes, kind: data}
        trusted = Trusted(FLEET, DEVICE, HARDWARE, verify, self.publisher.root, None)
        trusted.begin(NOW)
        before = canonical_json(trusted.memory)
        try:
            trusted.add_root(given["root"])
        except Refused:
            assert canonical_json(trusted.memory) == before, "a refusal changes nothing"
            raise
        trusted.finish_roots()
        ring = trusted.add_desired(given["desired"])
        if ring is None:
            return
        trusted.add_release(given["release"], 0)
        trusted.add_signoff(given["signoff"])
        manifest = trusted.add_manifest(given["manifest"])
        for name in manifest.files:
            assert not name.startswith("/")
            assert ".." not in name.split("/")


@pytest.fixture(scope="module")
def meant(tmp_path_factory: pytest.TempPathFactory) -> Meant:
    return Meant(tmp_path_factory.mktemp("meant"))


def _bend(value: Any, rng: random.Random) -> Any:
    """A copy with one place changed, removed, doubled or added."""
    copy = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        for key in keys:
            places.append((node, key))
            collect(node[key])

    collect(copy)
    node, key = rng.choice(places)
    act = rng.randrange(4)
    if act == 0:
        node[key] = rng.choice(_VALUES)
    elif act == 1:
        del node[key]
    elif act == 2:
        if isinstance(node, dict):
            node[rng.choice(["extra", "", "\u202e", "__proto__"])] = rng.choice(_VALUES)
        else:
            node.append(rng.choice(_VALUES))
    else:
        node[key] = _mangle(node[key], rng)
    return copy


def _mangle(value: Any, rng: random.Random) -> Any:
    if isinstance(value, str) and value:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(["", "\n", "0", "é", "..", "/"]) + value[at + rng.randrange(2) :]
    if type(value) is int:
        return value + rng.choice([-1, 1, 10_000, 10_001, 2**60])
    return [value]


def _once(meant: Meant, seed: int) -> str:
    """One bent thing through all steps; how it ended."""
    rng = random.Random(seed)
    kind = rng.choice(list(meant.bytes))
    how = rng.randrange(3)
    if how == 0:  # on the way: bytes that nobody signed
        raw = bytearray(meant.bytes[kind])
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(raw))
            raw[at : at + rng.choice([0, 1, 1, 5])] = rng.randbytes(rng.choice([0, 1, 1, 3]))
        data = bytes(raw)
        same = _same(kind, data, meant)
    else:  # at the source: signed, and wrong
        document = _bend(meant.documents[kind], rng)
        try:
            body = canonical_json(document)
        except UnicodeEncodeError:
            body = json.dumps(document).encode()
        data = body if kind == "manifest" else meant.sealed(kind, body)
        same = kind != "manifest" or body == meant.manifest
    try:
        meant.walk(kind, data)
    except Refused as err:
        return err.kind
    assert same, f"seed {seed}: a {kind} that was never signed was believed"
    return "believed"


def _same(kind: str, data: bytes, meant: Meant) -> bool:
    """Whether bent bytes still say what was signed: a changed key id, say, of the second of two signatures."""
    if kind == "manifest":
        return data == meant.manifest
    try:
        return base64.b64decode(json.loads(data)["payload"]) == canonical_json(meant.documents[kind])
    except (ValueError, KeyError, TypeError):
        return False


def _sample(meant: Meant, seeds: range) -> dict[str, int]:
    counts: dict[str, int] = {}
    for seed in seeds:
        end = _once(meant, seed)
        counts[end] = counts.get(end, 0) + 1
    return counts


def test_a_thousand(meant: Meant) -> None:
    counts = _sample(meant, range(1000))
    assert sum(counts.values()) == 1000
    assert {"BadSignature", "WrongSoftware", "Extraneous", "MixAndMatch", "TooLarge"} <= set(counts), counts
    assert 0 < counts["believed"] < 300, counts


@pytest.mark.soak
def test_a_hundred_thousand_in_bounded_memory(meant: Meant) -> None:
    _sample(meant, range(5000))
    tracemalloc.start()
    _sample(meant, range(5000, 6000))
    before, _ = tracemalloc.get_traced_memory()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.stop()
    counts = _sample(meant, range(6000, 105_000))
    assert sum(counts.values()) == 99_000
    tracemalloc.start()
    _sample(meant, range(105_000, 106_000))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(after - before) < 2**20, "bytes held after a thousand more, early and late"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 64 * 1024, "KiB"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_bytes_at_all(data: bytes) -> None:
    for act in (
        lambda: parse_envelope(data, "desired", "x"),
        lambda: parse_document(data, "desired", "x"),
        lambda: check_manifest(_json_or_none(data), "x"),
    ):
        with pytest.raises(Refused):
            act()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(_json, st.sampled_from(["root", "desired", "release", "signoff", "report"]))
def test_any_json_at_all(value: Any, kind: str) -> None:
    body = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    with pytest.raises(Refused):
        parse_document(body, kind, "x")
    with pytest.raises(Refused):
        check_manifest(value, "x")


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        b"1" * 1_000_000,
        b'{"a":' * 100_000,
        b'"' + b"\\u0000" * 100_000 + b'"',
        b"1e999",
        b"NaN",
    ],
    ids=["lists", "digits", "objects", "text", "infinite", "NaN"],
)
def test_json_that_costs(data: bytes) -> None:
    with pytest.raises(Refused):
        parse_document(data, "desired", "x")


def _json_or_none(data: bytes) -> Any:
    try:
        return strict_json(data)
    except ValueError:
        return None


def test_the_walk_itself_is_believed(meant: Meant) -> None:
    for kind, data in meant.bytes.items():
        meant.walk(kind, data)
    assert digest_bytes(meant.manifest) == meant.digest
