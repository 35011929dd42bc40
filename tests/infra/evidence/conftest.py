"""Out-of-fold scores of a known make: whole groups in five folds, several seeds, no fold trained by anybody."""

from dataclasses import replace

import numpy as np
import pytest

from infra.evidence.long_track import Track
from infra.evidence.world import build_world
from tests.infra.evidence.corpora import CONFIG, recordings


@pytest.fixture(scope="session")
def out_of_fold(scores_of):
    """One seed's scores by `scores_of`, dealt into five folds by group."""

    def build(**options):
        s = scores_of(**{"snrs": (), "noncries": 15, **options})
        return replace(s, part=(np.unique(s.group, return_inverse=True)[1] % 5).astype(np.int8))

    return build


@pytest.fixture(scope="session")
def seeds(out_of_fold):
    """Three seeds on the same clips: the first's energies, with noise of each seed's own."""

    def build(n=3, **options):
        base = out_of_fold(**options)
        rng = np.random.default_rng(1)
        return {k: replace(base, energy=base.energy + 0.5 * rng.normal(size=len(base))) for k in range(n)}

    return build


@pytest.fixture(scope="session")
def track_of():
    """A long recording's logits as given, one every half second, with bouts and background groups by hand."""

    def build(logit, bouts=(), background=None, name="by hand", materials=()):
        slots = np.zeros(len(logit) + 1, np.int32) if background is None else np.array(background, np.int32)
        groups = tuple(f"{name} {k}" for k in range(int(slots.max()) + 1))
        return Track(
            name=name, seconds=0.5 * len(slots), hop=8000, logit=np.array(logit, np.float64), bouts=tuple(bouts),
            background=slots, groups=groups, kinds=tuple("fan" if k % 2 == 0 else "rooster" for k in range(len(groups))),
            materials=frozenset(groups) | frozenset(materials),
        )  # fmt: skip

    return build


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The manifest of a few synthetic recordings."""
    return recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="session")
def world(corpus, tmp_path_factory):
    """The folder of a world built of them."""
    return build_world(corpus, CONFIG, tmp_path_factory.mktemp("worlds"))
