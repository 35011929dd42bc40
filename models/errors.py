"""Every error that cryfed raises on purpose, as one tree.

CryfedError
├── ConfigError            a setting or option is wrong, or two contradict each other
├── DataError              a recording, manifest or corpus cannot be used
│   ├── ManifestError      the table itself: missing, empty, wrong column, unknown label, leaking group
│   └── AudioError         one file: unreadable, truncated, wrong shape or rate, NaN, empty
├── GateError              the data-quality gate found a critical failure
├── StoreError             the object store refused, is out of reach, or holds something else than asked for
│   ├── IntegrityError     bytes do not match the digest they are filed under
│   └── ConflictError      a conditional write lost to another writer
├── RolloutStopped         a release did not reach its fleet: it was rolled back, or waits for a person
├── ServerError            an embedded server could not start, stop or get its port
├── FederationError        a round, a message or a site's update is not acceptable
│   ├── UpdateRejected     one site's update: NaN, wrong shape, wrong round, wrong schema
│   ├── VariatesOutOfStep  a site's control variate is not the one that the server counted
│   └── RoundSkipped       a round can no longer be used; the next one can
├── ExportError            the graph breaks a rule of the target, or disagrees with the reference
├── BundleError            a release bundle is incomplete, altered or not one of ours
├── ChallengerRefused      a release is, or may be, worse than the one that its channel points at
├── KeyFileError           a private key of a fleet is missing, unreadable, or readable by others
├── TrustError             a document of a fleet is not to be believed (docs/edge-protocol.md)
│   ├── BadSignature       not enough valid signatures of the role, or nothing that could carry one
│   ├── KeyRevoked         signed by a key that the newest root no longer lists
│   ├── Rollback           a lower version than one accepted before
│   ├── FastForward        a version that leaps so far that it would shut out every later one
│   ├── Expired            the newest thing on offer is too old
│   ├── TooLarge           more bytes than announced, or than any document may have
│   ├── MixAndMatch        parts that do not belong together
│   ├── WrongSoftware      another fleet's, another hardware's, or another protocol's
│   ├── Extraneous         files or keys that should not be there
│   └── NoSignOff          the clinical role has not signed this release for this fleet
└── OutputError            a result cannot be written where it was asked for

It lives in `models` because every other package may import `models` and `models` imports none of them.
Messages say what was wrong, where, and what to do; the command line prints them without a traceback.
"""

from __future__ import annotations


class CryfedError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(CryfedError):
    """A setting or option is wrong, or two contradict each other."""


class DataError(CryfedError):
    """A recording, manifest or corpus cannot be used."""


class ManifestError(DataError):
    """The table of clips is missing, empty, malformed or inconsistent."""


class AudioError(DataError):
    """One audio file cannot be used."""


class GateError(CryfedError):
    """The data-quality gate found a critical failure."""


class StoreError(CryfedError):
    """The object store refused, is out of reach, or holds something else than asked for."""


class IntegrityError(StoreError):
    """Bytes do not match the digest they are filed under."""


class ConflictError(StoreError):
    """A conditional write lost to another writer."""


class RolloutStopped(CryfedError):
    """A release did not reach its fleet: it was rolled back, or its rollout waits for a person."""


class ServerError(CryfedError):
    """An embedded server could not start, stop or get its port."""


class FederationError(CryfedError):
    """A round, a message or a site's update is not acceptable."""


class UpdateRejected(FederationError):
    """One site's update is not acceptable: NaN, wrong shape, wrong round, wrong schema."""


class VariatesOutOfStep(FederationError):
    """A site's control variate is not the one that the server counted."""


class RoundSkipped(FederationError):
    """A round can no longer be used, because a second sum of it would reveal an update; the next one can."""


class ExportError(CryfedError):
    """The exported graph breaks a rule of its target, or disagrees with its reference."""


class BundleError(CryfedError):
    """A release bundle is incomplete, altered or not one of ours."""


class ChallengerRefused(CryfedError):
    """A release is, or may be, worse than the one that its channel points at."""


class KeyFileError(CryfedError):
    """A private key of a fleet is missing, unreadable, or readable by others."""


class TrustError(CryfedError):
    """A document of a fleet is not to be believed; the class's name is the kind that a device reports."""


class BadSignature(TrustError):
    """Not enough valid signatures of the role, or nothing that could carry one."""


class KeyRevoked(TrustError):
    """Signed by a key that the newest root no longer lists."""


class Rollback(TrustError):
    """A lower version than one accepted before."""


class FastForward(TrustError):
    """A version that leaps so far that it would shut out every later one."""


class Expired(TrustError):
    """The newest thing on offer is too old."""


class TooLarge(TrustError):
    """More bytes than announced, or than any document may have."""


class MixAndMatch(TrustError):
    """Parts that do not belong together: a digest, size or root that is not the announced one."""


class WrongSoftware(TrustError):
    """Another fleet's, another hardware's, or another protocol's."""


class Extraneous(TrustError):
    """Files or keys that a manifest or document should not have."""


class NoSignOff(TrustError):
    """The clinical role has not signed this release for this fleet."""


class OutputError(CryfedError):
    """A result cannot be written where it was asked for."""
