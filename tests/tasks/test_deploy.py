"""A release is judged by what the store hands out, and against what its channel points at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.settings import load_settings
from infra.store import embedded
from infra.store.content import blob_key
from infra.store.promotion import NOTHING, promote
from models.errors import BundleError, ChallengerRefused, ConflictError, IntegrityError, ManifestError
from tasks import deploy
from tasks.deploy import challenge, find_release, verify_release
from tasks.runtime import Runtime, open_runtime
from tests.releases import export_tiny, make_bundle, publish

CORPUS = SynthConfig(
    sites=2, infants_per_site=3, cries_per_infant=2, noncries_per_site=6, public_noise=6, clip_seconds=1.2
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("graph") / "model.onnx")


@pytest.fixture
def opened() -> Iterator[Runtime]:
    with open_runtime() as rt:
        yield rt
    embedded.stop_running(load_settings().work_dir)


@pytest.mark.slow
def test_a_release_is_pulled_from_the_store_and_held_to_its_evidence(
    opened: Runtime, graph: Path, tmp_path: Path
) -> None:
    release = publish(opened.content, make_bundle(tmp_path / "good", graph))
    silent = publish(opened.content, make_bundle(tmp_path / "silent", graph, evidence={}))
    found = find_release.fn("infant-cry", "1", "staging")
    assert found == {"name": "infant-cry", "version": 1, "digest": release.manifest_digest}
    assert verify_release.fn(found)["heads"] == ["gate", "reason"]
    with pytest.raises(BundleError, match="carries no evaluation"):
        verify_release.fn({"name": "infant-cry", "version": 2, "digest": silent.manifest_digest})

    digest = opened.content.put_file(graph)
    opened.store.put(
        blob_key(digest), graph.read_bytes()[:-1] + b"?"
    )  # this machine's cache still has the true one
    with pytest.raises(IntegrityError, match="does not hold the bytes of its name"):
        verify_release.fn(found)
    assert not list(opened.scratch.glob("deploy-*"))


@pytest.mark.slow
def test_a_challenger_is_compared_with_what_the_channel_holds(
    opened: Runtime, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, str] = {}
    monkeypatch.setattr(deploy, "create_markdown_artifact", lambda text, key: shown.update({key: text}))
    first = publish(opened.content, make_bundle(tmp_path / "first", graph))
    second = publish(opened.content, make_bundle(tmp_path / "second", graph, notes=("the same graph",)))
    old, new = (find_release.fn("infant-cry", n, "dev") for n in "12")
    clips = synthesise(CORPUS, tmp_path / "corpus")

    def ask(clips: Path | None = clips, expect: str | None = None) -> dict[str, object]:
        return challenge.fn(new, "dev", clips, 0.05, expect)

    assert ask() == {"champion": NOTHING, "why": "not compared: the channel points at nothing yet"}
    promote(opened.store, first, "dev")
    assert ask(None)["why"] == "not compared: no manifest of clips was named"
    assert ask(None)["champion"] == old["digest"]
    result = ask(expect=first.manifest_digest)
    assert (result["champion"], result["challenger"]) == (first.manifest_digest, second.manifest_digest)
    assert result["accepted"]
    assert "version 2 against version 1: accepted" in shown["challenge"]
    with pytest.raises(ConflictError, match="not at nothing as expected"):
        ask(expect=NOTHING)
    with pytest.raises(ManifestError):
        ask(tmp_path / "none.csv")
    monkeypatch.setattr(deploy, "compare", lambda *a, **k: {**result, "accepted": False, "why": "gate: -0.2"})
    with pytest.raises(
        ChallengerRefused, match=r"infant-cry@2 does not replace version 1 on .*: gate: -0\.2"
    ):
        ask()
    assert "REFUSED, gate: -0.2" in shown["challenge"]
    promote(opened.store, second, "dev")
    assert ask(expect=first.manifest_digest)["why"] == "not compared: the channel points at it already"
    assert not list(opened.scratch.glob("deploy-*"))
