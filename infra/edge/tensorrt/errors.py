"""Why an engine is not used: the kinds that a device reports (docs/edge-protocol.md).

Standard library only, Python 3.6; apart from `models.errors`, which a device does not have.
"""


class EngineError(Exception):
    """Base of what follows."""


class BuildFailed(EngineError):
    """`trtexec` is missing, gave up, took too long, or wrote something that is no answer."""


class Unhealthy(EngineError):
    """An engine was built and does not agree with the reference."""
