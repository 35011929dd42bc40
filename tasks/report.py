"""The end of a run: its folder with metrics, report, bundle and Data Docs, and the link `latest`."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from prefect import task
from prefect.artifacts import create_markdown_artifact

from infra.data.summary import by_part
from infra.data.synth.config import SYNTH_VERSION
from infra.federation.files import write_atomic
from infra.report.render import render_report
from infra.stages import Artifact, fetch, resolve
from models.errors import OutputError
from tasks.drift import copy_reference
from tasks.evaluate import read_evaluation
from tasks.gate import copy_data_docs, read_verdict
from tasks.membership import read_membership
from tasks.memory import peak_memory_mb
from tasks.release import copy_bundle
from tasks.runtime import runtime

Json = dict[str, Any]


@task(name="new run", persist_result=False)
def new_run() -> Json:
    """A run's id, and proof that its folder can be written before hours go into it.

    Raises:
        OutputError: the folder of runs cannot be written.
    """
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder = runtime().settings.runs_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{run_id}"
        probe.touch()
        probe.unlink()
    except OSError as err:
        raise OutputError(
            f"cannot write runs to {folder} ({err.strerror}): set CRYFED_RUNS_DIR to another folder"
        ) from None
    return {"id": run_id, "created": started.isoformat(timespec="seconds")}


@task(name="describe corpus", persist_result=False)
def describe_corpus(table: str) -> Json:
    """The filed corpus's facts: manifest digest, reasons, whether it is synthetic."""
    return dict(resolve(runtime().content, table).values)


@task(name="may ship reasons", persist_result=False)
def may_ship_reasons(evaluation: str) -> bool:
    """The evidence gate's decision on the reason head."""
    return bool(resolve(runtime().content, evaluation).values["ship_reasons"])


@task(name="report", retries=1, retry_delay_seconds=2, timeout_seconds=600, persist_result=False)
def finish(run: Json, uris: dict[str, str], release: Json, parameters: Json, override: str | None) -> str:
    """Write `runs/<id>/` whole, point `latest` at it, and return the folder."""
    rt = runtime()
    runs = rt.settings.runs_dir
    folder, building = runs / run["id"], runs / f".{run['id']}"
    building.mkdir(parents=True)
    try:
        copy_bundle(uris["export"], building)
        copy_data_docs(uris["gate"], building / "data_docs")
        copy_reference(uris["drift_reference"], building)
        metrics = collect(run, uris, release, parameters, override)
        write_atomic(
            building / "metrics.json", (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode()
        )
        render_report(metrics, building / "report.html")
        building.replace(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    link = runs / f".latest-{run['id']}"
    link.symlink_to(folder.name)
    link.replace(runs / "latest")
    create_markdown_artifact(f"Report of run `{run['id']}`: `{folder / 'report.html'}`", key="report")
    return str(folder)


def collect(
    run: Json, uris: Mapping[str, str], release: Json, parameters: Json, override: str | None
) -> Json:
    """`metrics.json`: every number of the report."""
    rt = runtime()
    made: dict[str, Artifact] = {name: resolve(rt.content, uri) for name, uri in uris.items()}
    verdict = read_verdict(uris["gate"]).to_dict()
    if override is not None:
        verdict["override_reason"] = override
    started = datetime.fromisoformat(run["created"])
    parts = made["pretrain"].values["parameters"]
    export = made["export"]
    bundle = json.loads(fetch(rt.content, export, "manifest.json").read_text())
    return {
        "run": {
            **run,
            "release": release,
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        },
        "parameters": parameters,
        "data": _data(made["corpus"], parameters),
        "data_gate": {**verdict, "docs": "data_docs/index.html"},
        "model": {
            "preset": parameters["preset"],
            "n_mels": parameters["n_mels"],
            "causal": parameters["causal"],
            "parameters": parts["total"],
            "trained_parameters": parts["trained"],
        },
        "pretrain": made["pretrain"].values["losses"],
        "federation": _history(made["federate"]),
        "cry_gate": _history(made["cry_gate"]) if "cry_gate" in made else None,
        "evaluation": read_evaluation(uris["evaluate"]),
        "membership": read_membership(uris["membership"]),
        "export": {
            "opset": 13,
            "operators": export.values["operators"],
            "size_bytes": bundle["files"]["model.onnx"]["size"],
            "max_abs_diff": export.info["parity"],
            "clips_compared": export.values["parity_clips"],
            "latency_ms": export.info["latency_ms"],
        },
        "provenance": {name: artifact.digest for name, artifact in made.items()},
        "timings": {k: round(v, 2) for k, v in rt.board.timings.items()},
        "peak_memory_mb": peak_memory_mb(),
    }


def _history(federation: Artifact) -> Json:
    history: Json = json.loads(fetch(runtime().content, federation, "history.json").read_text())
    return history


def _data(corpus: Artifact, parameters: Json) -> Json:
    content = runtime().content
    table = pd.read_csv(fetch(content, corpus, "clips.csv"), keep_default_na=False)
    return {
        "synthetic": corpus.values["synthetic"],
        "manifest_digest": corpus.values["manifest"],
        "corpora": sorted(set(table["corpus"])),
        "synth": {**parameters["synth"], "version": SYNTH_VERSION} if corpus.values["synthetic"] else None,
        "parts": by_part(table, table["part"]),
    }
