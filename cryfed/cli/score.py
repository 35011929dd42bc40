"""`cryfed classify` and `cryfed evaluate`: what a release says about recordings, and how good it is on a manifest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from models.errors import CryfedError

if TYPE_CHECKING:
    from infra.edge.bundle import Bundle
    from infra.edge.scorer import ClipDecision

BundleOption = Annotated[
    Path | None, typer.Option("--bundle", help="Folder of a release or a run. Default: the latest run.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add both commands to the top level."""
    app.command()(classify)
    app.command()(evaluate)


def classify(
    files: Annotated[
        list[Path],
        typer.Argument(help="Recordings: WAV, FLAC, Ogg/Opus or MP3, at most 96 kHz, 1-2 channels."),
    ],
    bundle: BundleOption = None,
    site: Annotated[
        str | None,
        typer.Option(help="Use this site's calibration and thresholds. Default: those pooled over sites."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say for each recording whether an infant cries in it, and why, or that the model had better not say.

    FILES are WAV, FLAC, Ogg/Opus or MP3 recordings of one or two channels.

    Three decisions: **cry** (with a reason, if the release has a reason head), **no cry**, and **abstain**: it sounds like
    crying, but unlike the cries the model learned from.

    ```
    cryfed classify night.wav
    cryfed classify *.flac --site site03 --json
    ```

    A file that cannot be used gets one error; the others are scored all the same, and the exit status is 1.
    """
    from infra.edge.scorer import Scorer
    from infra.settings import load_settings

    settings = load_settings()
    release = _load(bundle)
    scorer = Scorer(release, site=site)
    results: list[tuple[Path, ClipDecision | str]] = []
    for file in files:
        try:
            results.append((file, scorer.classify(file, settings.limits)))
        except CryfedError as err:
            results.append((file, str(err)))
            typer.secho(f"error: {err}", fg="red", err=True)
    if as_json:
        rows = [
            {"file": str(file), "error": out}
            if isinstance(out, str)
            else {"file": str(file), **out.to_dict()}
            for file, out in results
        ]
        _print_json({"release": _release(release), "site": site, "clips": rows})
    else:
        _print_decisions(release, site, [(file, out) for file, out in results if not isinstance(out, str)])
    if any(isinstance(out, str) for _, out in results):
        raise typer.Exit(1)


def evaluate(
    manifest: Annotated[Path, typer.Option(help="CSV or Parquet of labelled clips.")],
    bundle: BundleOption = None,
    part: Annotated[
        Literal["auto", "all", "train", "val", "test"],
        typer.Option(
            help="Clips to score: all, train, val, test; auto is test on the data the release learned from, else all."
        ),
    ] = "auto",
    resamples: Annotated[
        int, typer.Option(min=10, help="Bootstrap resamples of groups for the intervals.")
    ] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Score a release on any manifest: gate, reasons, calibration and abstention, with group-bootstrap intervals.

    Every clip is decoded, segmented and scored as a device would do it; sites that the release knows take their own
    calibration, others the pooled one.

    ```
    cryfed evaluate --manifest clips.csv
    cryfed evaluate --bundle runs/latest --manifest clips.csv --json > scores.json
    ```

    Clips that cannot be scored are left out, with one error each, and the exit status is 1.
    """
    from infra.data.manifest import load_manifest
    from infra.edge.evaluate import evaluate_bundle
    from infra.settings import load_settings

    settings = load_settings()
    release = _load(bundle)
    clips = load_manifest(manifest, limits=settings.limits)
    with _progress() as on_done:
        document = evaluate_bundle(
            release,
            clips,
            part=part,
            limits=settings.limits,
            on_done=on_done,
            resamples=resamples,
        )
    for message in document["manifest"]["errors"].values():
        typer.secho(f"error: {message}", fg="red", err=True)
    if as_json:
        _print_json(document)
    else:
        _print_evaluation(release, document)
    if document["manifest"]["errors"]:
        raise typer.Exit(1)


def _load(bundle: Path | None) -> Bundle:
    from infra.edge.bundle import load_bundle
    from infra.settings import load_settings

    return load_bundle(bundle if bundle is not None else load_settings().runs_dir / "latest")


def _release(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "digest": bundle.digest,
        "heads": list(manifest.heads),
        "reasons": list(manifest.reasons),
        "trained_on_synthetic": manifest.data.synthetic,
        "data_digest": manifest.data.manifest_digest,
    }


def _describe(bundle: Bundle) -> str:
    manifest = bundle.manifest
    heads = " and ".join(manifest.heads)
    source = "SYNTHETIC recordings" if manifest.data.synthetic else "real recordings"
    return f"release {bundle.digest[:12]} · {heads} · trained on {source}"


def _print_json(value: dict[str, Any]) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def _print_decisions(bundle: Bundle, site: str | None, rows: list[tuple[Path, ClipDecision]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    style = {"cry": "bold green", "no cry": "dim", "abstain": "yellow"}
    limit = rows[0][1].energy_threshold
    rule = "never abstains" if limit is None else f"abstains above energy {limit:.2f}"
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=f"{_describe(bundle)}\ncalibration: {site or 'pooled'}, cry from p = {rows[0][1].gate_threshold:.2f}, {rule}",
        caption_justify="left",
    )
    table.add_column("file", overflow="fold")
    table.add_column("decision", no_wrap=True)
    table.add_column("p(cry)", justify="right", no_wrap=True)
    if bundle.manifest.reasons:
        table.add_column("reason", no_wrap=True)
    table.add_column("energy", justify="right", no_wrap=True)
    table.add_column("frames", justify="right", no_wrap=True)
    names = {file.name for file, _ in rows}
    for file, out in rows:
        shown = file.name if len(names) == len(rows) else str(file)
        cells: list[str | Text] = [
            shown,
            Text(out.decision, style[out.decision]),
            f"{out.gate_probability:.3f}",
        ]
        if bundle.manifest.reasons:
            cells.append(f"{out.reason} ({out.reason_probabilities[out.reason]:.0%})" if out.reason else "–")
        table.add_row(*cells, f"{out.energy:.2f}", str(out.n_frames))
    Console().print(table)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Progress on standard error, where somebody is there to see it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("scoring clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _print_evaluation(bundle: Bundle, document: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    about, counts = document["manifest"], document["counts"]
    groups = document["protocol"]["groups"]
    origin = "the data it learned from" if about["same_data_as_training"] else "data it has not seen"
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{counts['clips']} clips ({counts['cries']} cries) of {groups} groups, part: {about['part']}",
        title_justify="left",
        caption=f"{_describe(bundle)} · scored on {origin}",
        caption_justify="left",
    )
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, measured in _measures(document):
        value = measured if isinstance(measured, dict) else {"value": measured}
        if value.get("value") is None:
            continue
        low, high = value.get("low"), value.get("high")
        table.add_row(
            name, f"{value['value']:.3f}", "" if low is None or high is None else f"{low:.3f} – {high:.3f}"
        )
    console = Console()
    console.print(table)
    if document["reason"] is None:
        why = "; ".join(bundle.manifest.notes) or "see its report"
        absent = (
            f"none shipped: {why}"
            if not bundle.manifest.reasons
            else "no cry here has a reason that it knows"
        )
        console.print(f"[dim]reasons: {absent}[/dim]")
    for label, clips in about["reasons_unknown_to_release"].items():
        console.print(f"[dim]{clips} cries are labelled {label!r}, which the release does not know[/dim]")


def _measures(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    gate, reason, abstention = document["gate"], document["reason"], document["abstention"]
    for which, title in (
        ("all", "all non-cries"),
        ("site", "the sites' non-cries"),
        ("public", "public noise"),
    ):
        if gate["negatives"][which]["clips"]:
            yield f"gate AUROC against {title}", gate["negatives"][which]["auroc"]
    yield "gate FPR at TPR 95 %", gate["negatives"]["all"]["fpr95"]
    yield "gate sensitivity at the threshold", gate["sensitivity"]
    yield "gate specificity at the threshold", gate["specificity"]
    yield "gate ECE, calibrated", gate["calibration"]["after"]["ece"]
    if reason is not None:
        yield "reason macro-F1", reason["macro_f1"]
        yield "reason macro-F1 of the majority class", document["systems"].get("majority", {}).get("macro_f1")
        yield "reason AUC, one against the rest", reason["auc"]
        yield "reason ECE, uncalibrated", reason["calibration"]["before"]["ece"]
        yield "reason ECE, calibrated", reason["calibration"]["after"]["ece"]
    if "energy" in abstention["signals"]:
        yield "abstention AUROC by energy", abstention["signals"]["energy"]["all"]["auroc"]
    yield "cries kept at the energy threshold", abstention["at_threshold"]["cries_kept"]
    yield "non-cries refused by energy", abstention["at_threshold"]["all_noncries_refused"]
