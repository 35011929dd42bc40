"""A whole synthetic corpus on disk: one WAV a clip, `manifest.csv` and the truth in `attributes.csv`.

    out/
      site-0/cry-i00-0.wav …     site-0/babble-00.wav …
      noise/rain-00.wav …
      attributes.csv
      manifest.csv               written last: its existence means that the corpus is complete

Each site is drawn from seeds of its own, so sites can be made in parallel and in any order. The namespace is part of every
seed: the pool for pretraining (`public`) shares no infant, room or clip with the `federation`.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Final, Literal

import numpy as np

from infra.data.audio import encode_wav, write_bytes
from infra.data.synth.channel import draw_site, record
from infra.data.synth.config import NON_CRIES, PUBLIC_NOISE, REASONS, SAMPLE_RATE, SYNTH_VERSION, SynthConfig
from infra.data.synth.noises import MAKERS
from infra.data.synth.prosody import ATTRIBUTES, attributes, draw_infant, plan_cry
from infra.data.synth.voice import render_cry
from infra.digest import digest_bytes
from models.errors import OutputError
from models.seeds import derive_seed

Namespace = Literal["federation", "public"]
Row = dict[str, str]

MANIFEST: Final = "manifest.csv"
COLUMNS: Final = (
    "path", "label", "role", "corpus", "group", "sha256", "site", "age", "sex", "platform", "duration_s", "licence", "author",
)  # fmt: skip
POOL_LABEL: Final = "cry"
"""Label of the public pool's cries: it holds no reasons, so pretraining cannot learn one."""


def _rng(cfg: SynthConfig, namespace: str, *parts: object) -> np.random.Generator:
    return np.random.Generator(
        np.random.PCG64(derive_seed("synth", SYNTH_VERSION, cfg.seed, namespace, *parts))
    )


def _row(cfg: SynthConfig, namespace: str, path: str, wav: bytes, **more: str) -> Row:
    return {
        "path": path, "sha256": digest_bytes(wav), "corpus": f"synth{SYNTH_VERSION}-{namespace}",
        "duration_s": f"{cfg.clip_seconds:g}", "licence": "CC0-1.0", "author": "cryfed synthesiser",
        "age": "", "sex": "", "platform": "synthetic", "site": "", **more,
    }  # fmt: skip


def _reason_mix(cfg: SynthConfig, namespace: str, site: int) -> list[str]:
    """Reasons of the site's cries, in dealing order: skewed per site, but every reason is there."""
    rng = _rng(cfg, namespace, "mix", site)
    share = rng.dirichlet(np.full(len(REASONS), 6.0))
    n = cfg.infants_per_site * cfg.cries_per_infant
    floor = n // (2 * len(REASONS))  # half the cries evenly, the other half by the site's own mix
    counts = floor + rng.multinomial(n - floor * len(REASONS), share)
    return [str(r) for r in rng.permutation(np.repeat(REASONS, counts))]


def synthesise_site(
    cfg: SynthConfig, site: int, out_dir: Path, namespace: Namespace = "federation"
) -> list[Row]:
    """Make one site's clips under `out_dir/site-<n>/` and return their manifest rows, attributes included.

    Raises:
        OutputError: the folder cannot be written.
    """
    name = f"site-{site}" if namespace == "federation" else f"public-{site}"
    channel = draw_site(_rng(cfg, namespace, "site", site))
    n = round(cfg.clip_seconds * SAMPLE_RATE)
    rows: list[Row] = []
    reasons = iter(_reason_mix(cfg, namespace, site))
    for i in range(cfg.infants_per_site):
        infant_rng = _rng(cfg, namespace, "infant", site, i)
        infant = draw_infant(infant_rng, cfg.difficulty)
        who = {"age": str(int(infant_rng.integers(0, 7))), "sex": "f" if infant_rng.random() < 0.5 else "m"}
        for k in range(cfg.cries_per_infant):
            reason = next(reasons) if namespace == "federation" else None
            rng = _rng(cfg, namespace, "cry", site, i, k)
            plan = plan_cry(rng, infant, reason, cfg.clip_seconds, cfg.difficulty)
            wav = encode_wav(record(render_cry(plan, cfg.clip_seconds, rng), channel, rng))
            path = f"{name}/cry-i{i:02d}-{k}.wav"
            write_bytes(out_dir / path, wav)
            truth = {key: repr(round(value, 6)) for key, value in attributes(plan).items()}
            rows.append(
                _row(cfg, namespace, path, wav, label=reason or POOL_LABEL, role="cry", site=name,
                     group=f"{name}-i{i:02d}", **who, **truth)
            )  # fmt: skip
    for k in range(cfg.noncries_per_site):
        kind = NON_CRIES[k % len(NON_CRIES)]
        rng = _rng(cfg, namespace, "noncry", site, k)
        wav = encode_wav(record(MAKERS[kind](rng, n), channel, rng))
        path = f"{name}/{kind}-{k:02d}.wav"
        write_bytes(out_dir / path, wav)
        # recorded by an infant's phone, so it shares that infant's group and part. `k // kinds` turns the wheel once a
        # round: every infant meets several kinds, and every kind several infants
        owner = (k + k // len(NON_CRIES)) % cfg.infants_per_site
        rows.append(
            _row(
                cfg,
                namespace,
                path,
                wav,
                label=kind,
                role="ood_noncry",
                site=name,
                group=f"{name}-i{owner:02d}",
            )
        )
    return rows


def synthesise_noise(cfg: SynthConfig, out_dir: Path, namespace: Namespace = "federation") -> list[Row]:
    """Public background noise under `out_dir/noise/`; every clip has a recorder and a place of its own."""
    n = round(cfg.clip_seconds * SAMPLE_RATE)
    rows: list[Row] = []
    for k in range(cfg.public_noise):
        kind = PUBLIC_NOISE[k % len(PUBLIC_NOISE)]
        rng = _rng(cfg, namespace, "noise", k)
        wav = encode_wav(record(MAKERS[kind](rng, n), draw_site(rng), rng))
        path = f"noise/{kind}-{k // len(PUBLIC_NOISE):02d}.wav"
        write_bytes(out_dir / path, wav)
        rows.append(_row(cfg, namespace, path, wav, label=kind, role="noise", group=f"noise-{kind}-{k:03d}"))
    return rows


def _table(rows: list[Row], columns: tuple[str, ...]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def start(out_dir: Path) -> None:
    """Make the folder; a manifest that is there goes away, for until `finish` the corpus is not complete.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / MANIFEST).unlink(missing_ok=True)
    except OSError as err:
        raise OutputError(f"cannot write {out_dir}: {err.strerror or err}; choose another folder") from None


def finish(rows: list[Row], out_dir: Path) -> Path:
    """Write `attributes.csv` and then `manifest.csv` over all sites' rows; return the manifest's path."""
    rows = sorted(rows, key=lambda r: r["path"])
    cries = [r for r in rows if r["role"] == "cry"]
    write_bytes(out_dir / "attributes.csv", _table(cries, ("path", *ATTRIBUTES)))
    write_bytes(out_dir / MANIFEST, _table(rows, COLUMNS))
    return out_dir / MANIFEST


def synthesise(cfg: SynthConfig, out_dir: Path, namespace: Namespace = "federation") -> Path:
    """Make a whole corpus and return the path of its `manifest.csv`.

    Raises:
        OutputError: the folder cannot be written.
    """
    start(out_dir)
    rows = [row for site in range(cfg.sites) for row in synthesise_site(cfg, site, out_dir, namespace)]
    return finish(rows + synthesise_noise(cfg, out_dir, namespace), out_dir)
