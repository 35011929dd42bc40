"""Site-local stages: filed at the site alone, computed where they are missing, and nowhere else.

The sites' work runs in this process here; that it runs on Ray is shown by the whole run.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra.stages import Artifact, StageResult, Workspace, resolve
from models.errors import AudioError, ManifestError, StoreError
from tasks import sites
from tasks.progress import Board
from tasks.runtime import Runtime
from tasks.sites import SiteWork, run_at_sites

CODE = ("infra.digest",)


class OneProcess:
    """`Cluster.map` in this process."""

    def map(
        self, fn: Callable[[Any], Any], items: Iterable[Any], *, on_done: Callable[[int, int], None]
    ) -> list[Any]:
        wanted, made = list(items), []
        for number, item in enumerate(wanted, start=1):
            made.append(fn(item))
            on_done(number, len(wanted))
        return made


class LocalRuntime(Runtime):
    """Site folders and a board; no store, no servers."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.out = io.StringIO()
        self.board = Board(Console(file=self.out, width=120, highlight=False))

    def cluster(self) -> Any:
        return OneProcess()


@pytest.fixture
def rt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRuntime:
    made = LocalRuntime(tmp_path)
    monkeypatch.setattr(sites, "runtime", lambda: made)
    return made


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr(sites, "_calls", made, raising=False)
    return made


def measure(arguments: Mapping[str, Any], space: Workspace) -> StageResult:
    sites._calls.append(arguments["site"])  # type: ignore[attr-defined]
    if arguments.get("broken"):
        raise AudioError(f"{arguments['site']}: truncated")
    (space.out / "measured.csv").write_text(f"of {arguments['site']}\n")
    return StageResult(values={"clips": len(arguments["site"])})


def work(site: str, **changed: Any) -> SiteWork:
    config = {"clips": [site], **changed.pop("config", {})}
    return SiteWork(
        config=config, parents=changed.pop("parents", {}), arguments={"site": site, "where": "/a", **changed}
    )


def run(*names: str, **changed: dict[str, Any]) -> dict[str, Artifact]:
    return run_at_sites("measure", measure, {n: work(n, **changed.get(n, {})) for n in names}, code=CODE)


def test_every_site_files_its_own_and_no_other(rt: LocalRuntime) -> None:
    made = run("south", "north")
    assert list(made) == ["south", "north"]
    for site, other in (("north", "south"), ("south", "north")):
        artifact = made[site]
        filed = rt.site_content(site).fetch(artifact.files["measured.csv"])
        assert filed.read_text() == f"of {site}\n"
        assert filed.is_relative_to(rt.work / "sites" / site)
        with pytest.raises(StoreError, match="not in this store"):
            resolve(rt.site_content(other), artifact.uri)
    assert {p.name for p in rt.work.iterdir()} == {"sites"}, "nothing lies outside the sites' folders"


def test_a_second_run_asks_no_site(rt: LocalRuntime, calls: list[str]) -> None:
    first = run("north", "south")
    again = run("north", "south")
    assert calls == ["north", "south"]
    assert {s: a.uri for s, a in first.items()} == {s: a.uri for s, a in again.items()}
    assert rt.out.getvalue().splitlines()[-1].startswith("  = measure ")


def test_where_things_lie_is_no_input(rt: LocalRuntime, calls: list[str]) -> None:
    run("north")
    run("north", north={"where": "/b"})
    assert calls == ["north"]


@pytest.mark.parametrize("changed", [{"config": {"rate": 8000}}, {"parents": {"verdict": "0" * 64}}])
def test_only_the_site_whose_input_changed_works_again(
    changed: dict[str, Any], rt: LocalRuntime, calls: list[str]
) -> None:
    first = run("north", "south")
    calls.clear()
    again = run("north", "south", south=changed)
    assert calls == ["south"]
    assert again["north"].uri == first["north"].uri
    assert again["south"].key != first["south"].key
    assert again["south"].digest == first["south"].digest, "the same files give the same output digest"


def test_what_is_done_stays_done_when_a_later_site_fails(rt: LocalRuntime, calls: list[str]) -> None:
    with pytest.raises(AudioError, match="south: truncated"):
        run("north", "south", south={"broken": True})
    assert rt.out.getvalue().splitlines()[-1].startswith("  ✗ measure ")
    assert not list((rt.site_folder("south") / "artifacts").glob("stages/*/*")), "no record of a failed stage"
    calls.clear()
    run("north", "south")
    assert calls == ["south"]


@pytest.mark.parametrize("name", ["..", "../north", "a/b", "", ".hidden", "a" * 101])
def test_a_site_cannot_name_a_folder_elsewhere(name: str, rt: LocalRuntime) -> None:
    with pytest.raises(ManifestError, match="cannot name a folder"):
        rt.site_folder(name)
