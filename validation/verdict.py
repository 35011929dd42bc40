"""The gate's verdict: what was checked, what was found, and in which rows. Plain data with a JSON round trip."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from models.errors import GateError

MAX_PATHS: Final = 10

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Finding:
    """One broken rule. `paths` are the first offending rows in manifest order, at most ten; `total` counts them all."""

    rule: str
    severity: Severity
    message: str
    paths: tuple[str, ...]
    total: int
    sites: dict[str, int]  # offending rows by site; "" is public audio

    def __str__(self) -> str:
        rows = "".join(f"\n    {path}" for path in self.paths)
        more = f"\n    … and {self.total - len(self.paths)} more" if self.total > len(self.paths) else ""
        return f"[{self.rule}] {self.message}{rows}{more}"


@dataclass(frozen=True)
class SiteCounts:
    """What a site (or public audio, "") holds: clips by side of the gate, groups, and cries by reason."""

    cries: int
    others: int
    unlabelled: int
    groups: int
    reasons: dict[str, int]


@dataclass(frozen=True)
class Verdict:
    """`passed` is about the data alone; `released` also counts a recorded override."""

    scope: str  # "federation" or the site's name
    passed: bool
    criticals: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    rules: tuple[str, ...]  # every rule that was checked
    sites: dict[str, SiteCounts]
    unusable: tuple[str, ...]  # every clip that cannot be decoded: to be skipped under an override
    override_reason: str | None = None
    probe: dict[str, Any] | None = None  # models.probe.ProbeResult: whether the labels carry a signal

    @property
    def released(self) -> bool:
        """Whether training may go on."""
        return self.passed or self.override_reason is not None

    @property
    def clips(self) -> int:
        """Rows that were judged."""
        return sum(s.cries + s.others + s.unlabelled for s in self.sites.values())

    def without_paths(self) -> Verdict:
        """The form that may leave a site: rules, messages of counts and totals, but no file or group name.

        Messages can name groups and files too, so they are cut back to the rule's id.
        """

        def bare(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
            return tuple(
                replace(f, paths=(), message=f"{f.rule}: {f.total} row(s), see the site's own report")
                for f in findings
            )

        return replace(
            self, criticals=bare(self.criticals), warnings=bare(self.warnings), unusable=(), probe=None
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; equal inputs give equal documents."""
        raw: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return raw

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Verdict:
        """Inverse of `to_dict`.

        Raises:
            GateError: the document is not a verdict.
        """

        def findings(items: Iterable[dict[str, Any]]) -> tuple[Finding, ...]:
            return tuple(Finding(**{**item, "paths": tuple(item["paths"])}) for item in items)

        try:
            return cls(
                **{
                    **raw,
                    "criticals": findings(raw["criticals"]),
                    "warnings": findings(raw["warnings"]),
                    "rules": tuple(raw["rules"]),
                    "sites": {site: SiteCounts(**counts) for site, counts in raw["sites"].items()},
                    "unusable": tuple(raw["unusable"]),
                }
            )
        except (KeyError, TypeError, AttributeError) as err:
            raise GateError(f"not a gate verdict ({err}): run the gate again") from None

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Inverse of `to_json`.

        Raises:
            GateError: the text is not JSON, or not a verdict.
        """
        try:
            raw = json.loads(text)
        except ValueError as err:
            raise GateError(f"not a gate verdict ({err}): run the gate again") from None
        return cls.from_dict(raw)


def enforce(verdict: Verdict, override_reason: str | None = None) -> Verdict:
    """Let a passing verdict through; stop a failing one, unless a reason is given, which is then recorded in it.

    Raises:
        GateError: a critical rule is broken and no reason was given (the message names every such rule and its rows), or the
            reason is blank.
    """
    if override_reason is not None and not override_reason.strip():
        raise GateError(
            "an override of the data-quality gate needs a reason: say why this data may be trained on"
        )
    if verdict.passed:
        return verdict
    if override_reason is None:
        found = "\n".join(f"  {f}" for f in verdict.criticals)
        raise GateError(
            f"the data-quality gate found {len(verdict.criticals)} critical failure(s) "
            f"in {verdict.clips} clips ({verdict.scope}):\n{found}\n"
            "Correct the data, or override with a reason, which is recorded in the verdict."
        )
    return replace(verdict, override_reason=override_reason.strip())
