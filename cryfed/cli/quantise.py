"""`cryfed quantise`: the int8 variant of a release for ONNX Runtime on a CPU, with what it costs in accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from models.errors import CryfedError


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(quantise)


def quantise(
    manifest: Annotated[Path, typer.Option(help="CSV or Parquet of labelled clips to judge it on.")],
    out: Annotated[Path, typer.Option(help="Where the int8 graph goes.")] = Path("model.int8.onnx"),
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Folder of a release or a run. Default: the latest run.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=10, help="Bootstrap resamples of groups.")] = 1000,
) -> None:
    """Write an int8 variant of a release's graph and say, with an interval, what it loses; a loss that is too large removes it.

    The variant is for ONNX Runtime on a CPU. TensorRT builds from `model.onnx`.

    ```
    cryfed quantise --manifest clips.csv --out model.int8.onnx
    ```
    """
    from infra.data.manifest import load_manifest
    from infra.edge.bundle import load_bundle
    from infra.edge.quantise import measure_accuracy, require_accurate
    from infra.edge.quantise import quantise as write
    from infra.settings import load_settings

    settings = load_settings()
    release = load_bundle(bundle or settings.runs_dir / "latest")
    clips = load_manifest(manifest, limits=settings.limits)
    done = write(release.path(), out)
    try:
        accuracy = measure_accuracy(release, out, clips, limits=settings.limits, resamples=resamples)
        typer.echo(json.dumps({"graph": str(out), **vars(done), "accuracy": accuracy.to_dict()}, indent=2))
        require_accurate(accuracy)
    except CryfedError:
        out.unlink(missing_ok=True)
        raise
