"""A bundle is what its manifest says, byte for byte, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.edge.bundle import describe_files, load_bundle, write_bundle
from infra.edge.release import BundledFile, BundleManifest, CalibrationDocument, DataProvenance
from models.calibration import SiteCalibration
from models.errors import BundleError, OutputError

MODEL = b"not a graph, but bytes will do here"


def make(folder: Path, **changes: Any) -> BundleManifest:
    source = folder.parent / "source.onnx"
    source.write_bytes(MODEL)
    fields: dict[str, Any] = {
        "heads": ("gate", "reason"),
        "reasons": ("hungry", "tired"),
        "model": {"d_model": 32},
        "vad": {},
        "calibrations": {"site00": CalibrationDocument(site="site00", gate_temperature=1.5)},
        "data": DataProvenance(manifest_digest="a" * 64, synthetic=True),
        "files": describe_files({"model.onnx": source}),
        **changes,
    }
    manifest = BundleManifest(**fields)
    write_bundle(folder, manifest, {"model.onnx": source})
    return manifest


def test_round_trip(tmp_path: Path) -> None:
    written = make(tmp_path / "b")
    bundle = load_bundle(tmp_path / "b")
    assert bundle.manifest == written
    assert bundle.read("model.onnx") == MODEL
    assert bundle.calibration("site00").gate_temperature == 1.5
    assert bundle.calibration() == SiteCalibration("")
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["manifest.json", "model.onnx"]


def test_digest_ignores_info_alone(tmp_path: Path) -> None:
    first = make(tmp_path / "a", info={"run": "one", "seconds": 3.5})
    second = make(tmp_path / "b", info={"run": "two"})
    other = make(tmp_path / "c", notes=("changed",))
    assert first.digest() == second.digest() != other.digest()


def test_same_manifest_gives_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_latest_link_and_foreign_files_are_fine(tmp_path: Path) -> None:
    make(tmp_path / "run1")
    (tmp_path / "run1/report.html").write_text("x")
    (tmp_path / "latest").symlink_to("run1")
    assert load_bundle(tmp_path / "latest").read() == MODEL


def test_unknown_site_names_the_known(tmp_path: Path) -> None:
    make(tmp_path / "b")
    with pytest.raises(BundleError, match=r"'mars'.*site00"):
        load_bundle(tmp_path / "b").calibration("mars")


def _flip(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(MODEL[:-1] + b"!")


def _grow(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(MODEL + b"!")


def _remove(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def _link_out(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(MODEL)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(outside)


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "manifest.json"
        raw = json.loads(path.read_text())
        change(raw)
        path.write_text(json.dumps(raw))

    return apply


def _text(text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "manifest.json").write_text(text)

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, "do not match"),
        (_grow, "do not match"),
        (_remove, "missing"),
        (_link_out, "links outside"),
        (lambda f: (f / "manifest.json").unlink(), "no release bundle"),
        (_text("{"), "not valid JSON"),
        (_text("[" * 100_000), "not valid JSON"),
        (_text('{"format": 1, "format": 2}'), "twice"),
        (_text("null"), "not a valid"),
        (_edit(lambda m: m.update(format="cryfed-bundle/2")), "format"),
        (_edit(lambda m: m.update(surprise=1)), "surprise"),
        (_edit(lambda m: m["files"].update({"../up": m["files"]["model.onnx"]})), "plain relative path"),
        (
            _edit(lambda m: m["files"].update({"/etc/passwd": m["files"]["model.onnx"]})),
            "plain relative path",
        ),
        (_edit(lambda m: m["files"].update({"a//b": m["files"]["model.onnx"]})), "plain relative path"),
        (_edit(lambda m: m["files"]["model.onnx"].update(size=2**40)), "size"),
        (_edit(lambda m: m["files"].clear()), "model.onnx is missing"),
        (_edit(lambda m: m.update(reasons=[])), "exactly when"),
        (_edit(lambda m: m.update(reasons=["hungry", "hungry"])), "twice"),
        (_edit(lambda m: m.update(heads=["reason"])), "heads"),
        (_edit(lambda m: m["default_calibration"].update(gate_temperature=0.0)), "gate_temperature"),
        (_edit(lambda m: m["calibrations"]["site00"].update(site="site01")), "filed under"),
        (_edit(lambda m: m["default_calibration"].update(site="site01")), "default calibration"),
        (_edit(lambda m: m["data"].update(manifest_digest="abc")), "manifest_digest"),
    ],
)
def test_damage_is_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = tmp_path / "b"
    make(folder)
    damage(folder)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_huge_manifest_is_not_read(tmp_path: Path) -> None:
    make(tmp_path / "b")
    with (tmp_path / "b/manifest.json").open("r+b") as file:
        file.truncate(9 * 2**20)
    with pytest.raises(BundleError, match="larger than"):
        load_bundle(tmp_path / "b")


def test_change_after_loading_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "b")
    bundle = load_bundle(tmp_path / "b")
    _flip(tmp_path / "b")
    with pytest.raises(BundleError, match="do not match"):
        bundle.read()


def test_wrong_source_leaves_the_old_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    old = make(folder)
    changed = old.model_copy(update={"files": {"model.onnx": BundledFile(sha256="0" * 64, size=len(MODEL))}})
    with pytest.raises(BundleError, match="does not match"):
        write_bundle(folder, changed, {"model.onnx": tmp_path / "source.onnx"})
    assert load_bundle(folder).manifest == old
    assert len(list(folder.iterdir())) == 2


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    source = tmp_path / "source.onnx"
    manifest = make(tmp_path / "b")
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(tmp_path / "file/sub", manifest, {"model.onnx": source})


def test_interrupted_replacement_is_not_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the old release and the new one a moment has no manifest, none has one with wrong files."""
    folder = tmp_path / "b"
    make(folder)

    def dies(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        make(folder, notes=("new",))
    monkeypatch.undo()
    with pytest.raises(BundleError, match="no release bundle"):
        load_bundle(folder)
    assert [p.name for p in folder.iterdir()] == ["model.onnx"]


def test_calibrations_survive_storage() -> None:
    calibration = SiteCalibration("ward", 1.3, 0.7, 0.42, -3.5, 30, 12, True, True, True, ("a note",))
    stored = CalibrationDocument.model_validate_json(CalibrationDocument.of(calibration).model_dump_json())
    assert stored.calibration() == calibration
