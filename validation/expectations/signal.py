"""Whether the labels say anything that can be heard: the probe's verdict, as a rule of the gate."""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd

from validation.expectations.base import TableExpectation


class ExpectReasonsToCarrySignal(TableExpectation):
    """A probe of the sites' own cries beats relabelled ones; no row is to blame where it does not.

    `probe` is `models.probe.ProbeResult` as a dictionary; None, or a probe of too few groups, says nothing and breaks nothing.
    """

    probe: dict[str, Any] | None = None

    success_keys: ClassVar[tuple[str, ...]] = ("probe",)

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        nobody = pd.Series(False, index=table.index)
        found = self.probe
        if found is None or not found["judged"] or found["signal"]:
            return nobody, ""
        return nobody, (
            "labels carry no signal above chance: a probe on MFCC statistics, tested on infants or devices that it was not "
            f"fitted on, reaches macro-F1 {found['macro_f1']:.3f} ({found['low']:.3f}–{found['high']:.3f}), and "
            f"{found['chance']:.3f} on average when labels are dealt out at random within site and platform "
            f"(p = {found['p']:.3f}; above {found['needed']:.3f} would have been a signal; {found['clips']} cries of "
            f"{found['groups']} groups)"
        )
