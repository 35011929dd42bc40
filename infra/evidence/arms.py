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
JOINT: Final = Arm("joint", "central, the denoiser learning too", training=GateConfig(denoising_weight=0.3))
NO_CALLS: Final = Arm("no-calls", "central, without synthetic calls", calls=False)


@dataclass(frozen=True)
class Plan:
    """What is trained, in this order; a run that is broken off can be read as far as it came."""

    arms: tuple[Arm, ...] = (CENTRAL, FEDERATED, PLAIN)
    folds: int = FOLDS
    seeds: tuple[int, ...] = (1, 2, 3)
    once: tuple[Arm, ...] = (JOINT, NO_CALLS)  # with the first seed alone
    leave_out: tuple[Arm, ...] = (CENTRAL, NO_CALLS)  # trained once without each class of public noise
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

    def seeds_of(self, arm: Arm) -> tuple[int, ...]:
        """The seeds that an arm is trained with."""
        return self.seeds[:1] if arm in self.once else self.seeds

    def everything(self, classes: Sequence[str]) -> list[Cell]:
        """All trainings, what is read first first: every arm's first seed, the classes left out, the further seeds."""
        first, *further = self.seeds
        cells = [cell for arm in self.arms for cell in self.cells(arm, first)]
        for arm in self.leave_out[:1]:
            cells += self.left_out(arm, classes)
        cells += [cell for arm in self.once for cell in self.cells(arm, first)]
        for arm in self.leave_out[1:]:
            cells += self.left_out(arm, classes)
        return cells + [cell for seed in further for arm in self.arms for cell in self.cells(arm, seed)]

    def left_out(self, arm: Arm, classes: Sequence[str]) -> list[Cell]:
        """A cell for each class of public noise; the folds, whose cries it is set against, take turns."""
        return [
            Cell(arm, k % self.folds, self.seeds[0], without=name) for k, name in enumerate(sorted(classes))
        ]


FULL: Final = Plan()

_SHORT: Final = GateConfig(steps=6, batch_size=8, rounds=2, local_steps=2, local_batch_size=6)
QUICK: Final = Plan(
    arms=tuple(
        replace(arm, training=_SHORT) for arm in (CENTRAL, FEDERATED, PLAIN)
    ),
    folds=2, seeds=(1, 2), once=(), leave_out=(replace(CENTRAL, training=_SHORT),),
    hearing=HearingConfig(
        soundscape=SoundscapeConfig(hours=0.05, rest_s=(5.0, 15.0)), cries_per_group=1, probes=4, resamples=100,
    ),
    resamples=200, quick=True,
)  # fmt: skip
"""A look at the machinery; its scores mean nothing."""
