"""Every error that the agent raises on purpose.

AgentError
├── ConfigError            the device is set up wrongly; a person has to look
└── Refused                what is on offer is not installed; the running release stays. `kind` goes into the report
    ├── BadSignature       not enough valid signatures of the role
    ├── Rollback           a lower version than one accepted before
    ├── FastForward        a version that leaps too far
    ├── Expired            the newest thing on offer is too old
    ├── TooLarge           more bytes than announced or allowed
    ├── MixAndMatch        parts that do not belong together
    ├── WrongSoftware      another fleet's, device's, hardware's, or of another version of the protocol
    ├── TooSlow            bytes come too slowly
    ├── Extraneous         files or keys that should not be there
    ├── KeyRevoked         signed by a key that the newest root no longer lists
    ├── NoSignOff          the clinical role has not signed this release for this fleet
    ├── BuildFailed        no engine for this hardware
    ├── Unhealthy          the engine disagrees with the golden clips, or the service does not answer
    ├── NoSpace            the disk is full, or refuses
    └── StoreUnreachable   the store does not answer, or lacks the object

The agent runs where the rest of cryfed is not installed, so the tree is its own and not `models.errors`.
"""


class AgentError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(AgentError):
    """The configuration, a key or the device's own state cannot be used."""


class Refused(AgentError):
    """What is on offer is not installed; the running release stays as it is."""

    @property
    def kind(self) -> str:
        """The name that the report carries."""
        return type(self).__name__


class BadSignature(Refused):
    """Not enough valid signatures of the role."""


class Rollback(Refused):
    """A lower version than one accepted before."""


class FastForward(Refused):
    """A version that leaps so far that it would shut out later ones."""


class Expired(Refused):
    """The newest thing on offer is too old."""


class TooLarge(Refused):
    """More bytes than announced, or than any such thing may have."""


class MixAndMatch(Refused):
    """Parts that do not belong together: a digest, size or version that is not the announced one."""


class WrongSoftware(Refused):
    """Another fleet's, another device's, another hardware's, or not in the form of this protocol."""


class TooSlow(Refused):
    """Below the lowest rate for longer than the patience."""


class Extraneous(Refused):
    """Files or keys that should not be there."""


class KeyRevoked(Refused):
    """Signed by a key that the newest root no longer lists for the role."""


class NoSignOff(Refused):
    """The clinical role has not signed, or not this release for this fleet."""


class BuildFailed(Refused):
    """The release gives no engine on this hardware."""


class Unhealthy(Refused):
    """The engine disagrees with the golden clips, or the service does not answer with it."""


class NoSpace(Refused):
    """The disk is full, or refuses to be written."""


class StoreUnreachable(Refused):
    """The store does not answer, answers nonsense, or lacks the object."""
