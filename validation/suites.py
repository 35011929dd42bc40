"""The gate's rules as Great Expectations suites: each with an id, a severity and what to do about it.

Two suites: over the manifest with its parts, and over the measured clips. `critical` stops training, `warning` is reported. A
site alone runs those rules that its own rows can answer.
"""

from __future__ import annotations

from typing import Any, Literal

from validation.expectations import clips, counts, leakage, signal
from validation.gx import (
    Column,
    ExpectationSuite,
    ExpectColumnValuesToBeInSet,
    ExpectColumnValuesToBeUnique,
    ExpectColumnValuesToMatchRegex,
)

Scope = Literal["federation", "site"]
ROLES = ["cry", "ood_noncry", "noise", "unlabelled"]


NO_SIGNAL = "reason-no-signal"


def manifest_suite(scope: Scope, probe: dict[str, Any] | None = None) -> Any:
    """Rules over the manifest: columns path, label, role, group, site, part, sha256, file_sha256, audio_sha256.

    Args:
        scope: the whole federation's rows, or one site's.
        probe: what the probe of the labels found there, if it was run.
    """
    rules = [
        _rule(
            ExpectColumnValuesToBeUnique(column="path"),
            "path-unique", "critical", "every path occurs once", "remove the repeated rows",
        ),
        _rule(
            ExpectColumnValuesToBeInSet(column="role", value_set=ROLES),
            "role-known", "critical", f"every role is one of {', '.join(ROLES)}", "correct the role column",
        ),
        _rule(
            ExpectColumnValuesToMatchRegex(column="label", regex=r"\S"),
            "label-given", "critical", "every row has a label", "fill the label, or set the role to unlabelled",
        ),
        _rule(
            ExpectColumnValuesToMatchRegex(column="sha256", regex=r"^[0-9a-fA-F]{64}$"),
            "hash-given", "critical", "every row has a sha256 of 64 hex digits", "run sha256sum over the files",
        ),
        _rule(
            leakage.ExpectGroupsToStayTogether(within="part"),
            "group-leak", "critical", "no group (infant or device) lies in two parts",
            "give all rows of a group the same fold, or leave the folds to be derived",
        ),
        _rule(
            leakage.ExpectRecordingsToBeUnique(across_parts=True),
            "duplicate-leak", "critical", "no recording lies in two parts",
            "drop the copies, or give them the same group",
        ),
        _rule(
            leakage.ExpectRecordingsToBeUnique(across_parts=False),
            "duplicate", "warning", "no recording occurs twice",
            "drop the copies; where groups differ, check which infant it is",
        ),
        _rule(
            counts.ExpectSitesToHoldBothGateSides(),
            "site-one-sided", "critical", "every site has cries and other sounds",
            "add clips of the missing side to the site, or merge it with another",
        ),
        _rule(
            counts.ExpectSitesToHoldReasons(),
            "site-one-reason", "warning", "every site has cries of two reasons or more",
            "its reason updates only pull to that one reason; add others or merge the site",
        ),
        _rule(
            counts.ExpectSitesToHoldGroups(),
            "site-few-groups", "warning", "every site has cries of three groups or more",
            "fewer cannot be dealt to train, val and test; merge the site with another",
        ),
        _rule(
            counts.ExpectPartsToHoldBothGateSides(per_site=True),
            "site-part-one-sided", "warning", "every part of every site has cries and other sounds",
            "that site is not calibrated or scored by itself; add clips or use fewer folds",
        ),
        _rule(
            signal.ExpectReasonsToCarrySignal(probe=probe),
            NO_SIGNAL, "warning", "the reasons of cries can be told apart better than by chance",
            "a model will hardly learn from such labels, and the release holds its reason head back; check who gave them and "
            "how, or collect ones with an outcome behind them",
        ),
    ]  # fmt: skip
    if scope == "federation":
        rules += [
            _rule(
                counts.ExpectSites(),
                "no-site", "critical", "some rows name a site", "fill the site column",
            ),
            _rule(
                counts.ExpectPartsToHoldBothGateSides(per_site=False),
                "part-one-sided", "critical", "train, val and test each have cries and other sounds",
                "choose other test and val folds, or correct the fold column",
            ),
            _rule(
                leakage.ExpectGroupsToStayTogether(within="site"),
                "group-two-sites", "warning", "no group lies at two sites",
                "an infant at two sites weighs twice; check the site column",
            ),
            _rule(
                counts.ExpectCriesToHaveSite(),
                "cry-without-site", "warning", "every cry names a site", "fill the site column; it trains nobody now",
            ),
            _rule(
                counts.ExpectReasonsToHaveGroups(),
                "reason-few-groups", "warning", "every reason has cries of five groups or more",
                "its score would be one infant's; collect more or merge reasons",
            ),
            _rule(
                counts.ExpectReasonsToBeTrained(),
                "reason-untrained", "warning", "every scored reason occurs in training",
                "choose other folds, or collect more of it",
            ),
        ]  # fmt: skip
    return ExpectationSuite(name="manifest", expectations=rules)


def clip_suite() -> Any:
    """Rules over the measured clips: the columns of `validation.measure` beside role and site."""
    only_cries = {"row_condition": Column("role") == "cry"}
    return ExpectationSuite(
        name="clips",
        expectations=[
            _rule(
                clips.ExpectClipsToBeReadable(),
                "clip-readable", "critical", "every file is there and decodes completely",
                "restore the file from its source, or remove its row",
            ),
            _rule(
                clips.ExpectClipFormatToBeAccepted(),
                "clip-format", "critical", "mono or stereo, 4 to 96 kHz, within the length limit",
                "convert the file (one channel, 16 kHz), or remove its row",
            ),
            _rule(
                clips.ExpectClipHashToMatch(),
                "clip-hash", "critical", "the bytes are those that the manifest describes",
                "restore the file, or update its sha256 if the change is meant",
            ),
            _rule(
                clips.ExpectClipsToHaveSamples(),
                "clip-empty", "critical", "no clip of 0 s", "remove the row",
            ),
            _rule(
                clips.ExpectClipsToBeFinite(),
                "clip-nan", "critical", "no NaN or infinite sample", "export the file again as 16-bit PCM, or remove its row",
            ),
            _rule(
                clips.ExpectClipDuration(),
                "clip-duration", "warning", "between 1 and 60 s", "cut or drop the clip",
            ),
            _rule(
                clips.ExpectClipSampleRate(),
                "clip-sample-rate", "warning", "between 8 and 48 kHz", "record at 16 kHz",
            ),
            _rule(
                clips.ExpectClipsNotToClip(),
                "clip-clipping", "warning", "at most 1 % of samples at full scale", "lower the microphone gain",
            ),
            _rule(
                clips.ExpectCriesNotToBeSilent(**only_cries),
                "cry-silent", "warning", "at most 80 % of a cry is silence", "check that the label means this clip",
            ),
            _rule(
                clips.ExpectCrySnr(**only_cries),
                "cry-snr", "warning", "a cry stands 6 dB above its background", "move the microphone closer, or drop the clip",
            ),
            _rule(
                clips.ExpectClipDcOffset(),
                "clip-offset", "warning", "mean within ±0.05 of full scale", "check the microphone",
            ),
        ],
    )  # fmt: skip


def _rule(expectation: Any, rule: str, severity: str, what: str, fix: str) -> Any:
    """Attach the id, the severity and the words that the verdict and the Data Docs speak."""
    expectation.severity = severity
    expectation.description = what
    expectation.meta = {"rule": rule, "fix": fix}
    return expectation
