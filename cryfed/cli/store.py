"""`cryfed store`: list, show and pull releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Releases in the object store.

A release is named `NAME` (its latest version), `NAME@3`, `channel:NAME`, or by the digest of its manifest. The store is the
embedded one of the work folder, or the endpoint that settings name (CRYFED_STORE__ENDPOINT).
""",
)

_Reference = Annotated[str, typer.Argument(help="NAME, NAME@3, channel:NAME or a manifest digest.")]


@app.command("list")
def list_releases(
    name: Annotated[str | None, typer.Argument(help="Only versions of this name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List versions, and the channels that point at them."""
    from infra.settings import load_settings
    from infra.store import registry
    from infra.store.embedded import open_store

    settings = load_settings()
    with open_store(settings.store, settings.work_dir) as store:
        found = registry.releases(store, name)
        pointers = registry.channels(store)
    rows = [
        {
            "name": release.name,
            "version": release.version,
            "manifest": release.manifest_digest,
            "channels": [p.name for p in pointers if p.manifest_digest == release.manifest_digest],
            "info": dict(release.info),
        }
        for release in found
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, sort_keys=True))
        return
    if not rows:
        typer.echo(f"no releases{f' of {name}' if name else ''} yet; `cryfed retrain` publishes one")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("release", "manifest", "channels", "published by", box=None, pad_edge=False)
    for row, release in zip(rows, found, strict=True):
        table.add_row(
            f"{release.name}@{release.version}",
            release.manifest_digest[:16],
            " ".join(p.name for p in pointers if p.manifest_digest == release.manifest_digest),
            _short(row["info"]),
        )
    Console().print(table)


@app.command()
def show(reference: _Reference) -> None:
    """Print a release's manifest as JSON: files, model, calibration, data and provenance digests."""
    from infra.settings import load_settings
    from infra.store import registry
    from infra.store.embedded import open_store

    settings = load_settings()
    with open_store(settings.store, settings.work_dir) as store:
        release = registry.resolve(store, reference)
        manifest = registry.get_manifest(store, release.manifest_digest)
    document = {
        "release": f"{release.name}@{release.version}",
        "digest": release.manifest_digest,
        "info": dict(release.info),
        "manifest": manifest,
    }
    typer.echo(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False))


@app.command()
def pull(
    reference: _Reference,
    out: Annotated[Path | None, typer.Option(help="Folder to put it in; default NAME-VERSION.")] = None,
) -> None:
    """Copy a release into a folder, every file verified; `cryfed classify --bundle FOLDER` runs it.

    A folder that holds an earlier pull is replaced as a whole, once the new one is complete.
    """
    from infra.settings import load_settings
    from infra.store import registry
    from infra.store.content import S3Content
    from infra.store.embedded import open_store

    settings = load_settings()
    with open_store(settings.store, settings.work_dir) as store:
        release = registry.resolve(store, reference)
        folder = out or Path(f"{release.name}-{release.version}")
        registry.pull(S3Content(store, settings.work_dir / "cache"), release, folder)
    typer.echo(f"{release.name}@{release.version} → {folder}  ({release.manifest_digest[:16]}, verified)")


def _short(info: object) -> str:
    return (
        ", ".join(f"{k} {v}" for k, v in info.items() if isinstance(v, str | int))
        if isinstance(info, dict)
        else ""
    )
