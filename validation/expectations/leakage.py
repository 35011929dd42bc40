"""What must not cross a border: an infant or device between parts, one recording between parts or groups."""

from __future__ import annotations

from typing import ClassVar, Literal

import pandas as pd

from validation.expectations.base import NO_PART, TableExpectation, enumerate_some


class ExpectGroupsToStayTogether(TableExpectation):
    """Every group (infant, recording device) lies in one part, or at one site.

    Scores over a split that a group crosses measure recognition of the infant's phone: on real clips, oversampling before
    splitting turns features without signal into macro-F1 1.0.
    """

    within: Literal["part", "site"] = "part"

    success_keys: ClassVar[tuple[str, ...]] = ("within",)

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        placed = table[table[self.within] != NO_PART]
        homes = placed.groupby("group", sort=True)[self.within].agg(lambda s: sorted(set(s)))
        split = homes[homes.map(len) > 1]
        mask = table["group"].isin(split.index) & (table[self.within] != NO_PART)
        if split.empty:
            return mask, ""
        named = [f"{group} in {' and '.join(where)}" for group, where in split.items()]
        return mask, f"{len(split)} group(s) cross {self.within}s: {enumerate_some(named)}"


class ExpectRecordingsToBeUnique(TableExpectation):
    """No recording occurs twice, by its file's bytes or its decoded samples.

    With `across_parts` only copies that lie in different parts count (a leak, whatever the groups say), without it only those
    that stay in one part (double weight; across groups also a hint that groups are wrong).
    """

    across_parts: bool = True

    success_keys: ClassVar[tuple[str, ...]] = ("across_parts",)

    def offending(self, table: pd.DataFrame) -> tuple[pd.Series, str]:
        mask = pd.Series(False, index=table.index)
        pairs: list[str] = []
        seen: set[tuple[str, ...]] = set()
        for column in ("file_sha256", "audio_sha256"):
            known = table[table[column] != ""]
            copies = known[known.duplicated(column, keep=False)]
            for _, rows in copies.groupby(column, sort=False):
                crosses = rows.loc[rows["part"] != NO_PART, "part"].nunique() > 1
                if crosses != self.across_parts:
                    continue
                mask |= table.index.isin(rows.index)
                paths = tuple(rows["path"])
                if paths not in seen:
                    seen.add(paths)
                    groups = rows["group"].nunique()
                    pairs.append(" = ".join(paths[:3]) + (f" ({groups} groups)" if groups > 1 else ""))
        where = "in different parts" if self.across_parts else "within one part"
        return (
            mask,
            f"{len(pairs)} recording(s) occur more than once {where}: {enumerate_some(pairs, 3)}"
            if (pairs)
            else "",
        )
