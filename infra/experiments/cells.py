"""What is compared: arms, settings, and cells (one training each); and the plan that lists them.

An *arm* is a way to learn. A *setting* is how unlike the sites are, and how many are asked a round. A *cell* is one arm in one
setting with one seed and one learning rate: a plain-loop training whose result is one line of a file. Learning rates are chosen
for every arm in every setting by cells of a seed that is used for nothing else, on infants that are used for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from infra.digest import digest_json
from models.config import ModelConfig, preset
from models.errors import ConfigError
from models.local_step import LocalConfig
from models.plain_loop import Algorithm
from models.quantise import QuantiserConfig
from models.ring import packed_bytes, ring_bits
from models.rotation import padded_size


@dataclass(frozen=True)
class Arm:
    """A way to learn.

    Attributes:
        name: what cells are filed under; title: what the page calls it.
        control_variates: SCAFFOLD's correction.
        prox_mu: μ of the proximal term.
        codec: None sends float32.
        freeze_a: FFA-LoRA (arXiv 2403.12313): only the adapters' B and the heads travel.
        option: how a site renews its variate (arXiv 1910.06378, algorithm 1, line 12): II by its movement, I by a gradient at θ.
        tuned_as: the arm whose learning rate it takes; None tunes its own.
        rank: of the adapters, their scale α ∕ rank kept; None leaves it as the network's.
    """

    name: str
    title: str
    control_variates: bool = False
    prox_mu: float = 0.0
    codec: QuantiserConfig | None = None
    freeze_a: bool = False
    option: Literal["I", "II"] = "II"
    tuned_as: str | None = None
    rank: int | None = None

    def algorithm(self, participation: float) -> Algorithm:
        """As the plain loop takes it."""
        return Algorithm(self.control_variates, self.codec, participation)

    def upload_bytes(self, parameters: int, asked: int) -> int:
        """What one site uploads in a round: float32, or the levels packed in the ring that `asked` sites' sum needs.

        Option I sends its variate's change beside the update. The masks' own cost (keys, shares) does not depend on the arm
        and is left out.
        """
        if self.codec is None:
            return 4 * parameters * (2 if self.option == "I" else 1)
        return packed_bytes(padded_size(parameters), ring_bits(2**self.codec.bits - 2, asked))


@dataclass(frozen=True)
class Setting:
    """α of the Dirichlet partition, and the share of sites asked a round."""

    alpha: float
    participation: float

    def __str__(self) -> str:
        return f"α = {self.alpha:g}, {self.participation:.0%} of sites a round"


@dataclass(frozen=True)
class Cell:
    """One training."""

    purpose: Literal["tune", "measure"]
    arm: Arm
    setting: Setting
    lr: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """All that is compared, and how long it trains."""

    arms: tuple[Arm, ...]  # the comparison proper, in every setting and over all seeds
    ablations: tuple[Arm, ...]  # in `ablation_settings`, over the first `ablation_seeds`
    settings: tuple[Setting, ...]
    ablation_settings: tuple[Setting, ...]
    local: LocalConfig  # lr and prox_mu are the cell's
    rates: tuple[float, ...]
    questions: tuple[tuple[str, str, str], ...]  # an arm, the arm it is read against, and what that asks
    sites: int = 8
    rounds: int = 50
    tuning_rounds: int = 50
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    ablation_seeds: int = 5
    tuning_seed: int = 100
    preset: str = "tiny"
    network: Mapping[str, Any] | None = None  # ModelConfig.to_dict(), where it is not the preset's

    def __post_init__(self) -> None:
        names = [arm.name for arm in (*self.arms, *self.ablations)]
        if len(set(names)) != len(names) or self.tuning_seed in self.seeds:
            raise ConfigError("a plan needs arms of distinct names, and a tuning seed that measures nothing")

    def model(self, arm: Arm) -> ModelConfig:
        """The network of an arm."""
        base = ModelConfig.from_dict(dict(self.network or preset(self.preset).to_dict()))
        rank = arm.rank or base.lora_rank
        return replace(
            base, freeze_a=arm.freeze_a, lora_rank=rank, lora_alpha=base.lora_alpha * rank / base.lora_rank
        )

    def _pairs(self) -> Iterator[tuple[Arm, Setting, Sequence[int]]]:
        for setting in self.settings:
            for arm in self.arms:
                yield arm, setting, self.seeds
        for setting in self.ablation_settings:
            for arm in self.ablations:
                yield arm, setting, self.seeds[: self.ablation_seeds]

    def tuning(self) -> list[Cell]:
        """The cells that choose learning rates."""
        return [
            Cell("tune", arm, setting, lr, self.tuning_seed)
            for arm, setting, _ in self._pairs()
            if arm.tuned_as is None
            for lr in self.rates
        ]

    def measured(self, chosen: Mapping[tuple[str, Setting], float]) -> list[Cell]:
        """The cells that are compared, seed by seed, given the learning rate of every arm and setting."""
        cells = [
            Cell("measure", arm, setting, chosen[arm.tuned_as or arm.name, setting], seed)
            for arm, setting, seeds in self._pairs()
            for seed in seeds
        ]
        # the comparison proper first, and every arm of a seed before the next seed: a broken-off run can still be read
        main = {arm.name for arm in self.arms}
        return sorted(cells, key=lambda c: (c.arm.name not in main, self.seeds.index(c.seed)))

    def digest(self, world: str) -> str:
        """What every result depends on beside its cell: the local step, the network, the sites, and the world's bytes."""
        return digest_json(
            {"local": asdict(self.local), "preset": self.preset, "sites": self.sites, "world": world}
        )

    def key(self, cell: Cell, world: str) -> str:
        """What a cell's result is filed under."""
        rounds = self.tuning_rounds if cell.purpose == "tune" else self.rounds
        what = cell.to_dict()
        for prose in ("title", "tuned_as"):
            del what["arm"][prose]
        if cell.arm.rank is None:  # what was filed before ranks were compared is still found
            del what["arm"]["rank"]
        return digest_json({"plan": self.digest(world), "cell": what, "rounds": rounds})[:32]
