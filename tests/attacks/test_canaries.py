"""Every byte that travels in a masked run is read, for what must not be in it: any single site's update, counts, labels or
metric.

Sites differ in size (a prime number of clips each) and in their labels. What each of them put under its masks is taken from its
own folder and looked for in everything that anybody sent, in every form in which it could have slipped out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.federation.collect import Layout
from infra.federation.job import SiteSpec
from infra.federation.messages import TRAIN, Envelope, encode_body, encode_header
from infra.federation.rounds import federate
from infra.federation.site import open_site
from infra.federation.site_state import Pending, SiteStore
from infra.federation.tally import Tally
from infra.federation.transport import LocalTransport
from models.adapters import adapter_schema
from models.network import CryNet
from models.quantise import Quantiser
from models.ring import pack
from models.rotation import padded_size
from models.seeds import rotation_seed
from tests.infra.federation.world import REASONS, make_job, write_features

CLIPS = {"site0": 61, "site1": 89, "site2": 127, "site3": 73}
WINDOW = 12  # bytes of a site's own vector in a row: chance finds that many in no run


class Recorded:
    """A run, its messages, and what each site put under its masks."""

    def __init__(self, root: Path) -> None:
        self.job = make_job(root, sites=4, rounds=2)
        specs = []
        for spec in self.job.sites:
            path = root / spec.name / "prime.safetensors"
            write_features(path, site=spec.name, clips=CLIPS[spec.name], frames_per_clip=1)
            specs.append(SiteSpec(**{**spec.model_dump(), "features": path}))
        self.job = self.job.model_copy(update={"sites": tuple(specs)})
        self.job.save(root / "job.json")
        self.messages: list[tuple[str, Envelope]] = []
        self.sent: dict[tuple[str, int], Pending] = {}
        handlers = {name: self._wrap(root, name) for name in self.job.site_names}
        self.result = federate(self.job, LocalTransport(handlers))
        self.schema = adapter_schema(CryNet(self.job.model(), REASONS, seed=1))

    def _wrap(self, root: Path, name: str) -> Any:
        site = open_site(str(root / "job.json"), name)

        def answer(request: Envelope) -> Envelope:
            reply = site.handle(request)
            self.messages += [(name, request), (name, reply)]
            if request.header.action == TRAIN and request.header.round <= 2:
                state = SiteStore(self.job.site(name).folder, request.header.run).load(4708)
                if state.pending is not None:
                    self.sent[name, request.header.round] = state.pending
            return reply

        return answer

    def texts(self) -> Iterator[bytes]:
        for _, message in self.messages:
            yield (
                encode_header(message.header).encode() + encode_body(message.body).encode() + message.payload
            )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("canaries"))


def test_there_is_something_to_find(run: Recorded) -> None:
    assert set(run.sent) == {(name, n) for name in CLIPS for n in (1, 2)}
    assert len(run.messages) > 4 * 2 * 2 * 5


def test_no_update_travels_in_any_form(run: Recorded) -> None:
    """Levels packed at 8 bits or in the ring, raw, as floats, and the variate made of them: no window of any is found."""
    haystack = list(run.texts())
    found = []
    for (name, number), pending in run.sent.items():
        quantiser = Quantiser(
            4708, run.job.plan().codec or pytest.fail("no codec"), rotation_seed(run.job.seed, number)
        )
        update = quantiser.decode(pending.levels)
        forms = {
            "8 bits": pack(pending.levels, 8),
            "ring": pack(pending.levels, 10),
            "uint16": pending.levels.tobytes(),
            "float32": update.astype("<f4").tobytes(),
            "float64": update.tobytes(),
            "variate": pending.variate.astype("<f4").tobytes(),
            "open": Layout(run.schema, run.job.plan(), len(REASONS)).encode(pending.levels, pending.tally),
        }
        for form, data in forms.items():
            for at in range(64, len(data) - WINDOW, len(data) // 40):
                window = data[at : at + WINDOW]
                if len(set(window)) > 3 and any(window in text for text in haystack):
                    found.append((name, number, form, at))
    assert found == []


def test_the_search_would_find_an_unmasked_update(tmp_path: Path) -> None:
    """The same windows, in a run without masks, are all there."""
    job = make_job(tmp_path, sites=3, rounds=1, secure=False)
    job.save(tmp_path / "job.json")
    texts: list[bytes] = []
    pending: list[Pending] = []
    site = open_site(str(tmp_path / "job.json"), "site0")
    others = {n: open_site(str(tmp_path / "job.json"), n).handle for n in ("site1", "site2")}

    def spy(request: Envelope) -> Envelope:
        reply = site.handle(request)
        texts.append(reply.payload)
        if request.header.action == TRAIN and request.header.round == 1:
            state = SiteStore(job.site("site0").folder, request.header.run).load(4708)
            assert state.pending is not None
            pending.append(state.pending)
        return reply

    federate(job, LocalTransport({"site0": spy, **others}))
    data = pack(pending[0].levels, 8)
    assert any(data[500 : 500 + WINDOW] in text for text in texts)


def test_no_count_or_metric_of_one_site_travels(run: Recorded) -> None:
    """In clear travel sizes that all sites share, and digests; a site's tally is in no payload, its clip count in no number."""
    own = set(CLIPS.values())
    for name, message in run.messages:
        assert not own & set(numbers(dict(message.body))), (name, message.header.action, message.body)
    haystack = list(run.texts())
    for (name, number), pending in run.sent.items():
        tally = Tally.from_words(pending.tally, len(REASONS))
        words = pending.tally.astype("<u4").tobytes()
        assert not any(words[12:40] in text for text in haystack), (name, number)
        assert not any(repr(tally.losses["reason"]).encode() in text for text in haystack)


def test_all_sites_answers_are_equally_long(run: Recorded) -> None:
    """61 clips or 127: nothing in the length of a message tells them apart."""
    sizes: dict[tuple[int, str], set[int]] = {}
    for _, message in run.messages[1::2]:
        header = message.header
        sizes.setdefault((header.round, header.action), set()).add(message.size)
    assert {key: found for key, found in sizes.items() if len(found) > 1} == {}


def test_masked_vectors_look_uniform(run: Recorded) -> None:
    """The masked coordinates of two sites and rounds: all ring values, hardly any equal to the levels under them."""
    bits = 10  # ⌈log2(254 · 4 + 1)⌉
    for name, message in run.messages[1::2]:
        if message.header.action != TRAIN or message.header.round > 2:
            continue
        size = padded_size(4708)
        start = len(message.payload) - (size * bits // 8) - 4 * (7 + 4 + 9)
        body = message.payload[start - 64 : start - 64 + size * bits // 8]
        counts = np.bincount(np.frombuffer(body, np.uint8), minlength=256)
        expected = len(body) / 256
        chi = float(((counts - expected) ** 2 / expected).sum())
        assert chi < 400, (name, chi)  # 255 degrees of freedom: 400 is past the 1 − 10⁻⁸ quantile


def numbers(value: object) -> Iterator[float]:
    """All numbers in a JSON document."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def test_the_history_holds_sums_only(run: Recorded) -> None:
    history = json.loads(run.result.history.read_text())
    per_site = {
        "bytes_up",
        "bytes_down",
    }  # a site sends what all send, as shown above, and the server knows what it sends
    for record in history["rounds"]:
        for key, value in record.items():
            if key not in per_site and isinstance(value, dict):
                assert not set(CLIPS) & set(value), key
        assert len(set(record["bytes_up"].values())) == 1
