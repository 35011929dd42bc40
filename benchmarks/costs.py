"""Milliseconds of each operation of codec and secure aggregation, for one vector on one core."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.timing import Spread, repeat
from infra.federation.masked_layout import sections
from infra.federation.secagg.context import Context, Member, Roster, default_threshold
from infra.federation.secagg.masking import Words, add_mask, pack_words, to_words, unpack_words
from infra.federation.secagg.messages import Delivery
from infra.federation.secagg.primitives import new_secret
from infra.federation.secagg.server import ServerRound
from infra.federation.secagg.site import SiteRound
from infra.federation.tally import tally_size
from infra.federation.training import TrainingPlan
from models.quantise import Quantiser, QuantiserConfig
from models.ring import pack, unpack
from models.seeds import rotation_seed

N_REASONS = 5


def measure(size: int, bits: int, sites: int, times: int) -> dict[str, Spread]:
    """By operation; what is a site's is for one site, what is the server's for one round."""
    codec = QuantiserConfig(bits=bits)
    seed = rotation_seed(0, 1)
    quantiser = Quantiser(size, codec, seed)
    rng = np.random.Generator(np.random.PCG64(0))
    update = rng.normal(size=size)
    update /= np.linalg.norm(update)
    levels = quantiser.encode(update, rng).levels
    total = levels.astype(np.uint32) * sites

    cohort = Cohort(TrainingPlan(codec=codec, secure=True), size, sites)
    values: list[np.ndarray] = [levels, np.zeros(tally_size(N_REASONS), np.uint32)]
    cohort.share()
    site, delivery, identity = cohort.sites[0], cohort.deliveries[0], cohort.identities[0]
    words = to_words(cohort.context, values)
    seeds = [new_secret() for _ in range(sites)]
    packed = pack_words(cohort.context, words)
    ring = cohort.context.sections[0].bits
    bare = packed[: cohort.context.sections[0].packed_bytes]

    def mask_all(section: tuple[Words, ...]) -> None:
        for one in seeds:
            add_mask(section, one)

    work = {
        "rotation set up": lambda: Quantiser(size, codec, seed),
        "clip": lambda: quantiser.clip_norm(update),
        "encode": lambda: quantiser.encode(update, rng),
        "decode": lambda: quantiser.decode(levels),
        "server: decode the sum": lambda: quantiser.decode_sum(total, sites),
        f"mask, {sites} keystreams": lambda: mask_all(words),
        f"pack to {ring} bits": lambda: pack(levels, ring),
        f"unpack from {ring} bits": lambda: unpack(bare, quantiser.padded, ring),
        "site: mask, pack, sign": lambda: site.mask(delivery, values, identity, site.spent),
        "server: unpack": lambda: unpack_words(cohort.context, packed),
    }
    found = {name: repeat(call, times) for name, call in work.items()}
    everyone = range(sites)
    for name, present in (("no drop", everyone), ("one drop", everyone[1:])):
        server = cohort.unmasked(values, present)
        found[f"server: unmask, {name}"] = repeat(lambda server=server: server.total(), times)  # type: ignore[misc]
    return found


class Cohort:
    """Sites and server of one attempt, in memory."""

    def __init__(self, plan: TrainingPlan, size: int, n: int) -> None:
        names = [f"site{i:02d}" for i in range(n)]
        keys = [hashlib.sha256(name.encode()).digest() for name in names]
        self.identities = [Ed25519PrivateKey.from_private_bytes(key) for key in keys]
        public = [identity.public_key().public_bytes_raw() for identity in self.identities]
        self.context = Context(
            run="a" * 64, round=1, attempt=0, cv_epoch=0, schema="b" * 64, base="c" * 64, config="d" * 64, clip=1.0,
            sections=sections(plan, size, N_REASONS, n, train=True),
            cohort=tuple(Member(name, key.hex()) for name, key in zip(names, public, strict=True)),
            threshold=default_threshold(n),
        )  # fmt: skip
        self._names, self._roster = names, Roster(dict(zip(names, public, strict=True)))

    def share(self) -> None:
        """Keys and shares."""
        server = ServerRound.open(self.context)
        self.sites: list[SiteRound] = []
        for name, identity in zip(self._names, self.identities, strict=True):
            state, announcement = SiteRound.begin(self.context, name, identity, self._roster, None)
            server = server.receive(name, announcement)
            self.sites.append(state)
        server, key_list = server.close_keys()
        for i, name in enumerate(self._names):
            self.sites[i], shares = self.sites[i].share(key_list)
            server = server.receive(name, shares)
        self.server, deliveries = server.close_shares()
        self.deliveries: list[Delivery] = [deliveries[name] for name in self._names]

    def unmasked(self, values: list[np.ndarray], present: Collection[int]) -> ServerRound:
        """The server with all reveals, after a round in which only `present` sent a vector."""
        server, states = self.server, {}
        for i in present:
            site = self.sites[i]
            states[i], vector = site.mask(self.deliveries[i], values, self.identities[i], site.spent)
            server = server.receive(self._names[i], vector)
        server, survivors = server.close_vectors()
        for i in present:
            states[i], confirmation = states[i].confirm(survivors, self.identities[i], states[i].spent)
            server = server.receive(self._names[i], confirmation)
        server, confirmations = server.close_confirmations()
        for i in present:
            _, reveal = states[i].unmask(confirmations)
            server = server.receive(self._names[i], reveal)
        expected = np.sum([values[0].astype(np.int64)] * len(present), axis=0)
        assert np.array_equal(server.total().sums[0], expected), "the masks did not come off"
        return server
