"""Publishing: one manifest is one version, names never overwrite, channels move by compare-and-swap, pulls verify."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from infra.store import registry
from infra.store.client import ObjectStore
from infra.store.content import S3Content
from models.errors import ConflictError, IntegrityError, OutputError, StoreError


def make(content: S3Content, folder: Path, text: str = "weights", **extra: Any) -> dict[str, Any]:
    """A manifest of two files, which are put into the store."""
    files = {}
    for name, data in {"model.onnx": text, "docs/card.md": "a card"}.items():
        path = folder / name.replace("/", "_")
        path.write_text(data)
        files[name] = {"sha256": content.put_file(path), "size": len(data)}
    return {"format": "test/1", "files": files, **extra}


def test_publish_show_pull(content: S3Content, tmp_path: Path) -> None:
    manifest = make(content, tmp_path, info={"run": "run-1"})
    release = registry.publish(content, manifest, "gate")
    assert (release.version, release.created, release.info) == (1, True, {"run": "run-1"})
    assert registry.get_manifest(content.store, release.manifest_digest) == {
        k: v for k, v in manifest.items() if k != "info"
    }
    folder = registry.pull(
        S3Content(content.store, tmp_path / "elsewhere"),
        registry.resolve(content.store, "gate"),
        tmp_path / "out",
    )
    assert (folder / "model.onnx").read_text() == "weights"
    assert (folder / "docs" / "card.md").read_text() == "a card"
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert json.loads((folder / "release.json").read_text()) == {
        "manifest": release.manifest_digest,
        "name": "gate",
        "version": 1,
    }


def test_same_manifest_published_again_is_the_same_version_and_adds_no_object(
    content: S3Content, tmp_path: Path
) -> None:
    first = registry.publish(content, make(content, tmp_path, info={"run": "run-1"}), "gate")
    before = sorted((i.key, i.etag) for i in content.store.list(""))
    again = registry.publish(content, make(content, tmp_path, info={"run": "run-2"}), "gate")
    assert (again.version, again.manifest_digest, again.created) == (1, first.manifest_digest, False)
    assert again.info == {"run": "run-1"}
    assert sorted((i.key, i.etag) for i in content.store.list("")) == before

    other = registry.publish(content, make(content, tmp_path, "other weights"), "gate")
    assert (other.version, other.created) == (2, True)
    assert registry.publish(content, make(content, tmp_path), "gate").version == 1
    assert registry.publish(content, make(content, tmp_path), "another-name").version == 1


@pytest.mark.parametrize("same", [True, False], ids=["same manifest", "different manifests"])
def test_eight_publishers_at_once(content: S3Content, tmp_path: Path, same: bool) -> None:
    manifests = [make(content, tmp_path, "w" if same else f"w{i}") for i in range(8)]
    found: list[registry.Release] = []
    barrier = threading.Barrier(8)

    def publish(manifest: dict[str, Any]) -> None:
        barrier.wait()
        found.append(registry.publish(content, manifest, "gate"))

    threads = [threading.Thread(target=publish, args=(m,)) for m in manifests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    if same:
        assert sorted((r.version, r.created) for r in found) == [(1, False)] * 7 + [(1, True)]
    else:
        assert sorted((r.version, r.created) for r in found) == [(n, True) for n in range(1, 9)]
        assert len({r.manifest_digest for r in found}) == 8
    assert [r.version for r in registry.releases(content.store)] == sorted({r.version for r in found})


def test_versions_are_ordered_as_numbers(content: S3Content, tmp_path: Path) -> None:
    for i in range(11):
        registry.publish(content, make(content, tmp_path, f"w{i}"), "gate")
    assert [r.version for r in registry.releases(content.store, "gate")] == list(range(1, 12))
    assert registry.resolve(content.store, "gate").version == 11


def test_nothing_is_published_while_a_blob_is_missing(content: S3Content, tmp_path: Path) -> None:
    manifest = make(content, tmp_path)
    manifest["files"]["extra.bin"] = {"sha256": "0" * 64, "size": 1}
    with pytest.raises(StoreError, match=r"extra\.bin .* is not in the store"):
        registry.publish(content, manifest, "gate")
    assert registry.releases(content.store) == []
    assert list(content.store.list("manifests/")) == []


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "a/../../b", "a//b", "./a", "manifest.json", "release.json", "a\\b", ""],
)
def test_files_cannot_lead_out_of_the_folder(content: S3Content, tmp_path: Path, name: str) -> None:
    manifest = make(content, tmp_path)
    manifest["files"][name] = manifest["files"]["model.onnx"]
    with pytest.raises(StoreError, match=r"leads out of|is taken"):
        registry.publish(content, manifest, "gate")


def test_references(content: S3Content, tmp_path: Path) -> None:
    store = content.store
    one = registry.publish(content, make(content, tmp_path, "1"), "gate")
    two = registry.publish(content, make(content, tmp_path, "2"), "gate")
    registry.move_channel(store, "prod", one.manifest_digest, expect=None)
    assert registry.resolve(store, "gate").version == 2
    assert registry.resolve(store, "gate@1").version == 1
    assert registry.resolve(store, "channel:prod").version == 1
    assert registry.resolve(store, two.manifest_digest).version == 2
    for reference in ("nothing", "gate@3", "gate@x", "channel:none", "0" * 64, "../x", ""):
        with pytest.raises(StoreError):
            registry.resolve(store, reference)


def test_channel_moves_only_from_where_it_is_expected(content: S3Content, tmp_path: Path) -> None:
    store = content.store
    a, b = (registry.publish(content, make(content, tmp_path, t), "gate").manifest_digest for t in "ab")
    assert registry.move_channel(store, "prod", a, expect=None).serial == 1
    with pytest.raises(ConflictError, match="points at"):
        registry.move_channel(store, "prod", b, expect=None)
    with pytest.raises(ConflictError, match="points at"):
        registry.move_channel(store, "prod", b, expect=b)
    assert registry.move_channel(store, "prod", b, expect=a).serial == 2
    assert registry.move_channel(store, "prod", a, expect=b).serial == 3
    with pytest.raises(StoreError, match="no such manifest"):
        registry.move_channel(store, "prod", "0" * 64, expect=a)
    assert registry.channels(store) == [registry.Channel("prod", a, 3)]


def test_of_eight_movers_exactly_one_wins(content: S3Content, tmp_path: Path) -> None:
    digests = [
        registry.publish(content, make(content, tmp_path, f"w{i}"), "gate").manifest_digest for i in range(9)
    ]
    registry.move_channel(content.store, "prod", digests[8], expect=None)
    won: list[str] = []
    lost: list[ConflictError] = []
    barrier = threading.Barrier(8)

    def move(digest: str) -> None:
        barrier.wait()
        try:
            registry.move_channel(content.store, "prod", digest, expect=digests[8])
            won.append(digest)
        except ConflictError as err:
            lost.append(err)

    threads = [threading.Thread(target=move, args=(d,)) for d in digests[:8]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert registry.channels(content.store) == [registry.Channel("prod", won[0], 2)]


def test_altered_release_is_not_pulled_and_leaves_nothing(
    content: S3Content, store: ObjectStore, tmp_path: Path
) -> None:
    manifest = make(content, tmp_path)
    release = registry.publish(content, manifest, "gate")
    target = tmp_path / "place" / "out"
    fresh = S3Content(store, tmp_path / "another machine")

    blob = f"blobs/sha256/{manifest['files']['model.onnx']['sha256']}"
    store.put(blob, b"WEIGHTS")
    with pytest.raises(IntegrityError, match="altered"):
        registry.pull(fresh, release, target)
    assert list(target.parent.iterdir()) == []

    store.put(blob, b"weights")
    key = f"manifests/{release.manifest_digest}.json"
    store.put(key, store.get(key).replace(b"test/1", b"test/2"))
    with pytest.raises(IntegrityError, match="does not match its digest"):
        registry.pull(fresh, release, target)
    assert not target.exists()


def test_pull_replaces_an_earlier_pull_and_nothing_else(content: S3Content, tmp_path: Path) -> None:
    one = registry.publish(content, make(content, tmp_path, "1"), "gate")
    two = registry.publish(content, make(content, tmp_path, "2"), "gate")
    out = tmp_path / "place" / "out"
    registry.pull(content, one, out)
    registry.pull(content, two, out)
    assert (out / "model.onnx").read_text() == "2"
    assert [p.name for p in out.parent.iterdir()] == ["out"]

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds no pulled release"):
        registry.pull(content, one, mine)
    assert [p.name for p in mine.iterdir()] == ["thesis.tex"]
    with pytest.raises(OutputError):
        registry.pull(content, one, mine / "thesis.tex" / "x")
