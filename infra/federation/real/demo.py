"""A whole federation on one machine, with a site that is killed in the middle of a round.

Keys and certificates, a synthetic corpus, a SuperLink and four sites as processes of their own, TLS, node authentication; gate
and features at the sites, three rounds, calibration. In round 2 one site gets SIGKILL while it trains, and the round closes with
the other three. The base model is tiny and untrained: what is shown is the machinery, not what it learns.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra import quiet
from infra.data.synth.config import REASONS, SynthConfig
from infra.data.synth.corpus import synthesise
from infra.federation.files import encode_arrays
from infra.federation.identity import load_identity, verification_key
from infra.federation.job import FederationJob, SiteSpec
from infra.federation.local.plan import DataPlan
from infra.federation.real import superlink
from infra.federation.real.certificates import CA, make_server, make_site
from infra.federation.real.members import admit
from infra.federation.real.run import run_job
from infra.servers import process
from infra.servers.process import ServerProcess
from models.config import preset
from models.network import CryNet
from models.state import to_arrays

Say = Callable[[str], None]

SITES: Final = 4
ROUNDS: Final = 3
KILL_ROUND: Final = 2
NAME: Final = "site"  # of a site's process, in its folder

_LOCAL: Final = {"steps": 150, "batch_size": 16}  # seconds of work, so that there is a middle to be killed in
_PLAN: Final = {"features": {"train_views": 1, "test_snrs": [5.0]}}
_CORPUS: Final = SynthConfig(
    sites=SITES,
    infants_per_site=5,
    cries_per_infant=6,
    noncries_per_site=35,
    public_noise=10,
    clip_seconds=1.0,
)


@dataclass(frozen=True)
class Demo:
    """What came of it: history and timings as the federation wrote them, and who was killed."""

    history: Mapping[str, Any]
    timings: Mapping[str, Any]
    calibrated: tuple[str, ...]
    killed: str
    seconds: float


def run_demo(folder: Path, say: Say) -> Demo:
    """Set everything up in `folder`, run it, take everything down again, also on errors and Ctrl-C.

    Raises:
        CryfedError: a part did not start, or the federation did not finish without the killed site.
    """
    started = time.monotonic()
    corpus = synthesise(_CORPUS, folder / "corpus")
    say(f"corpus     {SITES} sites, synthetic (seed {_CORPUS.seed})")
    job, document = _write_job(folder)
    say("network    tiny and untrained: this shows what holds, not what is learned")
    server = folder / "server"
    make_server(server)
    for site in job.site_names:
        admit(server, make_site(folder / "sites" / site, site)[1])
    say("keys       an authority, a server certificate, a key per site")
    with ExitStack() as stack:
        link = superlink.ensure_running(server)
        stack.callback(superlink.stop_running, server)
        say(f"superlink  {link.fleet}, TLS, registered keys only (pid {link.pid})")
        sites: dict[str, ServerProcess] = {}
        stack.callback(stop_sites, [folder / "sites" / site for site in job.site_names])
        for site in job.site_names:
            own = folder / "sites" / site
            sites[site] = start_site(own, _write_config(own, site, link, document, corpus))
        say(f"sites      {', '.join(f'{name} (pid {p.pid})' for name, p in sites.items())}")
        victim = job.site_names[-1]
        killer = _Killer(
            sites[victim], lambda: say(f"SIGKILL    {victim}, while it trains in round {KILL_ROUND}")
        )
        stack.callback(killer.stop)
        result = run_job(link, document, lambda event: _tell(event, say))
    calibrations = json.loads((job.out_dir / "calibrations.json").read_text())
    return Demo(
        history=json.loads(result.history.read_text()),
        timings=json.loads(result.timings.read_text()),
        calibrated=tuple(calibrations["sites"]),
        killed=victim,
        seconds=time.monotonic() - started,
    )


def start_site(folder: Path, config: Path) -> ServerProcess:
    """A site's process in the background, recorded and logged in its folder."""
    environment = {**os.environ, **quiet.QUIET, "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "infra.federation.real.supernode", str(config)]
    return process.spawn(process.private_folder(folder), NAME, argv, environment, {})


def stop_sites(folders: Iterable[Path]) -> None:
    """Stop the sites' processes of these folders, those that run, at the same time."""
    running = {folder: found for folder in folders if (found := process.find(folder, NAME)) is not None}
    for found in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGTERM)
    for folder, found in running.items():
        process.stop(folder, found)


class _Killer:
    """Kills a site's process once its log says that it trains in `KILL_ROUND`."""

    def __init__(self, victim: ServerProcess, on_kill: Callable[[], None]) -> None:
        self._victim = victim
        self._on_kill = on_kill
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no longer."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        log, mark = Path(self._victim.log), f"round {KILL_ROUND}: train.step"
        while not self._over.wait(0.05):
            if mark in log.read_text(errors="replace"):
                os.kill(self._victim.pid, signal.SIGKILL)
                self._on_kill()
                return


def _write_job(folder: Path) -> tuple[FederationJob, Path]:
    cfg = preset("tiny")
    base = folder / "base.safetensors"
    base.write_bytes(encode_arrays(to_arrays(CryNet(cfg, REASONS, seed=1))))
    sites = []
    for name in (f"site-{i}" for i in range(SITES)):
        own = folder / "sites" / name / "own"
        sites.append(SiteSpec(name=name, folder=own, identity=verification_key(load_identity(own)).hex()))
    job = FederationJob(
        sites=tuple(sites),
        base_model=base,
        network=cfg.to_dict(),
        reasons=REASONS,
        rounds=ROUNDS,
        local=dict(_LOCAL),
        data=DataPlan.from_dict(_PLAN).to_dict(),
        seed=3,
        min_sites=SITES - 1,
        retries=0,
        timeout_s=120.0,
        checkpoint_dir=folder / "checkpoint",
        out_dir=folder / "out",
    )
    document = folder / "federation.json"
    job.save(document)
    return job, document


def _write_config(folder: Path, site: str, link: superlink.SuperLink, job: Path, manifest: Path) -> Path:
    lines = {
        "site": site,
        "superlink": link.fleet,
        "ca": link.folder / CA,
        "key": folder / f"{site}.key",
        "job": job,
        "folder": folder / "own",
        "manifest": manifest,
    }
    config = folder / "site.toml"
    config.write_text("".join(f"{name} = {json.dumps(str(value))}\n" for name, value in lines.items()))
    return config


def _tell(event: Mapping[str, Any], say: Say) -> None:
    kind = event["event"]
    if kind == "gate":
        passed = sum(bool(v["passed"]) for v in event["sites"].values())
        say(f"gate       {passed} of {len(event['sites'])} sites pass their own")
    elif kind == "features":
        say(f"features   extracted at {len(event['sites'])} sites")
    elif kind == "start":
        say(f"start      updates travel {'under masks' if event.get('secure') else 'unmasked'}")
    elif kind == "round":
        lost = ", ".join(event["failures"]) or "none"
        say(f"round {event['round']}    {event['survivors']} updates, lost: {lost}, {event['seconds']:.1f} s")
    elif kind == "calibrate":
        say(f"calibrate  {event['sites']} sites")
