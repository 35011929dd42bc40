"""Out-of-fold scores of a known make: whole groups in five folds, several seeds, no fold trained by anybody."""

from dataclasses import replace

import numpy as np
import pytest


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
