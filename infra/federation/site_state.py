"""What a site must not lose between rounds: its control variate, committed and pending, and the update it has sent.

In the gate's own phase its moments take the variate's place, under the same rules.

    site folder/runs/<first 16 of the run's digest>/variates.safetensors

A variate is written as *pending* before the update that carries it leaves the site. It becomes the committed one when the
server says, in a later request, that it counted that update; it is dropped when the server counted an earlier one. Committed
before that word, one lost message would leave c ≠ mean(c_i) for ever. A site that cannot tell (its file was restored, or is
gone) says so: the server then begins a new epoch, in which every variate starts from zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.federation.files import decode_arrays, encode_arrays, write_atomic
from models.control_variates import Variate
from models.errors import IntegrityError, OutputError, VariatesOutOfStep

_FILE = "variates.safetensors"
_KEEP_RUNS = 3  # besides the one that begins


@dataclass(frozen=True)
class Pending:
    """An update that was sent and not yet acknowledged: its round, c_i⁺ (P,) and its levels, to be sent again as they are."""

    round: int
    variate: Variate
    levels: npt.NDArray[np.uint16]
    tally: npt.NDArray[np.uint32]


@dataclass(frozen=True)
class SiteState:
    """`own` is c_i as of `committed`, the last round that the server counted (0: none in this epoch)."""

    epoch: int
    committed: int
    own: Variate
    pending: Pending | None = None
    tallied: int = 0  # the round whose θ was tallied last
    loss: float = float("nan")  # its validation loss
    loss_before: float = float("nan")  # that of the θ tallied before it

    @classmethod
    def initial(cls, size: int, epoch: int = 0) -> SiteState:
        """c_i = 0."""
        return cls(epoch, 0, np.zeros(size))

    def settle(self, epoch: int, included: int, site: str) -> SiteState:
        """Bring the variate in step with what the server says it counted.

        Args:
            epoch: the epoch of control variates that the server is in.
            included: the last round of this epoch in which the server counted this site; 0 for none.
            site: for the message.

        Raises:
            VariatesOutOfStep: this state cannot be the one that the server counted.
        """
        if epoch != self.epoch:
            if epoch < self.epoch or included:
                raise VariatesOutOfStep(
                    f"site {site!r} is in epoch {self.epoch} of control variates, the server in {epoch}, "
                    f"where it counts round {included}"
                )
            return replace(SiteState.initial(self.own.size, epoch), tallied=self.tallied, loss=self.loss)
        if self.pending is not None and self.pending.round == included:
            return replace(self, committed=included, own=self.pending.variate, pending=None)
        if self.committed == included:
            return self
        raise VariatesOutOfStep(
            f"site {site!r} holds its control variate of round {self.committed}, the server counted it in round {included}: "
            "was its folder restored, or moved?"
        )


class SiteStore:
    """The state in a site's folder, for one run."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder / "runs" / run[:16]
        self._path = self.folder / _FILE

    def load(self, size: int) -> SiteState:
        """The state, or the initial one.

        Raises:
            IntegrityError: the file is damaged or of another network.
        """
        if not self._path.is_file():
            return SiteState.initial(size)
        arrays = decode_arrays(self._path.read_bytes(), str(self._path))
        try:
            epoch, committed, tallied, waiting = (int(n) for n in arrays["rounds"])
            loss, before = (float(x) for x in arrays["losses"])
            pending = None
            if waiting:
                pending = Pending(waiting, arrays["pending"], arrays["levels"], arrays["tally"])
            state = SiteState(epoch, committed, arrays["own"], pending, tallied, loss, before)
        except (KeyError, ValueError):
            raise IntegrityError(f"{self._path} is not a site's state: delete it") from None
        if state.own.shape != (size,) or state.own.dtype != np.float64:
            raise IntegrityError(
                f"{self._path} holds {state.own.shape} {state.own.dtype}, the network has ({size},): delete it"
            )
        return state

    def _prune(self) -> None:
        """Forget the variates of all but the last runs; what a run gave away (`masked_site`) is small and stays."""
        kept = sorted(self.folder.parent.glob(f"*/{_FILE}"), key=lambda p: p.stat().st_mtime, reverse=True)
        for path in kept[_KEEP_RUNS:]:
            path.unlink()

    def save(self, state: SiteState) -> None:
        """Write the state; what was there before stays until the new one is complete.

        Raises:
            OutputError: the folder cannot be written.
        """
        try:
            fresh = not self.folder.is_dir()
            self.folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                self._prune()
        except OSError as err:
            raise OutputError(f"cannot write the site's folder {self.folder}: {err.strerror}") from None
        pending = state.pending
        rounds = [state.epoch, state.committed, state.tallied, pending.round if pending else 0]
        arrays: dict[str, npt.NDArray] = {
            "own": state.own,
            "rounds": np.array(rounds, np.int64),
            "losses": np.array([state.loss, state.loss_before]),
        }
        if pending is not None:
            arrays |= {"pending": pending.variate, "levels": pending.levels, "tally": pending.tally}
        write_atomic(self._path, encode_arrays(arrays))
