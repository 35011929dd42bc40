"""dev → staging → prod: by reference, by compare-and-swap, and prod only from staging."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from infra.store import promotion, registry
from infra.store.client import ObjectStore
from infra.store.content import S3Content
from infra.store.promotion import Move, find, promote
from infra.store.registry import Release
from models.errors import ConflictError, StoreError


@pytest.fixture
def versions(content: S3Content, tmp_path: Path) -> list[Release]:
    """Three versions of `cry` and one of `other` that is the same release as `cry@2`."""
    made = []
    for text in ("one", "two", "three"):
        (tmp_path / text).write_text(text)
        manifest = {"files": {"model.onnx": {"sha256": content.put_file(tmp_path / text), "size": len(text)}}}
        made.append(registry.publish(content, manifest, "cry"))
        if text == "two":
            made.append(registry.publish(content, manifest, "other"))
    one, two, other, three = made
    return [one, two, three, other]


def test_references(store: ObjectStore, versions: list[Release]) -> None:
    one, two, three, _ = versions
    for reference, channel, expected in [
        ("1", "staging", one),
        ("latest", "staging", three),
        (None, "dev", three),
        (two.manifest_digest, "prod", two),  # of this name, although `other` has it too
    ]:
        found = find(store, "cry", reference, channel)
        assert (found.name, found.version) == ("cry", expected.version)
    promote(store, one, "dev")
    assert find(store, "cry", None, "staging").version == 1
    assert find(store, "cry", "dev", "prod").version == 1
    for reference, message in [
        (None, "channel cry-staging points at nothing yet"),
        ("9", "no release cry@9"),
        ("b" * 64, "no version of cry has the manifest bbbb"),
    ]:
        with pytest.raises(StoreError, match=message):
            find(store, "cry", reference, "prod")


def test_prod_takes_only_what_staging_holds(store: ObjectStore, versions: list[Release]) -> None:
    one, two, *_ = versions
    with pytest.raises(StoreError, match=r"cry@1 is not on cry-staging \(which points at nothing\)"):
        promote(store, one, "prod")
    promote(store, one, "staging")
    with pytest.raises(
        StoreError, match=f"cry@2 is not on cry-staging .which points at {one.manifest_digest}"
    ):
        promote(store, two, "prod")
    assert registry.get_channel(store, "cry-prod") is None
    assert promote(store, one, "prod") == Move("cry-prod", one.manifest_digest, None)
    promote(store, two, "staging")
    assert promote(store, two, "prod").previous == one.manifest_digest
    promote(store, one, "staging")  # and back
    assert promote(store, one, "prod").previous == two.manifest_digest


def test_stale_expectation_is_refused_and_a_repeated_step_is_none(
    store: ObjectStore, versions: list[Release]
) -> None:
    one, two, three, _ = versions
    assert promote(store, one, "staging", expect=promotion.NOTHING).moved
    with pytest.raises(ConflictError, match="not at nothing as expected"):
        promote(store, two, "staging", expect=promotion.NOTHING)
    assert promote(store, two, "staging", expect=one.manifest_digest).moved
    with pytest.raises(ConflictError, match=f"points at {two.manifest_digest}, not at {one.manifest_digest}"):
        promote(store, three, "staging", expect=one.manifest_digest)
    again = promote(store, two, "staging", expect=one.manifest_digest)
    assert not again.moved
    channel = registry.get_channel(store, "cry-staging")
    assert channel is not None
    assert (channel.manifest_digest, channel.serial) == (two.manifest_digest, 2)


def test_of_several_who_decide_on_the_same_state_one_is_obeyed(
    store: ObjectStore, versions: list[Release]
) -> None:
    one, two, three, _ = versions
    promote(store, one, "dev")
    obeyed: list[Release] = []

    def decide(release: Release) -> None:
        try:
            promote(store, release, "dev", expect=one.manifest_digest)
            obeyed.append(release)
        except ConflictError:
            pass

    racers = [threading.Thread(target=decide, args=(r,)) for r in [two, three] * 4]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    channel = registry.get_channel(store, "cry-dev")
    assert channel is not None
    assert channel.serial == 2
    # who asked for what had just been done was not refused; nobody else was obeyed
    assert {r.manifest_digest for r in obeyed} == {channel.manifest_digest}
