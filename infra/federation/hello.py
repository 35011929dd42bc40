"""Who takes part: every site names its features by digest and, for secure aggregation, its identity."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from infra.federation.exchange import accepted
from infra.federation.job import FederationJob
from infra.federation.messages import Envelope, Header, check_reply
from infra.federation.transport import Outcome, Transport
from models.errors import FederationError, UpdateRejected

_HEX_64: Final = re.compile(r"[0-9a-f]{64}")


@dataclass
class Introduced:
    """By site: SHA-256 of its features, and its Ed25519 verification key (32 bytes)."""

    features: dict[str, str] = field(default_factory=dict)
    identities: dict[str, bytes] = field(default_factory=dict)


def introduce(job: FederationJob, transport: Transport, header: Header, size: int) -> Introduced:
    """Ask every site who it is, once all of them run the same network and the same plan.

    An identity that the job pins must be the one the site has. One that it does not pin is taken on the word of whoever carries
    the messages, which is as good as that carrier.

    Args:
        job: the job.
        transport: reaches the sites.
        header: of the request.
        size: P.

    Raises:
        FederationError: some site cannot take part; the message names every such site.
    """
    request = Envelope(
        header, {"protocol": header.protocol, "parameters": size, "plan": job.plan().to_dict()}
    )
    outcomes = transport.connect(request, job.site_names, timeout_s=job.timeout_s)
    found, absent = Introduced(), []
    for spec in job.sites:
        try:
            features, identity = _read(header, outcomes[spec.name])
            if spec.identity is not None and identity != spec.identity:
                raise UpdateRejected("the site's identity key is not the one that the job pins")
            found.features[spec.name] = features
            found.identities[spec.name] = bytes.fromhex(identity)
        except FederationError as err:
            absent.append(f"  {spec.name}: {err}")
    if absent:
        raise FederationError(
            "the federation cannot start; mend these sites or take them out of the job:\n" + "\n".join(absent)
        )
    if len(set(found.identities.values())) < len(found.identities):
        raise FederationError("two sites have the same identity key: every site makes its own")
    return found


def _read(header: Header, outcome: Outcome) -> tuple[str, str]:
    if not isinstance(outcome, Envelope):
        raise FederationError(str(outcome) if isinstance(outcome, UpdateRejected) else outcome.reason)
    check_reply(header, outcome)
    body = accepted(outcome).body
    for name in ("features", "identity"):
        if not isinstance(body.get(name), str) or not _HEX_64.fullmatch(body[name]):
            raise UpdateRejected(f"the site names its {name} as {body.get(name)!r}, not by 64 hex digits")
    return body["features"], body["identity"]
