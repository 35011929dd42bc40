"""`cryfed federation`: a federation across machines: keys, the server, a site, a run, and a demonstration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from infra.federation.real.demo import Demo

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""A federation across machines: one server, one process per site, TLS, a key per site.

**`cryfed federation demo`** shows all of it on this machine. A site's operator needs `keys site`, `site check` and `site start`;
the server's operator `keys server`, `server start`, `server register` and `run`.
""",
)
keys = typer.Typer(
    no_args_is_help=True, help="Make keys and certificates. Nothing is overwritten, nothing printed."
)
server = typer.Typer(no_args_is_help=True, help="The SuperLink, and which sites may take part.")
site = typer.Typer(no_args_is_help=True, help="One site's own process, by its one configuration file.")
app.add_typer(keys, name="keys")
app.add_typer(server, name="server")
app.add_typer(site, name="site")

_Server = Annotated[Path, typer.Argument(help="The server's own folder.")]
_Config = Annotated[Path, typer.Option(help="The site's configuration, TOML.")]


@keys.command("server")
def keys_server(
    folder: _Server,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address by which sites reach the server; repeat for more."),
    ] = None,
) -> None:
    """An authority and a server certificate (397 days) in FOLDER; `ca.pem` is what every site gets.

    To renew the certificate: move `server.pem` and `server.key` away and run this again. `ca.key` is needed for nothing else;
    keep it elsewhere.
    """
    from infra.federation.real.certificates import make_server

    files = make_server(folder, host or [])
    typer.echo(f"for every site: {files.ca}")


@keys.command("site")
def keys_site(
    name: Annotated[str, typer.Argument(help="The site's name.")],
    folder: Annotated[Path, typer.Option(help="Where to put NAME.key and NAME.pub.")] = Path(),
) -> None:
    """A key pair for a site. The .key stays at the site; the .pub goes to the server's operator."""
    from infra.federation.real.certificates import make_site

    private, public = make_site(folder, name)
    typer.echo(f"stays here: {private}")
    typer.echo(f"for the server's operator: {public}")


@server.command("start")
def server_start(
    folder: _Server,
    listen: Annotated[str, typer.Option(help="Address that sites reach; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for sites; 0: any.")] = 9092,
) -> None:
    """Run the SuperLink until Ctrl-C or SIGTERM, for systemd or a container. Registered sites stay registered.

    Only the port for sites listens on that address. The two others stay on loopback: whoever reaches them acts as the server.
    """
    from infra.federation.real.superlink import run_in_foreground

    _end_on_sigterm()
    run_in_foreground(
        folder.resolve(),
        listen=listen,
        port=port,
        on_up=lambda link: typer.echo(f"superlink  port {link.fleet.rpartition(':')[2]}, log in {link.log}"),
    )


@server.command("stop")
def server_stop(folder: _Server) -> None:
    """Stop the SuperLink of FOLDER, and the run that is on; run again, it resumes."""
    from infra.federation.real.superlink import stop_running

    typer.echo(f"superlink  {'stopped' if stop_running(folder.resolve()) else 'was not running'}")


@server.command("register")
def server_register(
    folder: _Server, public: Annotated[list[Path], typer.Argument(help="Sites' public keys: NAME.pub.")]
) -> None:
    """Let sites take part, now and after every restart."""
    from infra.federation.real.members import admit

    for path in public:
        typer.echo(f"registered {admit(folder.resolve(), path)}")
    _announce(folder.resolve())


@server.command("unregister")
def server_unregister(
    folder: _Server, names: Annotated[list[str], typer.Argument(help="As they were registered.")]
) -> None:
    """Let sites take part no more: their keys are refused from now on."""
    from infra.federation.real.members import expel

    for name in names:
        expel(folder.resolve(), name)
        typer.echo(f"unregistered {name}")
    _announce(folder.resolve())


@server.command("status")
def server_status(folder: _Server) -> None:
    """Whether the SuperLink is up, which sites are registered, and which of them are connected."""
    from infra.federation.real.members import members
    from infra.federation.real.superlink import find_running

    link, known = find_running(folder.resolve()), members(folder.resolve())
    typer.echo(f"superlink  {f'port {link.fleet} (pid {link.pid})' if link else 'down'}")
    status: dict[bytes, str] = {}
    if link is not None:
        with link.connect() as control:
            status = {node.public_key: node.status for node in control.nodes()}
    for name, key in known.items():
        typer.echo(f"{name:<10} {status.get(key, 'registered')}")


def _announce(folder: Path) -> None:
    from infra.federation.real.members import announce
    from infra.federation.real.superlink import find_running

    if (link := find_running(folder)) is not None:
        with link.connect() as control:
            announce(folder, control)


def _end_on_sigterm() -> None:
    """SIGTERM as Ctrl-C, so that what was started is stopped."""
    import signal

    def end(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


@site.command("check")
def site_check(config: _Config = Path("site.toml")) -> None:
    """Look at everything that the configuration names: certificate, key, job, data, folder, and whether the server answers.

    Nothing of the site is sent. Exit status 1 where something is wrong.
    """
    from infra.federation.real.config import check_site, load_site_config

    checks = check_site(load_site_config(config))
    for check in checks:
        typer.echo(f"{check.what:<10} ", nl=False)
        typer.secho(check.found, fg=None if check.ok else "red")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@site.command("start")
def site_start(config: _Config = Path("site.toml")) -> None:
    """Take part, in the foreground, until stopped. The log goes to stderr.

    Code that the server might send is never run: what answers is what is installed here.
    """
    from infra.federation.real.supernode import run

    raise typer.Exit(run(config))


@site.command("ledger")
def site_ledger(config: _Config = Path("site.toml")) -> None:
    """Show what training has cost this site's infants so far, run by run, and what is left of the budget."""
    from infra.federation.privacy.ledger import table
    from infra.federation.private import Privacy
    from infra.federation.real.config import load_site_config
    from models.errors import ConfigError

    found = load_site_config(config)
    if found.privacy is None:
        raise ConfigError(f"{config} has no [privacy]: this site trains without noise and keeps no ledger")
    typer.echo(table(Privacy.from_dict(found.privacy).ledger(found.folder).summary()))


@app.command()
def run(
    folder: _Server,
    job: Annotated[Path, typer.Argument(help="The job, JSON, on the server's machine.")],
) -> None:
    """Run a job on the SuperLink of FOLDER and follow it; Ctrl-C ends it, run again it resumes. Exit status 1 where it fails."""
    from infra.federation.real.run import run_job
    from infra.federation.real.superlink import require_running

    result = run_job(require_running(folder.resolve()), job, _tell)
    typer.echo(f"θ        {result.theta}\nhistory  {result.history}")


@app.command("fold")
def fold_phase(
    job: Annotated[Path, typer.Argument(help="A job that has ended, JSON.")],
    out: Annotated[Path, typer.Argument(help="The base model of the next job, safetensors.")],
) -> None:
    """Put what a job has trained into its base model: from the gate's own phase to that of adapters and heads."""
    from infra.federation.fold import fold_job

    typer.echo(f"{fold_job(job, out)}  {out}")


@app.command()
def demo() -> None:
    """A SuperLink and four sites on this machine, TLS and keys included; one site is killed in round 2. About 2 minutes.

    The corpus is synthetic and the base model untrained: it shows what holds, not what is learned. Nothing is left behind.
    """
    import tempfile

    from infra.federation.real.demo import run_demo

    _end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="cryfed-") as folder:
        _table(run_demo(Path(folder), typer.echo))


def _tell(event: Mapping[str, Any]) -> None:
    if event["event"] != "round":
        typer.echo(event["event"])
        return
    losses = ", ".join(f"{name} {value:.3f}" for name, value in event["losses"].items())
    typer.echo(
        f"round {event['round']} of {event['rounds']}: {event['survivors']} updates, {losses}, "
        f"{event['uploaded_mb']} MB up in all, {event['seconds']:.1f} s"
    )
    for name, why in event["failures"].items():
        typer.secho(f"  {name}: {why['kind']}: {why['reason']}", fg="yellow")
    if event["skipped"]:
        typer.secho(f"  skipped: {event['skipped']}", fg="yellow")
    for alarm in event["alarms"]:
        typer.secho(f"  {alarm['kind']}: {alarm['what']}; {alarm['cause']}", fg="red")


def _table(found: Demo) -> None:
    from rich.console import Console
    from rich.table import Table

    rounds = found.history["rounds"]
    table = Table(box=None)
    for name in ("round", "updates", "lost", "kB down", "kB up", *rounds[0]["losses"], "seconds"):
        table.add_column(name, justify="right")
    for record, timing in zip(rounds, found.timings["rounds"], strict=True):
        table.add_row(
            str(record["round"]),
            str(len(record["survivors"])),
            ", ".join(record["failures"]) or "–",
            f"{sum(record['bytes_down'].values()) / 1e3:.0f}",
            f"{sum(record['bytes_up'].values()) / 1e3:.0f}",
            *(f"{value:.3f}" for value in record["losses"].values()),
            f"{timing['seconds']:.1f}",
        )
    Console().print(table)
    typer.echo(
        f"finished without {found.killed}: {len(rounds)} rounds, {len(found.calibrated)} sites calibrated, "
        f"θ {found.history['theta'][:12]}…, {found.seconds:.0f} s in all; everything stopped"
    )
