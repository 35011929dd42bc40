"""Infants as units of learning: their frames, and the loss and gradient of each one alone.

L_j is the loss of `local_step` over the frames of infant j and no others', so that whatever infant j is, it moves nothing but its
own term. Gradients of several infants are taken at once (torch.func: 1.4 to 2.6 times as fast as one after the other).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from models.adapters import Vector, adapter_schema
from models.errors import DataError
from models.local_step import LocalConfig, TokenSet
from models.network import CryNet, Outputs

Rows = npt.NDArray[np.int64]

_CHUNK = 8  # infants whose gradients are held at once


@dataclass(frozen=True)
class InfantTokens:
    """Training tokens with the infant of each frame, `infant` integer (N,); `tokens.weight` is not used.

    Raises:
        DataError: different lengths, or no labelled frame.
    """

    tokens: TokenSet
    infant: npt.NDArray[np.integer]

    def __post_init__(self) -> None:
        if self.infant.shape != (len(self.tokens),):
            raise DataError(f"{len(self.tokens)} frames with infants of shape {self.infant.shape}")
        if not self.rows:
            raise DataError("private training needs at least one infant with a labelled frame")

    @cached_property
    def rows(self) -> tuple[Rows, ...]:
        """Rows of the labelled frames of each infant, infants in ascending order; those without any are left out."""
        labelled = np.flatnonzero(self.tokens.gate >= 0)
        order = labelled[np.argsort(self.infant[labelled], kind="stable")]
        starts = np.flatnonzero(np.diff(self.infant[order])) + 1
        return tuple(part for part in np.split(order, starts) if len(part))

    @property
    def names(self) -> npt.NDArray[np.integer]:
        """The infants of `rows`."""
        return np.array([self.infant[part[0]] for part in self.rows])

    def select(self, infants: npt.ArrayLike) -> InfantTokens:
        """The frames of some infants."""
        keep = np.flatnonzero(np.isin(self.infant, infants))
        return InfantTokens(self.tokens.select(keep), self.infant[keep])


@dataclass(frozen=True)
class InfantBatch:
    """B infants, padded to m frames: `tokens` float32 (B, m, L, D), `gate` float32 (B, m), `reason` int64 (B, m).

    `share` float32 (B, 3, m): each frame's share among its infant's cries, non-cries, and cries with a reason; every row sums
    to 1, or is 0 where the infant has none. Padding has none.
    """

    tokens: Tensor
    gate: Tensor
    reason: Tensor
    share: Tensor


def gather(data: TokenSet, rows: Sequence[Rows]) -> InfantBatch:
    """The frames of some infants."""
    most = max(len(part) for part in rows)
    tokens = np.zeros((len(rows), most, *data.tokens.shape[1:]), np.float32)
    gate, reason = np.zeros((len(rows), most), np.float32), np.zeros((len(rows), most), np.int64)
    share = np.zeros((len(rows), 3, most), np.float32)
    for i, part in enumerate(rows):
        n, cry = len(part), data.gate[part] == 1
        kinds = np.stack([cry, ~cry, cry & (data.reason[part] >= 0)])
        tokens[i, :n], gate[i, :n] = data.tokens[part], cry
        reason[i, :n] = np.maximum(data.reason[part], 0)
        share[i, :, :n] = kinds / np.maximum(kinds.sum(1, keepdims=True), 1)
    return InfantBatch(*(torch.from_numpy(x) for x in (tokens, gate, reason, share)))


def infant_loss(out: Outputs, gate_m: Tensor, reason_m: Tensor, share_3m: Tensor, cfg: LocalConfig) -> Tensor:
    """L_j: the terms of `local_step.losses` over one infant's frames, each side of the gate at half weight."""
    cry, other, known = share_3m.unbind()
    gate = nn.functional.binary_cross_entropy_with_logits(out.gate_logit, gate_m, reduction="none")
    reason = nn.functional.cross_entropy(
        out.reason_logits, reason_m, reduction="none", label_smoothing=cfg.label_smoothing
    )
    inside = torch.relu(out.energy - cfg.energy_in).square()
    outside = torch.relu(cfg.energy_out - out.energy).square()
    return (
        cfg.gate_weight * 0.5 * ((cry + other) * gate).sum()
        + cfg.reason_weight * (known * reason).sum()
        + cfg.energy_weight * (cry * inside + other * outside).sum()
    )


class PerInfant:
    """Losses and gradients of single infants, the network's adapters and heads taken from a vector (P,)."""

    def __init__(self, net: CryNet, data: TokenSet, cfg: LocalConfig) -> None:
        self._data, self._cfg = data, cfg
        self._schema = adapter_schema(net)
        self._module = _Classifier(net)
        self._loss = vmap(self._one, in_dims=(None, 0, 0, 0, 0))
        self._grad = vmap(grad(self._one), in_dims=(None, 0, 0, 0, 0))

    def losses(self, y: Tensor, rows: Sequence[Rows]) -> npt.NDArray[np.float64]:
        """L_j of each infant (n,)."""
        with torch.no_grad():
            parts = [self._loss(self._parameters(y), *_fields(b)).numpy() for b in self._batches(rows)]
        return np.concatenate(parts).astype(np.float64)

    def gradients(self, y: Tensor, rows: Sequence[Rows]) -> Iterator[Vector]:
        """∇L_j (P,) of each infant in turn."""
        for batch in self._batches(rows):
            parameters = self._parameters(y)
            with (
                torch.no_grad()
            ):  # whatever of the network still asks for gradients; `grad` has its own say inside
                found: Mapping[str, Tensor] = self._grad(parameters, *_fields(batch))
                flat = torch.cat([found[name].reshape(len(batch.gate), -1) for name in parameters], dim=1)
            yield from flat.numpy()

    def _one(
        self, parameters: dict[str, Tensor], tokens: Tensor, gate: Tensor, reason: Tensor, share: Tensor
    ) -> Tensor:
        out = functional_call(self._module, parameters, (tokens,))
        return infant_loss(out, gate, reason, share, self._cfg)

    def _parameters(self, y: Tensor) -> dict[str, Tensor]:
        return {f"net.{e.name}": y[e.offset : e.offset + e.size].view(e.shape) for e in self._schema.entries}

    def _batches(self, rows: Sequence[Rows]) -> Iterator[InfantBatch]:
        for start in range(0, len(rows), _CHUNK):
            yield gather(self._data, rows[start : start + _CHUNK])


class _Classifier(nn.Module):
    """`functional_call` calls a module's `forward`; training starts behind the tokens."""

    def __init__(self, net: CryNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor) -> Outputs:
        return self.net.classify(tokens)


def _fields(batch: InfantBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return batch.tokens, batch.gate, batch.reason, batch.share


def check_infants(net: CryNet, data: InfantTokens) -> None:
    """Refuse tokens of another network or label set.

    Raises:
        DataError: they do not fit.
    """
    shape = (len(data.tokens), net.cfg.n_tokens, net.cfg.d_model)
    if data.tokens.tokens.shape != shape:
        raise DataError(
            f"tokens are {data.tokens.tokens.shape}, the network takes {shape}: the cache is of another network"
        )
    if int(data.tokens.reason.max()) >= len(net.reasons):
        raise DataError(f"training needs reasons below {len(net.reasons)}")
