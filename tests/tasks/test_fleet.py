"""The sign-off is a signature of the clinical role for this very digest and fleet; nothing else passes for one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.fleet_devices import World, now
from infra.edge.fleet_home import FleetHome
from infra.edge.trust.documents import ReleaseDocument, SignoffDocument
from infra.edge.trust.envelope import sign
from infra.edge.trust.keys import save_key
from infra.settings import load_settings
from infra.store import embedded
from models.errors import BadSignature, Expired, KeyRevoked, NoSignOff, WrongSoftware
from tasks.fleet import check_sign_off
from tasks.runtime import Runtime, open_runtime

pytestmark = pytest.mark.slow


@pytest.fixture
def opened() -> Iterator[Runtime]:
    with open_runtime() as rt:
        yield rt
    embedded.stop_running(load_settings().work_dir)


@pytest.fixture
def world(opened: Runtime, tmp_path: Path) -> World:
    server = embedded.find_running(opened.work)
    assert server is not None
    folder = tmp_path / "devices"
    folder.mkdir()
    world = World(opened.store, server, folder, "ward", 1)
    own = opened.settings.keys_dir / "ward"
    FleetHome(own).remember(1, world.root)
    save_key(own, world.keys["fleet"][0])
    return world


def facts(release: ReleaseDocument) -> dict[str, object]:
    return {"name": release.name, "version": release.number, "digest": release.release}


def forge(world: World, at: ReleaseDocument, *, role: str = "clinical", **changes: object) -> None:
    """Put a sign-off where that of a release belongs, as whoever owns the store could."""
    document = SignoffDocument(
        **{  # type: ignore[arg-type]
            "fleet": "ward",
            "version": 1,
            "issued": now(),
            "expires": now() + timedelta(days=1),
            "release": at.release,
            "by": "Dr Example",
            "statement": "may be used on this ward",
            **changes,
        }
    )
    envelope = sign(document.payload_type(), document.to_bytes(), world.keys[role])  # type: ignore[index]
    world.store.put(f"fleets/ward/signoffs/{at.release}.json", envelope.to_bytes())


def test_only_a_clinical_signature_for_this_release_and_fleet_counts(world: World) -> None:
    signed, release = world.publish(1), world.publish(2, signed_off=False)
    found = check_sign_off.fn(facts(signed), "ward")
    assert found["by"] == "Dr Example"
    assert found["keys"] == sorted(k.keyid for k in world.keys["clinical"])

    with pytest.raises(NoSignOff, match="nobody has signed off"):
        check_sign_off.fn(facts(release), "ward")
    forge(world, release, role="fleet")  # the same name in the same field, by another role
    with pytest.raises(BadSignature, match="0 valid signature"):
        check_sign_off.fn(facts(release), "ward")
    forge(world, release, release=signed.release)  # the clinician's own signature, for another release
    with pytest.raises(NoSignOff, match="the sign-off is of release"):
        check_sign_off.fn(facts(release), "ward")
    forge(world, release, fleet="other")
    with pytest.raises(WrongSoftware):
        check_sign_off.fn(facts(release), "ward")
    forge(world, release, issued=now() - timedelta(days=9), expires=now() - timedelta(days=1))
    with pytest.raises(Expired):
        check_sign_off.fn(facts(release), "ward")
    forge(world, release)
    assert check_sign_off.fn(facts(release), "ward")["statement"] == "may be used on this ward"

    world.rotate("clinical")
    with pytest.raises(KeyRevoked):
        check_sign_off.fn(facts(release), "ward")


def test_a_release_that_is_not_the_fleets_cannot_have_been_signed_off(world: World) -> None:
    with pytest.raises(NoSignOff, match="is not stated to be a release of ward"):
        check_sign_off.fn({"name": "infant-cry", "version": 7, "digest": "9" * 64}, "ward")
