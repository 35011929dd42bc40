"""The job document: what is refused, and what its digest does not depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.federation.job import FederationJob, load_job
from models.errors import ConfigError
from tests.infra.federation.world import make_job


@pytest.fixture
def job(tmp_path: Path) -> FederationJob:
    return make_job(tmp_path / "world")


def test_survives_its_file(job: FederationJob, tmp_path: Path) -> None:
    job.save(tmp_path / "job.json")
    assert load_job(tmp_path / "job.json").resolved(tmp_path).model_dump(mode="json") == job.model_dump(
        mode="json"
    )


def test_relative_paths_are_relative_to_the_file(job: FederationJob, tmp_path: Path) -> None:
    job.save(tmp_path / "job.json")
    raw = json.loads((tmp_path / "job.json").read_text())
    raw["base_model"] = "world/base.safetensors"
    (tmp_path / "job.json").write_text(json.dumps(raw))
    assert load_job(tmp_path / "job.json").base_model == tmp_path / "world" / "base.safetensors"


def test_digest_is_of_content(job: FederationJob, tmp_path: Path) -> None:
    features = dict.fromkeys(job.site_names, "f" * 64)
    digest = job.content_digest("b" * 64, features)
    elsewhere = make_job(tmp_path / "elsewhere", timeout_s=5.0, cpus=1, retries=0)
    assert elsewhere.content_digest("b" * 64, features) == digest
    assert job.content_digest("c" * 64, features) != digest
    assert job.content_digest("b" * 64, {**features, "site1": "e" * 64}) != digest
    for change in (
        {"seed": 4},
        {"rounds": 4},
        {"local": {"steps": 3}},
        {"server": {"lr": 0.5}},
        {"min_sites": 2},
    ):
        assert job.model_copy(update=change).content_digest("b" * 64, features) != digest


def test_sites_are_summed_by_name_whatever_their_order(job: FederationJob) -> None:
    turned = FederationJob(**{**dict(job), "sites": tuple(reversed(job.sites))})
    assert turned == job


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rounds": 0}, "rounds"),
        ({"sites": []}, "sites"),
        ({"participation": 0}, "participation"),
        ({"min_sites": 4}, "min_sites=4 can never be met"),
        ({"min_sites": 3, "participation": 0.5}, "a round asks 2 of 3"),
        ({"local": {"step": 3}}, "local: .*step"),
        ({"local": {"steps": 0}}, "steps ≥ 1"),
        ({"server": {"optimiser": "sgd"}}, "unknown server optimiser"),
        ({"network": {"d_model": 3}}, "network"),
        ({"surprise": 1}, "surprise"),
        ({"version": 2}, "version"),
    ],
)
def test_a_wrong_field_is_named(job: FederationJob, tmp_path: Path, change: dict, says: str) -> None:
    raw = {**json.loads(job.model_dump_json()), **change}
    (tmp_path / "job.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=says):
        load_job(tmp_path / "job.json")


def test_repeated_names_and_shared_folders_are_refused(job: FederationJob, tmp_path: Path) -> None:
    raw = json.loads(job.model_dump_json())
    path = tmp_path / "job.json"
    for change, says in (
        ({"name": "site0"}, "names repeat"),
        ({"folder": raw["sites"][0]["folder"]}, "share a folder"),
    ):
        sites = [raw["sites"][0], {**raw["sites"][1], **change}]
        path.write_text(json.dumps({**raw, "sites": sites}))
        with pytest.raises(ConfigError, match=says):
            load_job(path)


def test_a_site_brings_frames_or_recordings_and_its_paths_do_not_name_the_job(
    job: FederationJob, tmp_path: Path
) -> None:
    raw = json.loads(job.model_dump_json())
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**raw, "sites": [{**raw["sites"][0], "manifest": "manifest.csv"}]}))
    with pytest.raises(ConfigError, match="not both"):
        load_job(path)
    brings = {"name": "site0", "manifest": "manifest.csv", "folder": "own"}
    path.write_text(json.dumps({**raw, "sites": [brings, *raw["sites"][1:]], "data": {}}))
    read = load_job(path)
    assert read.site("site0").manifest == tmp_path / "manifest.csv"
    assert read.site("site0").features is None
    features = dict.fromkeys(job.site_names, "f" * 64)
    assert read.content_digest("b" * 64, features) == job.content_digest("b" * 64, features)


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "job.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"job\.json"):
        load_job(path)
