"""`cryfed retrain`, `cryfed gate` and `cryfed deploy`: start what the flows need, run them, say what came out."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from infra.settings import Settings, load_settings
from models.errors import ConfigError


@contextmanager
def prefect_session(settings: Settings) -> Iterator[None]:
    """A Prefect API to run against: PREFECT_API_URL, the embedded server that is up, or one for this run alone.

    Raises:
        ServerError: the embedded server does not come up.
    """
    from infra.servers import prefect_server

    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    with prefect_server.session(settings.work_dir) as server:
        os.environ.update(server.client_environment())
        yield


def run_retrain(params: Path | None, options: Mapping[str, Any]) -> None:
    """Run the retrain flow with the options of the command line over those of a JSON file."""
    settings = load_settings()
    raw = _read_params(params)
    difficulty = options["difficulty"]
    for name, value in options.items():
        if name != "difficulty" and value is not None:
            raw[name] = str(value.resolve()) if isinstance(value, Path) else value
    if difficulty is not None:
        raw["synth"] = {**raw.get("synth", {}), "difficulty": difficulty}
    console = Console(stderr=True, highlight=False)
    from flows.parameters import RetrainParameters

    parameters = _checked(RetrainParameters, raw)
    from tasks.memory import watch_memory

    watch_memory()
    with prefect_session(settings):
        from flows.retrain import retrain

        what = parameters.manifest or "the synthetic corpus"
        console.print(f"[bold]cryfed retrain[/]  {what}, preset {parameters.preset}")
        result = _quietly(retrain, parameters)
    _summary(Path(result["folder"]), result)


def run_gate(manifest: Path, override: str | None) -> None:
    """Run the gate flow on one manifest."""
    settings = load_settings()
    from flows.parameters import GateParameters

    parameters = _checked(GateParameters, {"manifest": str(manifest.resolve()), "override": override})
    with prefect_session(settings):
        from flows.gate import gate
        from tasks.gate import copy_data_docs, read_verdict
        from tasks.runtime import open_runtime

        with open_runtime():
            result = _quietly(gate, parameters)
            verdict = read_verdict(result["verdict"])
            docs = settings.runs_dir / "data_docs"
            docs.mkdir(parents=True, exist_ok=True)
            copy_data_docs(result["verdict"], docs)
    for finding in verdict.warnings:
        typer.secho(f"warning {finding}", fg="yellow")
    typer.echo(f"passed: {verdict.clips} clips, {len(verdict.rules)} rules, {len(verdict.warnings)} warnings")
    if result["drift"]:
        typer.echo(f"against the latest run: {result['drift']}")
    typer.echo(f"Data Docs: {docs / 'index.html'}")


def run_deploy(options: Mapping[str, Any]) -> None:
    """Run the deploy flow."""
    settings = load_settings()
    from flows.parameters import DeployParameters

    parameters = _checked(DeployParameters, dict(options))
    with prefect_session(settings):
        from flows.deploy import deploy

        result = _quietly(deploy, parameters)
    if rollout := result.get("rollout"):
        signed = result["signed_off"]
        typer.echo(f"signed off by {signed['by']}, key {', '.join(k[:16] for k in signed['keys'])}")
        typer.echo(f"{parameters.fleet}: {rollout['phase']}, {rollout['why']}")
        typer.echo(f"devices: {rollout['page']}")
    verb = "now at" if result["moved"] else "was already at"
    typer.echo(f"{result['channel']} {verb} {result['name']}@{result['version']}, {result['digest']}")
    if result["moved"]:
        typer.echo(f"before: {result['previous'] or 'nothing'}")


def _quietly(flow: Any, parameters: Any) -> Any:
    """Run a flow; its errors are raised as themselves, once, without the engine's own copy of the traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return flow(parameters)


def _read_params(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as err:
        raise ConfigError(f"cannot read the parameters {path}: {err}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"the parameters {path} are not a JSON object: see `cryfed retrain --help`")
    return raw


def _checked(model: Any, raw: dict[str, Any]) -> Any:
    try:
        return model.model_validate(raw)
    except ValidationError as err:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'parameters'}: {e['msg']}" for e in err.errors()]
        raise ConfigError("the parameters are not valid:\n" + "\n".join(lines)) from None


def _summary(folder: Path, result: Mapping[str, str]) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    evaluation, kind = metrics["evaluation"], "synthetic" if metrics["data"]["synthetic"] else "real"
    table = Table(
        title=f"{kind} clips, held-out groups, 95 % interval by group", title_justify="left", box=None
    )
    for name in ("", "federated", "central", "logistic", "majority"):
        table.add_column(name, justify="left" if not name else "right")
    systems = evaluation["systems"]
    columns = [systems.get(n) for n in ("federated", "central", "logistic_regression", "majority")]
    for label, key in (("gate AUROC", "gate_auroc"), ("reason macro-F1", "macro_f1")):
        table.add_row(
            label, *(_estimate(column and column.get(key), full=i == 0) for i, column in enumerate(columns))
        )
    Console().print(table)
    decision = evaluation["release"]
    typer.echo(f"reason head: {'shipped' if decision['ship_reason_head'] else 'withheld'}: {decision['why']}")
    typer.echo(f"release: {result['name']} version {result['version']}, {result['digest']}")
    typer.echo(f"report: {folder / 'report.html'}")


def _estimate(value: Mapping[str, Any] | None, *, full: bool) -> str:
    if not value or value["value"] is None:
        return "–"
    text = f"{value['value']:.3f}"
    return f"{text} ({value['low']:.3f}–{value['high']:.3f})" if full and value["low"] is not None else text
