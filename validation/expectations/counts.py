"""Whether there is enough to learn from: both sides of the gate, reasons and groups, at every site and in every part."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd

from validation.expectations.base import (
    NO_PART,
    TableExpectation,
    at_site,
    enumerate_some,
    is_cry,
    is_other,
)


class ExpectSites(TableExpectation):
    """Some rows belong to a site: without one there is nobody to train."""

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        return pd.Series(False, index=table.index), "" if at_site(table).any() else "no row names a site"


class ExpectCriesToHaveSite(TableExpectation):
    """Every labelled cry belongs to a site; rows without one are public noise, so such a cry trains nobody."""

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        mask = is_cry(table) & ~at_site(table)
        return mask, f"{int(mask.sum())} cries name no site" if mask.any() else ""


class ExpectSitesToHoldBothGateSides(TableExpectation):
    """Every site has infant cries and other sounds: a gate cannot be trained, calibrated or judged on one side."""

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        rows = table[at_site(table)]
        mask = pd.Series(False, index=table.index)
        found = []
        for site, own in rows.groupby("site", sort=True):
            cries, others = int(is_cry(own).sum()), int(is_other(own).sum())
            if cries == 0 or others == 0:
                mask |= table["site"] == site
                found.append(f"{site} has {cries} cries and {others} other sounds")
        return mask, enumerate_some(found)


class ExpectPartsToHoldBothGateSides(TableExpectation):
    """Train, val and test each hold both sides of the gate; with `per_site`, at every site (empty at a site counts too)."""

    per_site: bool = False

    success_keys: ClassVar[tuple[str, ...]] = ("per_site",)

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        rows = table[at_site(table) & (table["part"] != NO_PART)]
        mask = pd.Series(False, index=table.index)
        found = []
        scopes = rows.groupby("site", sort=True) if self.per_site else [("", rows)]
        for site, own in scopes:
            for part in ("train", "val", "test"):
                here = own[own["part"] == part]
                cries, others = int(is_cry(here).sum()), int(is_other(here).sum())
                if cries == 0 or others == 0:
                    mask |= table.index.isin(here.index)
                    found.append(f"{site} {part}".strip() + f": {cries} cries, {others} other sounds")
        return mask, enumerate_some(found)


class ExpectSitesToHoldReasons(TableExpectation):
    """Every site has cries of at least `min_reasons` reasons; with one alone its update pulls the head to a constant."""

    min_reasons: int = 2

    success_keys: ClassVar[tuple[str, ...]] = ("min_reasons",)

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        cries = table[is_cry(table) & at_site(table)]
        mask = pd.Series(False, index=table.index)
        found = []
        for site, own in cries.groupby("site", sort=True):
            reasons = sorted(set(own["label"]))
            if len(reasons) < self.min_reasons:
                mask |= table.index.isin(own.index)
                found.append(f"{site} has only {', '.join(reasons)} ({len(own)} cries)")
        return mask, enumerate_some(found)


class ExpectSitesToHoldGroups(TableExpectation):
    """Every site has cries of at least `min_groups` groups: fewer cannot be dealt to three parts."""

    min_groups: int = 3

    success_keys: ClassVar[tuple[str, ...]] = ("min_groups",)

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        cries = table[is_cry(table) & at_site(table)]
        groups = cries.groupby("site", sort=True)["group"].nunique()
        few = groups[groups < self.min_groups]
        found = [f"{site} has cries of {n} group(s)" for site, n in few.items()]
        return is_cry(table) & table["site"].isin(few.index), enumerate_some(found)


class ExpectReasonsToHaveGroups(TableExpectation):
    """Every reason has cries of at least `min_groups` groups; with fewer its score is one infant's."""

    min_groups: int = 5

    success_keys: ClassVar[tuple[str, ...]] = ("min_groups",)

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        cries = table[is_cry(table) & at_site(table)]
        groups = cries.groupby("label", sort=True)["group"].nunique()
        few = groups[groups < self.min_groups]
        found = [f"{reason} has {n} group(s)" for reason, n in few.items()]
        return is_cry(table) & at_site(table) & table["label"].isin(few.index), enumerate_some(found)


class ExpectReasonsToBeTrained(TableExpectation):
    """Every reason that is scored (val, test) also occurs in training."""

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        cries = table[is_cry(table) & at_site(table)]
        trained = set(cries.loc[cries["part"] == "train", "label"])
        lost = cries[cries["part"].isin(["val", "test"]) & ~cries["label"].isin(trained)]
        names = sorted(set(lost["label"]))
        return pd.Series(table.index.isin(lost.index), index=table.index), (
            f"never in training: {enumerate_some(names)}" if names else ""
        )
