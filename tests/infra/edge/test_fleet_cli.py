"""`cryfed keys` and `cryfed sign-off`, as people type them, each on a machine of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryfed.cli.main import app
from infra.edge.bundle import Bundle
from infra.settings import StoreSettings, load_settings
from infra.store import embedded
from infra.store.client import ObjectStore
from infra.store.content import S3Content
from infra.store.embedded import open_store
from tests.fleets import key
from tests.releases import publish

pytestmark = pytest.mark.slow


class Person:
    """Somebody with a folder of keys."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch

    def types(self, *arguments: str, status: int = 0) -> str:
        self._patch.setenv("CRYFED_KEYS_DIR", str(self.folder))
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == status, result.output
        return " ".join(result.output.split())

    def shows(self) -> dict[str, object]:
        self._patch.setenv("CRYFED_KEYS_DIR", str(self.folder))
        return json.loads(CliRunner().invoke(app, ["keys", "show", "ward-a", "--json"]).output)

    @property
    def home(self) -> Path:
        return self.folder / "ward-a"


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    work = load_settings().work_dir
    with open_store(StoreSettings(), work) as opened:
        yield opened
    embedded.stop_running(work)


@pytest.fixture
def anna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> Person:
    return Person(tmp_path / "anna", monkeypatch)


@pytest.fixture
def ben(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(tmp_path / "ben", monkeypatch)


def test_from_nothing_to_a_signed_off_release(
    anna: Person, store: ObjectStore, tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    release = publish(S3Content(store, tmp_path / "cache"), make_bundle())
    assert "root 1 of ward-a is published" in anna.types("keys", "init", "ward-a")
    made = {p.name: p.stat().st_mode & 0o777 for p in anna.home.glob("*.pem")}
    assert made == dict.fromkeys(
        [f"{n}.pem" for n in ("root-1", "root-2", "root-3", "release-1", "clinical-1", "fleet-1")], 0o600
    )
    assert "there is a fleet ward-a in this store already" in anna.types("keys", "init", "ward-a", status=1)

    (tmp_path / "cot.pub").write_text(key("cot-7").public.pem)
    device = (
        "keys",
        "add-device",
        "ward-a",
        "cot-7",
        "--hardware",
        "jetson-nano",
        "--key",
        str(tmp_path / "cot.pub"),
    )
    assert "cot-7 is in ward-a, now of 1 devices" in anna.types(*device)
    assert "is in ward-a already" in anna.types(*device, status=1)
    assert "now of 1 devices" in anna.types(*device, "--replace")

    words = ("--by", "Dr A. Jones", "--statement", "Read the report of this release.")
    early = anna.types("sign-off", "ward-a", release.manifest_digest, "--key", "clinical-1", *words, status=1)
    assert "is not stated for ward-a" in early
    assert "is no digest" in anna.types("keys", "state", "ward-a", "infant-cry@1", status=1)
    assert release.manifest_digest in anna.types("keys", "state", "ward-a", release.manifest_digest)
    for wrong, message in [
        ("fleet-1", "0 key(s) here hold the role clinical"),
        ("nobody", "no key 'nobody'"),
    ]:
        said = anna.types("sign-off", "ward-a", release.manifest_digest, "--key", wrong, *words, status=1)
        assert message in said
    assert "Dr A. Jones signed off infant-cry@1 for ward-a" in anna.types(
        "sign-off", "ward-a", release.manifest_digest, "--key", "clinical-1", *words
    )
    assert store.stat(f"fleets/ward-a/signoffs/{release.manifest_digest}.json") is not None
    shown = anna.types("keys", "show", "ward-a")
    assert "2 of" in shown
    assert "cot-7 jetson-nano" in shown


def test_a_store_that_keeps_another_release_under_a_digest_gets_no_signature(
    anna: Person, store: ObjectStore, tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    content = S3Content(store, tmp_path / "cache")
    meant, other = (publish(content, make_bundle(notes=(note,))) for note in ("meant", "other"))
    anna.types("keys", "init", "ward-a")
    (version,) = (
        i.key for i in store.list("versions/") if i.key.rsplit("/", 1)[1].startswith(str(other.version))
    )
    store.put(f"versions/{meant.manifest_digest}/1", store.get(version))
    said = anna.types("keys", "state", "ward-a", meant.manifest_digest, status=1)
    assert f"the store gives {other.manifest_digest}" in said
    assert store.stat(f"fleets/ward-a/releases/{other.manifest_digest}.json") is None


def test_rotation_by_two_people(anna: Person, ben: Person, store: ObjectStore) -> None:
    ben.types("keys", "make", "ward-a", "root-ben")
    public = ben.home / "root-ben.pub"
    said = anna.types("keys", "init", "ward-a", "--root-keys", "2", "--root-key", str(public))
    assert "root 1 is a draft yet" in said
    assert "cryfed keys countersign ward-a root-1.json" in said
    assert store.stat("fleets/ward-a/root/1.json") is None
    assert "root 1 of ward-a is published" in ben.types(
        "keys", "countersign", "ward-a", str(anna.home / "drafts" / "root-1.json")
    )
    # who has no root of this fleet believes none from the store
    assert "no root of ward-a" in anna.types("keys", "show", "ward-a", status=1)
    (anna.home / "roots").mkdir()
    (anna.home / "roots" / "1.json").write_bytes((ben.home / "roots" / "1.json").read_bytes())

    before = anna.shows()
    said = anna.types("keys", "rotate", "ward-a", "release", "--retire", "release-1", "--new", "release-2")
    assert "1 more of root 1's root keys" in said
    assert "root 2 of ward-a is published" in ben.types(
        "keys", "countersign", "ward-a", str(anna.home / "drafts" / "root-2.json")
    )
    after = anna.shows()
    assert after["root"]["version"] == 2  # type: ignore[index]
    old, new = (r["root"]["roles"]["release"]["keys"] for r in (before, after))  # type: ignore[index]
    assert old != new
    assert (anna.home / "roots" / "2.json").is_file()
    for arguments, message in [
        (("--retire", "release-1"), "names no one key of the role release"),
        (("--retire", "ffff"), "names no one key"),
        (("--retire", new[0][:12]), "not possible"),
        (("--add", str(public.with_suffix(".pem"))), "not a public key"),
    ]:
        assert message in anna.types("keys", "rotate", "ward-a", "release", *arguments, status=1)
    assert "'owner' is no role" in anna.types("keys", "rotate", "ward-a", "owner", status=1)


def test_a_store_that_forgets_a_root_is_noticed(anna: Person, store: ObjectStore) -> None:
    """What was accepted once is kept at home: a store that is set back cannot bring a retired key back."""
    anna.types("keys", "init", "ward-a")
    anna.types("keys", "rotate", "ward-a", "fleet", "--retire", "fleet-1", "--new", "fleet-2")
    store._minio.remove_object(store.bucket, "fleets/ward-a/root/2.json")
    assert anna.shows()["root"]["version"] == 2  # type: ignore[index]
    store.put("fleets/ward-a/root/3.json", b"{}")
    assert "root 3 is not a DSSE envelope" in anna.types("keys", "show", "ward-a", status=1)


def test_a_key_that_others_can_read_signs_nothing(anna: Person) -> None:
    anna.types("keys", "init", "ward-a")
    (anna.home / "fleet-1.pem").chmod(0o644)
    assert "can be read by others" in anna.types("keys", "show", "ward-a", status=1)


def test_help_teaches() -> None:
    for command in (["keys"], ["keys", "init"], ["keys", "rotate"], ["keys", "countersign"], ["sign-off"]):
        result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
        assert result.exit_code == 0
        assert len(result.output) > 300
