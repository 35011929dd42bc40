"""What a trained cell leaves: its scores, and the network itself where it is to hear more than its fold's clips.

The network is written first, so that scores without the network that was asked for mean a training that was broken off.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from infra.data.audio import write_bytes
from infra.evaluation.storage import load_scores, save_scores
from infra.evidence.cells import Cell
from infra.federation.files import decode_arrays, encode_arrays
from models.config import ModelConfig
from models.errors import ConfigError, DataError, IntegrityError
from models.network import CryNet
from models.predict import ClipScores
from models.state import load_arrays, to_arrays


@dataclass(frozen=True)
class CellFiles:
    """Where a cell's results lie."""

    scores: Path
    network: Path

    @classmethod
    def of(cls, cell: Cell, world: str, folder: Path) -> CellFiles:
        """In `folder`, for the world of that digest."""
        key = cell.key(world)
        return cls(folder / f"{key}.safetensors", folder / f"{key}-network.safetensors")

    def complete(self, *, network: bool) -> bool:
        """Whether all is there that was asked for."""
        return self.scores.is_file() and (not network or self.network.is_file())

    def save(self, scores: ClipScores, net: CryNet | None) -> None:
        """Each file whole or not at all; the scores last.

        Raises:
            OutputError: the folder cannot be written.
        """
        if net is not None:
            write_bytes(self.network, encode_arrays(dict(to_arrays(net))))
        part = self.scores.with_name(f".{self.scores.name}.{os.getpid()}")
        save_scores(scores, part)
        part.replace(self.scores)

    def load_scores(self) -> ClipScores:
        """The scores.

        Raises:
            DataError: there are none.
        """
        return load_scores(self.scores)

    def load_network(self, model: ModelConfig, reasons: tuple[str, ...]) -> CryNet:
        """The network.

        Raises:
            DataError: there is none, or it is of another make.
        """
        net = CryNet(model, reasons, seed=0)
        try:
            load_arrays(net, decode_arrays(self.network.read_bytes(), str(self.network)))
        except (OSError, IntegrityError, ConfigError) as err:
            raise DataError(
                f"{self.network} holds no such network ({err}): delete it and run again"
            ) from None
        return net
