"""AWS Signature Version 4 for single S3 requests, computed without I/O.

Source: "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk", Amazon S3 API
Reference; its two worked examples are this module's test.
"""

import hashlib
import hmac
import time
from typing import Dict, NamedTuple
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"


class Credentials(NamedTuple):
    """A key of the store."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"


def sign(
    method: str, path: str, headers: Dict[str, str], body: bytes, credentials: Credentials, now: float
) -> Dict[str, str]:
    """The headers to send, `headers` (with Host) among them, for an unescaped path without a query; `now` in epoch seconds."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    digest = hashlib.sha256(body).hexdigest()
    sent = dict(headers, **{"x-amz-date": stamp, "x-amz-content-sha256": digest})
    lower = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
    names = ";".join(sorted(lower))
    lines = [
        method,
        escape(path),
        "",
        *(f"{name}:{lower[name]}" for name in sorted(lower)),
        "",
        names,
        digest,
    ]
    scope = f"{stamp[:8]}/{credentials.region}/s3/aws4_request"
    request = hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()
    to_sign = "\n".join([_ALGORITHM, stamp, scope, request])
    key = ("AWS4" + credentials.secret_key).encode("utf-8")
    for part in (stamp[:8], credentials.region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode("utf-8"), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode("utf-8"), hashlib.sha256).hexdigest()
    sent["Authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{scope},SignedHeaders={names},Signature={signature}"
    )
    return sent


def escape(path: str) -> str:
    """A path as it is sent and signed: everything escaped but letters, digits and `/-_.~`."""
    return quote(path, safe="/-_.~")
