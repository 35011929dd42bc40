"""What privacy costs and what it buys, on synthetic infants: scores on held-out ones, and attacks on those trained on.

    OMP_NUM_THREADS=1 python -m benchmarks.privacy --out privacy.json

Every site has as many infants held out as it trains on. One training without privacy and one for each noise multiplier, all of
the same rounds and steps from the same base model; results are written after each. Everything is synthetic.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from infra.data.features import FeatureConfig, extract_site, load_frames, load_noise_bank, save_frames
from infra.data.manifest import load_manifest
from infra.data.pretraining import pretraining_set
from infra.data.synth.config import REASONS, SynthConfig
from infra.data.synth.corpus import MANIFEST, synthesise
from infra.digest import digest_json
from infra.evaluation.membership import Trained, attack_training
from infra.federation.files import decode_arrays, encode_arrays
from infra.federation.privacy.accountant import epsilon
from models.adapters import Vector, get_vector, set_vector
from models.bootstrap import group_bootstrap
from models.config import preset
from models.dp_step import PrivacyConfig, dp_local_step
from models.frames import TEST, TRAIN, SiteFrames
from models.infants import InfantTokens
from models.local_step import LocalConfig, TokenSet, pool_tokens
from models.metrics import auroc, confusion, macro_f1
from models.network import CryNet
from models.plain_loop import Round, run_rounds
from models.predict import concat_scores, frame_tokens, predict
from models.pretrain import BackboneConfig, DenoiserConfig, pretrain_backbone, pretrain_denoiser
from models.seeds import derive_seed
from models.server_step import RoundSum, ServerConfig, ServerState, server_step
from models.state import load_arrays, to_arrays

Json = dict[str, Any]
Train = Callable[[Mapping[str, InfantTokens], int], list[Vector]]
"""Infants by site and a seed → θ before the first round and after every one."""


@dataclass(frozen=True)
class World:
    """A pretrained network, and the sites' frames with their tokens."""

    net: CryNet
    frames: dict[str, SiteFrames]
    tokens: dict[str, np.ndarray]

    def infants(self, site: str, part: int) -> InfantTokens:
        """One site's infants of one part, clips as recorded."""
        f = self.frames[site]
        rows = np.flatnonzero((f.part[f.clip] == part) & (f.view == 0))
        clip = f.clip[rows]
        tokens = TokenSet(
            self.tokens[site][rows], f.gate[clip], f.reason[clip], np.ones(len(rows), np.float32)
        )
        return InfantTokens(tokens, np.unique(f.group[clip], return_inverse=True)[1])


def build(args: argparse.Namespace, folder: Path) -> World:
    """Synthesise, extract and pretrain; what is there already is taken."""
    cfg = preset(args.preset)
    synth = SynthConfig(
        sites=args.sites, infants_per_site=2 * args.infants, cries_per_infant=2, noncries_per_site=2 * args.infants,
        public_noise=40, clip_seconds=2.0, seed=args.seed,
    )  # fmt: skip
    pool = SynthConfig(sites=6, seed=77)
    corpus = folder / f"corpus-{synth.digest('federation')[:12]}"
    public = folder / f"pool-{pool.digest('public')[:12]}"
    for config, where, namespace in ((synth, corpus, "federation"), (pool, public, "public")):
        if not (where / MANIFEST).is_file():
            synthesise(config, where, namespace)  # type: ignore[arg-type]
    net = CryNet(cfg, REASONS, seed=0)
    base = folder / f"base-{digest_json(cfg.to_dict())[:12]}.safetensors"
    if not base.is_file():
        made = load_manifest(public / MANIFEST)
        bank = load_noise_bank(made.table, made.root, np.full(len(made.table), TRAIN))
        data = pretraining_set(made, bank, cfg.log_mel)
        pretrain_denoiser(net, data, replace(DenoiserConfig(), threads=1))
        pretrain_backbone(net, data, replace(BackboneConfig(), threads=1))
        base.write_bytes(encode_arrays(dict(to_arrays(net))))
    load_arrays(net, decode_arrays(base.read_bytes(), str(base)))
    frames, tokens = {}, {}
    manifest = load_manifest(corpus / MANIFEST)
    for site in manifest.sites:
        path = corpus / f"{site}.safetensors"
        if not path.is_file():
            table = manifest.table[manifest.table["site"] == site]
            number = table["group"].str.extract(r"-i(\d+)$")[0].astype(int)
            parts = np.where(number < args.infants, TRAIN, TEST)
            bank = load_noise_bank(table, manifest.root, parts)
            views = FeatureConfig(train_views=0, test_snrs=())
            made_frames = extract_site(table, manifest.root, bank, parts, REASONS, cfg.log_mel, cfg=views)
            save_frames(made_frames, path)
        frames[site] = load_frames(path)
        tokens[site] = frame_tokens(net, frames[site].log_mel)
    return World(net, frames, tokens)


def trainer(net: CryNet, rounds: int, local: LocalConfig, privacy: PrivacyConfig | None) -> Train:
    """The plain loop, or the same with private steps."""
    server = ServerConfig()

    def plain(sites: Mapping[str, InfantTokens], seed: int) -> list[Vector]:
        thetas = [get_vector(net)]

        def note(done: Round) -> None:
            thetas.append(done.theta)

        sets = {name: infants.tokens for name, infants in sites.items()}
        run_rounds(net, sets, rounds=rounds, local=local, server=server, seed=seed, on_round=note)
        return thetas

    def private(sites: Mapping[str, InfantTokens], seed: int) -> list[Vector]:
        assert privacy is not None
        source = np.random.default_rng(derive_seed(seed, "noise")).bytes  # for repeatable numbers, no promise
        state = ServerState.initial(get_vector(net))
        thetas = [state.theta]
        for _ in range(rounds):
            deltas = [
                dp_local_step(net, sites[name], state.theta, local, privacy, source=source).delta
                for name in sorted(sites)
            ]
            total = np.asarray(np.sum(deltas, axis=0, dtype=np.float64))
            state = server_step(state, RoundSum(total, len(deltas)), server)
            thetas.append(state.theta)
        set_vector(net, thetas[0])
        return thetas

    return plain if privacy is None else private


def scores(world: World, theta: Vector, part: int, seed: int) -> Json:
    """Gate AUROC and macro-F1 of the reasons on the clips of one part, with group-bootstrap intervals."""
    start = get_vector(world.net)
    set_vector(world.net, theta)
    every = concat_scores([predict(world.net, f, world.tokens[s]) for s, f in world.frames.items()])
    set_vector(world.net, start)
    s = every.of_part(part)
    cries = s.gate == 1
    truth, answer, c = s.reason[cries], s.reason_logits[cries].argmax(1), len(s.reasons)
    return {
        "gate_auroc": group_bootstrap(lambda w: auroc(s.gate_logit, cries, w), s.group, seed=seed).to_dict(),
        "macro_f1": group_bootstrap(
            lambda w: macro_f1(confusion(truth, answer, c, w)), s.group[cries], seed=seed
        ).to_dict(),
    }


def main() -> None:
    """Run all arms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--folder", type=Path, default=Path(".cryfed/privacy"), help="corpora and base models"
    )
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--infants", type=int, default=300, help="trained on, per site; as many are held out")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=25, help="per round")
    parser.add_argument("--lr", type=float, default=LocalConfig().lr, help="without privacy")
    parser.add_argument("--private-lr", type=float, nargs="+", default=[0.02])
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=16, help="expected infants a step")
    parser.add_argument("--sigma", type=float, nargs="*", default=[1.0, 1.5])
    parser.add_argument("--delta", type=float, default=1e-4)
    parser.add_argument(
        "--watched", type=int, default=5, help="rounds whose sums are attacked, evenly spread"
    )
    parser.add_argument("--references", type=int, default=2, help="0 leaves the calibrated attack out")
    parser.add_argument("--no-attacks", action="store_true", help="scores alone, to choose a learning rate")
    parser.add_argument("--seed", type=int, default=20251213)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    world = build(args, args.folder)
    members = {site: world.infants(site, TRAIN) for site in world.frames}
    others = {site: world.infants(site, TEST) for site in world.frames}
    local = LocalConfig(steps=args.steps, lr=args.lr)
    arms: list[tuple[str, LocalConfig, PrivacyConfig | None]] = [("no privacy", local, None)]
    for sigma in args.sigma:
        for lr in args.private_lr:
            privacy = PrivacyConfig(sigma, args.clip, args.batch, delta=args.delta)
            arms.append((f"sigma {sigma:g} lr {lr:g}", replace(local, lr=lr), privacy))
    rate = PrivacyConfig(1.0, infants_per_step=args.batch).sampling_rate(args.infants)
    document: Json = {
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "synthetic": True,
        "parameters": int(get_vector(world.net).size),
        "frames": {site: len(i.tokens) for site, i in members.items()},
        "setup_seconds": round(time.monotonic() - started, 1),
        "untrained": scores(world, get_vector(world.net), TEST, args.seed),
        "arms": {},
    }
    if (
        args.out.is_file()
        and (before := json.loads(args.out.read_text()))["arguments"] == document["arguments"]
    ):
        document["arms"] = before["arms"]  # a run that was broken off goes on
    for name, cfg, promised in [arm for arm in arms if arm[0] not in document["arms"]]:
        began = time.monotonic()
        train = trainer(world.net, args.rounds, cfg, promised)
        thetas = train(members, args.seed)
        seconds = time.monotonic() - began
        promise = None
        if promised is not None:
            steps = args.rounds * args.steps
            spent = epsilon(steps, rate, promised.noise_multiplier, promised.delta)
            promise = {
                "unit": "infant",
                "epsilon": spent,
                "steps": steps,
                "sampling_rate": rate,
                **asdict(promised),
            }
        entry: Json = {
            "privacy": promise,
            "lr": cfg.lr,
            "train_seconds": round(seconds, 1),
            "held_out": scores(world, thetas[-1], TEST, args.seed),
            "trained_on": scores(world, thetas[-1], TRAIN, args.seed),
        }
        if not args.no_attacks:
            entry["membership"] = attack(world, members, others, thetas, cfg, train, promise, args)
        document["arms"][name] = entry
        args.out.write_text(json.dumps(document, indent=1))
        print(line(name, entry), flush=True)


def attack(
    world: World,
    members: Mapping[str, InfantTokens],
    others: Mapping[str, InfantTokens],
    thetas: list[Vector],
    cfg: LocalConfig,
    train: Train,
    promise: Json | None,
    args: argparse.Namespace,
) -> Json:
    """All attacks, the server having watched some rounds; reference models are trained as the arm itself, at one site each."""

    def reference(infants: InfantTokens, seed: int) -> Vector:
        return train({"reference": infants}, seed)[-1]

    seen = np.unique(np.linspace(0, len(thetas) - 2, args.watched).round().astype(int))
    rounds = [(thetas[k], thetas[k] - thetas[k + 1]) for k in seen]
    return attack_training(
        world.net,
        pooled(members),
        pooled(others),
        Trained(thetas[-1], rounds, promise),
        cfg,
        reference=reference if args.references else None,
        references=args.references,
        seed=args.seed,
    )


def pooled(sites: Mapping[str, InfantTokens]) -> InfantTokens:
    """All sites' infants, numbered through."""
    infant, first = [], 0
    for infants in sites.values():
        infant.append(infants.infant + first)
        first = int(infant[-1].max()) + 1
    return InfantTokens(pool_tokens([i.tokens for i in sites.values()]), np.concatenate(infant))


def line(name: str, entry: Json) -> str:
    """An arm in one line."""

    def interval(x: Json) -> str:
        return f"{x['value']:.3f} [{x['low']:.3f}, {x['high']:.3f}]"

    parts = [f"{name}: ε {entry['privacy']['epsilon']:.2f}" if entry["privacy"] else name]
    parts += [f"{k} {interval(v)}" for k, v in entry["held_out"].items()]
    for attack_name, found in entry.get("membership", {}).get("attacks", {}).items():
        parts.append(
            f"{attack_name}: AUC {interval(found['auc'])}, TPR {interval(found['tpr_at_1_percent_fpr'])}"
        )
    return "; ".join(parts) + f"; {entry['train_seconds']} s"


if __name__ == "__main__":
    main()
