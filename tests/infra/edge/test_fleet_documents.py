"""A fleet's documents in a real store: conditional writes, rotation, and a store that is not on our side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from infra.edge.bundle import Bundle
from infra.edge.fleet_documents import FleetDocuments
from infra.edge.fleet_signing import (
    change_inventory,
    first_root,
    holding,
    missing_signatures,
    next_root,
    set_desired,
    sign_off,
    sign_root,
    state_release,
)
from infra.edge.trust.documents import (
    ROLES,
    DesiredDocument,
    Inventory,
    InventoryDevice,
    ReleaseDocument,
    Ring,
)
from infra.edge.trust.envelope import Envelope, sign
from infra.edge.trust.trusted import Device, TrustedFleet, TrustedRoot
from infra.store.client import ObjectStore
from infra.store.content import S3Content
from infra.store.registry import Release
from models.errors import (
    BadSignature,
    ConfigError,
    ConflictError,
    Expired,
    KeyFileError,
    KeyRevoked,
    StoreError,
)
from tests.fleets import FLEET, NOW, desired, envelope, key, root, signed
from tests.releases import publish

KEYS = [key(f"{role}-1") for role in ROLES]
RING = Ring(release="ab" * 32, devices=("device-1",))


@pytest.fixture
def documents(store: ObjectStore) -> FleetDocuments:
    return FleetDocuments(store, FLEET)


@pytest.fixture
def trust(documents: FleetDocuments) -> TrustedRoot:
    """Root 1, written."""
    return documents.create_root(envelope(root(), "root-1"), before=None, now=NOW)


@pytest.fixture
def published(store: ObjectStore, tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Release:
    return publish(S3Content(store, tmp_path / "cache"), make_bundle())


FIRST = signed(root(), "root-1")


def test_roots_are_written_once_and_followed(documents: FleetDocuments, trust: TrustedRoot) -> None:
    again = documents.create_root(Envelope.parse(documents.root(1) or b""), before=None, now=NOW)
    assert again.root == trust.root  # a lost answer is no conflict
    with pytest.raises(ConflictError, match="root 1 of ward-a was written by another"):
        documents.create_root(envelope(root(days=9), "root-1"), before=None, now=NOW)
    new = next_root(
        trust.root, "release", retire=[key("release-1").keyid], add=[key("release-2").public], now=NOW
    )
    with pytest.raises(BadSignature):
        documents.create_root(sign_root(new, [key("release-1")]), before=trust, now=NOW)
    assert documents.root(2) is None
    after = documents.create_root(sign_root(new, [key("root-1")]), before=trust, now=NOW)
    assert (trust.root.version, after.root.version) == (1, 2)
    found = documents.trust(FIRST, now=NOW)
    assert found.root == after.root == new
    assert [k.keyid for k in found.root.role_keys("release")] == [key("release-2").keyid]
    with pytest.raises(StoreError, match="has version 1"):
        documents.create_root(envelope(root(2), "root-1"), before=None, now=NOW)
    with pytest.raises(Expired):
        documents.create_root(sign_root(new, [key("root-1")]), before=trust, now=NOW + timedelta(days=400))


def test_a_root_of_two_holders_is_signed_in_turn(documents: FleetDocuments) -> None:
    pair = [key("root-1"), key("root-2")]
    first = root(root=["root-1", "root-2"])
    trust = documents.create_root(sign_root(first, pair), before=None, now=NOW)
    new = next_root(first, "root", retire=[pair[0].keyid], add=[key("root-3").public], now=NOW)
    draft = sign_root(new, [pair[0]])
    assert missing_signatures(draft, first, new) == {
        1: (1, [pair[1].keyid]),
        2: (2, sorted([pair[1].keyid, key("root-3").keyid])),
    }
    draft = sign_root(Envelope.parse(draft.to_bytes()), [pair[1]])
    assert missing_signatures(draft, first, new) == {2: (1, [key("root-3").keyid])}
    with pytest.raises(BadSignature):
        documents.create_root(draft, before=trust, now=NOW)
    draft = sign_root(draft, [key("root-3")])
    assert missing_signatures(draft, first, new) == {}
    assert documents.create_root(draft, before=trust, now=NOW).root == new


def test_roots_that_could_not_sign_are_not_made() -> None:
    holders = {role: [key(f"{role}-1").public] for role in ROLES}
    with pytest.raises(ConfigError, match="role root: 2 signatures of 1 keys"):
        first_root(FLEET, holders, {**dict.fromkeys(ROLES, 1), "root": 2}, now=NOW)
    made = first_root(FLEET, holders, dict.fromkeys(ROLES, 1), now=NOW)
    assert made.version == 1
    assert made.roles == root().roles
    with pytest.raises(ConfigError, match="does not hold the role clinical"):
        next_root(made, "clinical", retire=[key("fleet-1").keyid], now=NOW)
    with pytest.raises(ConfigError, match="not possible"):
        next_root(made, "clinical", retire=[key("clinical-1").keyid], now=NOW)
    longer = next_root(made, now=NOW + timedelta(days=300))
    assert (longer.version, longer.roles, longer.keys) == (2, made.roles, made.keys)
    assert longer.expires > made.expires
    with pytest.raises(ConfigError, match="cannot say that"):
        first_root("Ward A", holders, dict.fromkeys(ROLES, 1), now=NOW)


def test_a_published_release_reaches_a_device(
    documents: FleetDocuments, trust: TrustedRoot, published: Release
) -> None:
    """Publisher and device agree: what the one writes, the other accepts, up to the manifest's bytes."""
    digest = published.manifest_digest
    made = state_release(documents, trust, published, KEYS, hardware=("any",), now=NOW)
    assert (made.name, made.number, made.version) == ("infant-cry", 1, 1)
    sign_off(documents, trust, digest, KEYS, by="Dr A", statement="Read the report; fit for ward A.", now=NOW)
    set_desired(documents, trust, [Ring(release=digest, devices=("device-1",))], KEYS, now=NOW)

    view = TrustedFleet(FIRST, FLEET, Device("device-1", "jetson-nano"), now=NOW)
    store = documents.store
    assert view.update_desired(store.get(f"fleets/{FLEET}/desired.json")) is not None
    view.update_release(store.get(f"fleets/{FLEET}/releases/{digest}.json"))
    view.update_signoff(store.get(f"fleets/{FLEET}/signoffs/{digest}.json"))
    assert view.update_manifest(store.get(f"manifests/{digest}.json")).digest() == digest

    # done again, nothing changes
    assert state_release(documents, trust, published, KEYS, now=NOW + timedelta(days=1)) == made
    again = sign_off(
        documents, trust, digest, KEYS, by="Dr A", statement="Read the report; fit for ward A.", now=NOW
    )
    assert again.version == 1
    with pytest.raises(ConflictError, match=r"signoffs/.* is at version 1"):
        sign_off(documents, trust, digest, KEYS, by="Dr B", statement="I have read it too.", now=NOW)


def test_nothing_is_signed_that_is_not_there_or_not_ones_own(
    documents: FleetDocuments, trust: TrustedRoot, published: Release
) -> None:
    say = {"by": "Dr A", "statement": "Read the report.", "now": NOW}
    with pytest.raises(ConfigError, match="is not stated for ward-a"):
        sign_off(documents, trust, published.manifest_digest, KEYS, **say)
    with pytest.raises(KeyFileError, match=r"0 key\(s\) here hold the role release"):
        state_release(documents, trust, published, [key("fleet-1"), key("mallory")], now=NOW)
    with pytest.raises(StoreError, match="no object manifests"):
        state_release(documents, trust, Release("infant-cry", 1, "0" * 64), KEYS, now=NOW)
    state_release(documents, trust, published, KEYS, now=NOW)
    for bad in ({"by": ""}, {"statement": "ok"}, {"statement": "x" * 20_000}):
        with pytest.raises(ConfigError, match="cannot say that"):
            sign_off(documents, trust, published.manifest_digest, KEYS, **{**say, **bad})
    assert holding(KEYS, trust.root, "clinical") == [key("clinical-1")]


def test_a_statement_is_renewed_when_it_lapsed_or_its_key_was_retired(
    documents: FleetDocuments, trust: TrustedRoot, published: Release
) -> None:
    digest = published.manifest_digest
    assert state_release(documents, trust, published, KEYS, now=NOW, days=10).version == 1
    later = documents.trust(FIRST, now=NOW + timedelta(days=11))
    with pytest.raises(Expired):
        documents.find_statement(later, ReleaseDocument, digest)
    assert state_release(documents, later, published, KEYS, now=NOW + timedelta(days=11)).version == 2
    new = next_root(
        later.root, "release", retire=[key("release-1").keyid], add=[key("release-2").public], now=later.now
    )
    after = documents.create_root(sign_root(new, KEYS[:1]), before=later, now=later.now)
    with pytest.raises(KeyRevoked):
        documents.find_statement(after, ReleaseDocument, digest)
    renewed = state_release(documents, after, published, [key("release-2")], now=later.now)
    assert renewed.version == 3
    found = documents.find_statement(after, ReleaseDocument, digest)
    assert found is not None
    assert found.document == renewed


def test_versions_of_the_desired_state(documents: FleetDocuments, trust: TrustedRoot) -> None:
    assert documents.find_desired(trust) is None
    with pytest.raises(ConflictError, match="at version 0, and version 2 was to follow"):
        documents.put_desired(trust, envelope(desired(2), "fleet-1"))
    assert [set_desired(documents, trust, [RING], KEYS, now=NOW).version for _ in range(3)] == [1, 2, 3]
    for version in (1, 3, 5):
        with pytest.raises(ConflictError):
            documents.put_desired(trust, envelope(desired(version), "fleet-1"))
    with pytest.raises(BadSignature):
        documents.put_desired(trust, envelope(desired(4), "release-1"))
    found = documents.find_desired(trust)
    assert found is not None
    assert found.document.version == 3
    later = documents.trust(FIRST, now=NOW + timedelta(days=60))
    with pytest.raises(Expired):
        documents.find_desired(later)
    assert set_desired(documents, later, [RING], KEYS, now=later.now).version == 4


def test_a_store_that_was_set_back_or_filled_with_rubbish(
    documents: FleetDocuments, trust: TrustedRoot
) -> None:
    place = f"fleets/{FLEET}/desired.json"
    set_desired(documents, trust, [RING], KEYS, now=NOW)
    old = documents.store.get(place)
    set_desired(documents, trust, [RING], KEYS, now=NOW)
    documents.store.put(place, old)
    # devices reported version 2: the next is 3, though the store says 1
    assert set_desired(documents, trust, [RING], KEYS, floor=2, now=NOW).version == 3
    for rubbish in (b"", b"<html>", signed(desired(9), "mallory")):
        documents.store.put(place, rubbish)
        assert documents.desired_version(trust) == 0
        assert set_desired(documents, trust, [RING], KEYS, floor=3, now=NOW).version == 4


def test_a_stolen_key_cannot_shut_its_owner_out(documents: FleetDocuments, trust: TrustedRoot) -> None:
    set_desired(documents, trust, [RING], KEYS, now=NOW)
    documents.store.put(f"fleets/{FLEET}/desired.json", signed(desired(2**53), "fleet-1"))
    new = next_root(trust.root, "fleet", retire=[key("fleet-1").keyid], add=[key("fleet-2").public], now=NOW)
    after = documents.create_root(sign_root(new, KEYS[:1]), before=trust, now=NOW)
    assert not documents.desired_binds(after)
    made = set_desired(documents, after, [RING], [key("fleet-2")], floor=1, now=NOW)
    assert made.version == 2
    found = documents.find_desired(after)
    assert found is not None
    assert found.document == made
    # within reach it counts, for devices may be there; and who knows better says so
    documents.store.put(f"fleets/{FLEET}/desired.json", signed(desired(40), "fleet-1"))
    assert set_desired(documents, after, [RING], [key("fleet-2")], version=7, now=NOW).version == 7
    documents.store.put(f"fleets/{FLEET}/desired.json", signed(desired(40), "fleet-1"))
    assert set_desired(documents, after, [RING], [key("fleet-2")], now=NOW).version == 41
    with pytest.raises(ConflictError):
        set_desired(documents, after, [RING], [key("fleet-2")], version=7, now=NOW)


def test_inventory(documents: FleetDocuments, trust: TrustedRoot, store: ObjectStore) -> None:
    assert documents.inventory(trust) is None

    def add(name: str) -> None:
        device = InventoryDevice(hardware="jetson-nano", key=key(name).public.pem)
        change_inventory(
            documents,
            trust,
            KEYS,
            lambda now: now.model_copy(update={"devices": {**now.devices, name: device}}),
        )

    for name in ("device-1", "device-2"):
        add(name)
    found = documents.inventory(trust)
    assert found is not None
    assert (found.version, sorted(found.devices)) == (2, ["device-1", "device-2"])

    def racing(now: object) -> object:
        add("device-3")
        return now

    with pytest.raises(ConflictError):
        change_inventory(documents, trust, KEYS, racing)  # type: ignore[arg-type]
    kind = Inventory.payload_type
    other = found.model_copy(update={"fleet": "b"}).to_bytes()
    store.put(f"fleets/{FLEET}/inventory.json", sign(kind, other, [key("fleet-1")]).to_bytes())
    with pytest.raises(StoreError, match="is of the fleet 'b'"):
        documents.inventory(trust)


def test_an_inventory_that_the_fleet_did_not_sign_is_refused(
    documents: FleetDocuments, trust: TrustedRoot, store: ObjectStore
) -> None:
    """Whoever owns the store would put keys of his own there, and report for every device."""
    mine = InventoryDevice(hardware="jetson-nano", key=key("thief").public.pem)
    listed = Inventory(fleet=FLEET, version=1, devices={"device-1": mine})
    kind = Inventory.payload_type
    for data in (
        listed.to_bytes(),
        sign(kind, listed.to_bytes(), [key("thief")]).to_bytes(),
        sign(kind, listed.to_bytes(), [key("release-1")]).to_bytes(),
        sign(DesiredDocument.payload_type(), listed.to_bytes(), [key("fleet-1")]).to_bytes(),
    ):
        store.put(f"fleets/{FLEET}/inventory.json", data)
        with pytest.raises(BadSignature):
            documents.inventory(trust)
        with pytest.raises(BadSignature):
            change_inventory(documents, trust, KEYS, lambda there: there)


def test_an_inventory_outlives_an_exchange_of_keys_if_a_person_says_so(
    documents: FleetDocuments, trust: TrustedRoot
) -> None:
    device = InventoryDevice(hardware="jetson-nano", key=key("device-1").public.pem)
    with pytest.raises(KeyFileError):
        change_inventory(documents, trust, [key("release-1")], lambda now: now)
    change_inventory(
        documents, trust, KEYS, lambda now: now.model_copy(update={"devices": {"device-1": device}})
    )
    after = trust.successor(signed(root(2, fleet=["fleet-2"]), "root-1"))
    with pytest.raises(KeyRevoked):
        documents.inventory(after)
    change_inventory(documents, after, [key("fleet-2")], lambda there: there, adopt=True)
    found = documents.inventory(after)
    assert found is not None
    assert (found.version, set(found.devices)) == (2, {"device-1"})


def test_reports_are_read_past_rubbish(documents: FleetDocuments, store: ObjectStore) -> None:
    documents.put_report("device-1", envelope(desired(), "device-1"))
    for junk in ("a/b.json", "x", "Ü.json", "..json"):
        store.put(f"fleets/{FLEET}/reports/{junk}", b"{}")
    store.put(f"fleets/{FLEET}/reports/device-2.json", b" " * (2 * 2**20 + 1))
    assert dict(documents.reports()) == {"device-1": signed_of(documents, "device-1")}
    with pytest.raises(StoreError, match="not a plain name"):
        documents.report("../desired")


def signed_of(documents: FleetDocuments, device: str) -> bytes:
    data = documents.report(device)
    assert data is not None
    return data


# ---- races


def race(work: Callable[[int], object], writers: int) -> list[int]:
    """Who won; every loser must have had a ConflictError."""
    won: list[int] = []
    wrong: list[BaseException] = []
    start = threading.Barrier(writers)

    def run(k: int) -> None:
        start.wait()
        try:
            work(k)
            won.append(k)
        except ConflictError:
            pass
        except BaseException as err:
            wrong.append(err)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    return won


def one_wins(documents: FleetDocuments, trust: TrustedRoot, rounds: int, writers: int = 20) -> None:
    """Desired states: `writers` at once for the same version; then sign-offs of one release."""
    documents.store.require_conditional_writes()
    begin = documents.desired_version(trust)
    for n in range(begin + 1, begin + rounds + 1):
        ready = [envelope(desired(n, days=1 + k), "fleet-1") for k in range(writers)]
        won = race(lambda k, ready=ready: documents.put_desired(trust, ready[k]), writers)
        assert len(won) == 1
        found = documents.find_desired(trust)
        assert found is not None
        assert found.data == ready[won[0]].to_bytes()
        assert found.document.version == n


def test_of_twenty_writers_one_wins(documents: FleetDocuments, trust: TrustedRoot) -> None:
    one_wins(documents, trust, rounds=1)
    ready = [envelope(root(2, days=100 + k), "root-1") for k in range(20)]
    won = race(lambda k: documents.create_root(ready[k], before=trust, now=NOW), 20)
    assert len(won) == 1
    assert documents.root(2) == ready[won[0]].to_bytes()


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_of_twenty_writers_one_wins_a_thousand_times(documents: FleetDocuments, trust: TrustedRoot) -> None:
    one_wins(documents, trust, rounds=1000)
