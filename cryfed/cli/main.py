"""`cryfed`: the command line. Heavy libraries are imported by the commands that need them, so help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from infra import quiet
from models.errors import CryfedError

quiet.apply()

app = typer.Typer(
    name="cryfed",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Infant-cry classification, learned across sites whose audio never leaves them.

Start with **`cryfed retrain`**: it makes a synthetic corpus, checks it, trains a federation, and publishes a release with a
report. Then **`cryfed classify FILE`** hears a recording with it, and **`cryfed evaluate`** scores it on any manifest.
""",
)


class _Commands(typer.core.TyperGroup):
    """Prints our own errors as one line and exits 1; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CryfedError as err:
            typer.secho(f"error: {err}", fg="red", err=True)
            raise typer.Exit(1) from None


app.info.cls = _Commands


@app.command()
def retrain(
    manifest: Annotated[
        Path | None, typer.Option(help="CSV or Parquet of your clips. Without it a synthetic corpus is made.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Size of the network: tiny, compact (the default) or paper.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Federated rounds; default: the recipe's.")] = None,
    gate_rounds: Annotated[
        int | None,
        typer.Option(
            help="Rounds of the gate's own phase before them; 0 leaves it out; default: the recipe's."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is random; default: 7.")] = None,
    difficulty: Annotated[
        float | None, typer.Option(help="Of the synthetic corpus; default: 1.0, the benchmark.")
    ] = None,
    n_mels: Annotated[int | None, typer.Option(help="Mel bins: 64 (the default) or 128.")] = None,
    causal: Annotated[bool | None, typer.Option(help="Let each token see only the past.")] = None,
    override: Annotated[
        str | None,
        typer.Option(help="Go on despite a critical gate failure, for this reason; it is recorded."),
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="JSON file with any of the flow's parameters; the options above win.")
    ] = None,
) -> None:
    """Run the whole pipeline: corpus, gate, features, pretraining, federation, calibration, evaluation, export, release, report.

    What is unchanged since the last run is taken from the store; a run that was killed resumes where it stopped.

    ```
    cryfed retrain                           # synthetic corpus, about 12 minutes
    cryfed retrain --manifest clips.csv      # your own recordings
    cryfed retrain --preset tiny --rounds 3  # a quick look
    ```
    """
    from cryfed.cli.runs import run_retrain

    run_retrain(
        params,
        {
            "manifest": manifest,
            "preset": preset,
            "rounds": rounds,
            "gate_rounds": gate_rounds,
            "seed": seed,
            "difficulty": difficulty,
            "n_mels": n_mels,
            "causal": causal,
            "override": override,
        },
    )


@app.command()
def gate(
    manifest: Annotated[Path, typer.Argument(help="CSV or Parquet of the clips to check.")],
    override: Annotated[
        str | None, typer.Option(help="Reason to accept a critical failure; it is recorded.")
    ] = None,
) -> None:
    """Check a corpus by itself: what is measured, which rules it breaks, and the Data Docs page that shows it.

    Exit status 1 when a critical rule is broken: the same verdict that stops `retrain` before training.
    """
    from cryfed.cli.runs import run_gate

    run_gate(manifest, override)


@app.command()
def deploy(
    channel: Annotated[str, typer.Argument(help="dev, staging or prod.")],
    release: Annotated[str, typer.Option(help="Name of the release.")] = "infant-cry",
    reference: Annotated[
        str | None,
        typer.Option(
            help="Version number, latest, a channel or a digest; default: what the channel before holds."
        ),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option(help="Digest that the channel has to point at now, or `nothing`; refused otherwise."),
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option(help="Manifest of clips on which it is compared with what the channel points at."),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(help="What may be lost at most, in AUROC and macro-F1, lower end of the interval."),
    ] = 0.05,
    fleet: Annotated[
        str | None,
        typer.Option(help="Take it to this fleet first: signed off, ring by ring, rolled back if it fails."),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(help="Seconds for a ring's devices to answer, and for one to install; default: 900."),
    ] = None,
    soak: Annotated[
        float | None, typer.Option(help="Seconds that a ring runs before the next one opens; default: 0.")
    ] = None,
    quorum: Annotated[
        float | None, typer.Option(help="Share of a ring's devices that have to answer; default: 0.8.")
    ] = None,
    poll: Annotated[
        float | None, typer.Option(help="Seconds between two looks at the devices' reports; default: 2.")
    ] = None,
    hold: Annotated[
        float | None,
        typer.Option(help="Seconds to go on watching a ring with too few answers; default: 600."),
    ] = None,
) -> None:
    """Point a channel at a release, after pulling and verifying it: dev → staging → prod. With `--fleet`, take it to devices.

    A channel is moved only from what it was seen to point at; two people who decide at once cannot undo each other.

    On a fleet the release has to be signed off by a clinical key for this very digest. One device gets it, then 5 %, 25 %, all;
    each ring has to pass its test. A build that fails is taken off every device, and the channel stays where it was. Interrupted,
    the same command goes on. Exit status 1 unless the last ring has passed.

    ```
    cryfed deploy staging                    # what dev holds
    cryfed deploy prod                       # what staging holds, nothing else
    cryfed deploy staging --reference 3      # version 3, forward or back
    cryfed deploy staging --clips clips.csv  # only if it is not worse than what staging holds
    cryfed deploy prod --fleet ward-7        # and onto the devices of ward-7, ring by ring
    ```
    """
    from cryfed.cli.runs import run_deploy

    chosen = {"patience_s": patience, "soak_s": soak, "quorum": quorum, "poll_s": poll, "hold_s": hold}
    run_deploy(
        {
            "channel": channel,
            "release": release,
            "reference": reference,
            "expect": expect,
            "clips": clips,
            "margin": margin,
            "fleet": fleet,
            "rollout": {name: value for name, value in chosen.items() if value is not None},
        }
    )


def _register() -> None:
    """The other groups, one file each."""
    from cryfed.cli import (
        data,
        drift,
        evidence,
        experiments,
        federation,
        fleet,
        fleet_keys,
        listen,
        quantise,
        reproduce,
        score,
        server,
        store,
    )

    app.add_typer(data.app, name="data")
    app.add_typer(store.app, name="store")
    app.add_typer(server.app, name="server")
    app.add_typer(federation.app, name="federation")
    app.add_typer(fleet.app, name="fleet")
    fleet_keys.register(app)
    experiments.register(app)
    evidence.register(app)
    drift.register(app)
    reproduce.register(app)
    score.register(app)
    quantise.register(app)
    listen.register(app)


_register()


def main() -> None:
    """Entry point for `python -m cryfed`."""
    app()


if __name__ == "__main__":
    main()
