"""The arms that the evidence compares, and the plan of cells: which folds, seeds and left-out classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from infra.evidence.cells import Arm, Cell
from infra.evidence.folds import FOLDS
from infra.evidence.gate import RESAMPLES
from infra.evidence.hearing import HearingConfig
from infra.evidence.soundscape import SoundscapeConfig
from models.gate_step import GateConfig

CENTRAL: Final = Arm("central", "central: all recordings in one place")
FEDERATED: Final = Arm("federated", "federated: recordings stay at their site", federated=True)
PLAIN: Final = Arm("no-denoiser", "central, without the denoiser", base="plain")


@dataclass(frozen=True)
class Plan:
    """What is trained, in this order; a run that is broken off can be read as far as it came."""

    arms: tuple[Arm, ...] = (CENTRAL, FEDERATED, PLAIN)
    folds: int = FOLDS
    seeds: tuple[int, ...] = (1, 2, 3)
    leave_out: Arm = CENTRAL  # trained once without each class of public noise
    hearing: HearingConfig = field(default_factory=HearingConfig)  # what the networks are played afterwards
    resamples: int = RESAMPLES  # of the bootstraps of scores
    quick: bool = False

    @property
    def kept(self) -> list[Cell]:
        """The cells whose networks are kept, to hear more than their fold's clips: of the federated arm, if there is one."""
        arm = next((arm for arm in self.arms if arm.federated), self.arms[0])
        return self.cells(arm, self.seeds[0])

    @property
    def command(self) -> str:
        """What a person types to run it."""
        return "cryfed evidence" + (" --quick" if self.quick else "")

    def cells(self, arm: Arm, seed: int) -> list[Cell]:
        """An arm's folds with one seed."""
        return [Cell(arm, fold, seed) for fold in range(self.folds)]

    def left_out(self, classes: Sequence[str]) -> list[Cell]:
        """A cell for each class of public noise; the folds, whose cries it is set against, take turns."""
        return [
            Cell(self.leave_out, k % self.folds, self.seeds[0], without=name)
            for k, name in enumerate(sorted(classes))
        ]


FULL: Final = Plan()

_SHORT: Final = GateConfig(steps=6, batch_size=8, rounds=2, local_steps=2, local_batch_size=6)
QUICK: Final = Plan(
    arms=tuple(
        replace(arm, training=_SHORT) for arm in (CENTRAL, FEDERATED, PLAIN)
    ),
    folds=2, seeds=(1, 2), leave_out=Arm(CENTRAL.name, CENTRAL.title, training=_SHORT),
    hearing=HearingConfig(
        soundscape=SoundscapeConfig(hours=0.05, rest_s=(5.0, 15.0)), cries_per_group=1, probes=4, resamples=100,
    ),
    resamples=200, quick=True,
)  # fmt: skip
"""A look at the machinery; its scores mean nothing."""
