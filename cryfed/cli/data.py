"""`cryfed data`: make a corpus, bring one in, check one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from infra.data.corpora import Import

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Corpora and their manifests.

A manifest is a CSV or Parquet file, one row a clip, with the columns **path, label, role, corpus, group, sha256** and, if known,
site, age, sex, platform, fold, duration_s, licence, author. `group` is the infant or the recording device: it never crosses a
split. `role` is cry, ood_noncry (a site's other sounds), noise (public background; no site) or unlabelled.
""",
)
add = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Write a manifest for a public corpus."
)
app.add_typer(add, name="add")

_Folder = Annotated[Path, typer.Argument(help="The corpus; with --url, where to unpack it.")]
_Out = Annotated[
    Path | None,
    typer.Option(help="Manifest to write: in the corpus or above it. Rows of other corpora in it are kept."),
]
_Url = Annotated[str | None, typer.Option(help="Fetch this zip or tar archive first.")]
_Sha = Annotated[str | None, typer.Option(help="SHA-256 that the archive must have.")]


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to fill.")],
    sites: Annotated[int, typer.Option(help="Sites: each a room, a microphone, a noise floor.")] = 8,
    infants: Annotated[int, typer.Option(help="Infants per site.")] = 24,
    cries: Annotated[int, typer.Option(help="Cries per infant.")] = 6,
    noncries: Annotated[int, typer.Option(help="Other sounds per site.")] = 48,
    noise: Annotated[int, typer.Option(help="Public noise clips.")] = 120,
    seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 3.0,
    difficulty: Annotated[
        float, typer.Option(help="0 is a caricature, 1 the benchmark, 2 hardly solvable.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Default: the benchmark's.")] = None,
    public: Annotated[
        bool, typer.Option("--public", help="The pool for pretraining: other infants, and no reasons.")
    ] = False,
) -> None:
    """Synthesise a corpus of cries, with manifest and known truth. The same options give the same files.

    ```
    cryfed data synth corpora/synthetic
    cryfed retrain --manifest corpora/synthetic/manifest.csv
    ```
    """
    from infra.data.synth.config import SYNTH_VERSION, SynthConfig
    from infra.data.synth.corpus import Namespace, finish, start, synthesise_noise, synthesise_site

    chosen = {} if seed is None else {"seed": seed}
    cfg = SynthConfig(
        sites=sites, infants_per_site=infants, cries_per_infant=cries, noncries_per_site=noncries, public_noise=noise,
        clip_seconds=seconds, difficulty=difficulty, **chosen,
    )  # fmt: skip
    namespace: Namespace = "public" if public else "federation"
    start(out)
    rows = []
    with typer.progressbar(range(cfg.sites), label=f"synthesiser version {SYNTH_VERSION}") as bar:
        for site in bar:
            rows += synthesise_site(cfg, site, out, namespace)
    path = finish(rows + synthesise_noise(cfg, out, namespace), out)
    typer.echo(f"{len(rows) + cfg.public_noise} synthetic clips, manifest {path}")


@add.command()
def donateacry(
    path: _Folder,
    out: _Out = None,
    sites: Annotated[
        int,
        typer.Option(min=0, help="Deal devices out to that many sites; 0: one per platform and age band."),
    ] = 0,
    url: _Url = None,
    sha256: _Sha = None,
) -> None:
    """Donate-a-Cry: folders per reason, or raw uploads; device, time, sex, age and reason stand in the file names.

    ```
    cryfed data add donateacry corpora/donateacry-corpus
    cryfed data add esc50 corpora/ESC-50 --out corpora/manifest.csv       # cries and noise in one manifest
    cryfed data add donateacry corpora/donateacry-corpus --out corpora/manifest.csv
    ```

    In the published audio the reason labels carry no signal that any model found; the gate (cry or not) does.
    """
    from infra.data.corpora import DONATEACRY, import_donateacry

    _fetch(path, url, sha256)
    _report(import_donateacry(path, sites), DONATEACRY, path, out)


@add.command()
def esc50(
    path: _Folder,
    out: _Out = None,
    esc10: Annotated[bool, typer.Option("--esc10", help="Only the ESC-10 subset (CC BY).")] = False,
    url: _Url = None,
    sha256: _Sha = None,
) -> None:
    """ESC-50 as public background noise: `meta/esc50.csv` and `audio/`. Split by class, so test noise is unseen noise."""
    from infra.data.corpora import ESC50, import_esc50

    _fetch(path, url, sha256)
    _report(import_esc50(path, esc10), ESC50, path, out)


@app.command()
def check(
    manifest: Annotated[Path, typer.Argument(help="CSV or Parquet.")],
    folds: Annotated[int, typer.Option(min=3, help="Folds; one each for test and validation.")] = 5,
) -> None:
    """Read a manifest as `retrain` would: columns, paths, hashes, splits; then show what is in it.

    `cryfed gate` goes further and listens to the recordings.
    """
    from rich.console import Console

    from infra.data.manifest import load_manifest, verify_hashes
    from infra.data.splits import assign_folds, parts
    from infra.settings import load_settings
    from models.frames import PART_NAMES

    found = load_manifest(manifest, limits=load_settings().limits)
    verify_hashes(found)
    part = parts(assign_folds(found.table, folds)).map(dict(enumerate(PART_NAMES)))
    table = found.table.assign(part=part, site=found.table["site"].replace("", "(public)"))
    console = Console()
    for title, by in (("clips by site", "site"), ("cries by reason, other clips by kind", "label")):
        console.print(_counts(title, table, by))
    console.print(
        f"[green]ok[/] {len(table)} clips of {table['group'].nunique()} groups, {len(found.sites)} sites, "
        f"reasons: {', '.join(found.reasons) or 'none'}\ndigest {found.digest}"
    )


@app.command()
def announce(
    manifest: Annotated[Path, typer.Argument(help="CSV or Parquet, where the worker can read it too.")],
) -> None:
    """Announce new data: the deployed `watch` gates it by itself within a minute. Ask again to see what came of it.

    ```
    cryfed data announce clips/manifest.csv
    ```

    The announcement goes into the store; the recordings stay where they are.
    """
    from infra.data.manifest import load_manifest
    from infra.settings import load_settings
    from infra.store import incoming
    from infra.store.embedded import open_store

    settings = load_settings()
    found = load_manifest(manifest, limits=settings.limits)
    with open_store(settings.store, settings.work_dir) as store:
        outcome = incoming.find_outcome(store, found.digest)
        fresh = outcome is None and incoming.announce(store, manifest, found.digest)
    if outcome is None:
        typer.echo(f"{'announced' if fresh else 'announced before, still waiting'}: {found.digest}")
    elif outcome.get("passed"):
        typer.secho(f"announced before, passed: {found.digest}", fg="green")
        if outcome.get("drift"):
            typer.echo(f"against the latest run: {outcome['drift']}")
    else:
        typer.secho(f"announced before, failed: {outcome.get('error')}", fg="red", err=True)
        raise typer.Exit(1)


def _counts(title: str, table: pd.DataFrame, by: str) -> object:
    from rich.table import Table

    from models.frames import PART_NAMES

    out = Table(
        by, "role", *PART_NAMES, "groups", title=title, title_justify="left", box=None, pad_edge=False
    )
    for column in out.columns[2:]:
        column.justify = "right"
    for (role, name), rows in table.groupby(["role", by], sort=True):
        per_part = [str(int((rows["part"] == p).sum())) for p in PART_NAMES]
        out.add_row(str(name), str(role), *per_part, str(rows["group"].nunique()))
    return out


def _fetch(folder: Path, url: str | None, sha256: str | None) -> None:
    """Download and unpack, where a URL was given and the folder is not there yet."""
    from infra.data.download import download, unpack
    from models.errors import ConfigError

    if url is None:
        if sha256 is not None:
            raise ConfigError("--sha256 belongs to --url: give both or neither")
        return
    if folder.exists():
        raise ConfigError(f"{folder} exists already: leave out --url to read it, or name a new folder")
    archive = folder.with_name(f".{folder.name}.download")
    try:
        unpack(download(url, sha256 or "", archive), folder)
    finally:
        archive.unlink(missing_ok=True)


def _report(found: Import, corpus: str, folder: Path, out: Path | None) -> None:
    from infra.data.corpora import write_manifest

    path, kept = write_manifest(found, corpus, folder, out)
    for name, why in list(found.skipped.items())[:10]:
        typer.secho(f"left out {name}: {why}", fg="yellow", err=True)
    if len(found.skipped) > 10:
        typer.secho(f"left out {len(found.skipped) - 10} more", fg="yellow", err=True)
    beside = f" beside {kept} rows of other corpora" if kept else ""
    typer.echo(f"{len(found.rows)} clips, {found.note}{beside}: {path}")
