"""The two worked examples of Amazon's S3 documentation that fit a path-style client's GET and PUT."""

from __future__ import annotations

import calendar

from infra.edge.agent.sigv4 import Credentials, escape, sign

KEY = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW = calendar.timegm((2013, 5, 24, 0, 0, 0))


def test_get_object_with_a_range() -> None:
    headers = {"Host": "examplebucket.s3.amazonaws.com", "Range": "bytes=0-9"}
    sent = sign("GET", "/test.txt", headers, b"", KEY, NOW)
    assert sent["Authorization"].endswith(
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    assert "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date," in sent["Authorization"]
    assert sent["x-amz-date"] == "20130524T000000Z"


def test_put_object() -> None:
    headers = {
        "Host": "examplebucket.s3.amazonaws.com",
        "Date": "Fri, 24 May 2013 00:00:00 GMT",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
    }
    sent = sign("PUT", "/test$file.text", headers, b"Welcome to Amazon S3.", KEY, NOW)
    assert sent["Authorization"].endswith(
        "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    )


def test_escaping() -> None:
    assert escape("/b/blobs/sha256/ab~c.d-e_f") == "/b/blobs/sha256/ab~c.d-e_f"
    assert escape("/b/ü $+") == "/b/%C3%BC%20%24%2B"
