"""What comes from outside is checked before it means anything."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from infra.federation.messages import (
    MAX_BODY_BYTES,
    TRAIN,
    Envelope,
    Header,
    check_reply,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
    refusal,
)
from infra.federation.wire import from_records, to_records
from models.errors import AudioError, FederationError, UpdateRejected

HEADER = Header(TRAIN, "ward1", "a" * 64, 3, 0, "b" * 64, "c" * 64, "d" * 64)


def test_header_and_body_survive_the_wire() -> None:
    sent = Envelope(HEADER, {"losses": {"gate": 0.5}}, b"\x00\x01\x02")
    received = from_records(to_records(sent), max_payload=3)
    assert received == sent
    assert received.size == len(encode_header(HEADER)) + len(encode_body(sent.body)) + 3


def test_refusal_names_the_error_and_the_site() -> None:
    answer = refusal(HEADER, UpdateRejected("θ is not finite"), site="ward1")
    assert answer.refused
    assert answer.body == {"site": "ward1", "type": "UpdateRejected", "message": "θ is not finite"}


def test_words_about_the_sites_own_data_stay_there() -> None:
    answer = refusal(HEADER, AudioError("/wards/7/anna-03.wav ends early"), site="ward1")
    assert answer.body["type"] == "AudioError"
    assert "anna" not in encode_body(answer.body)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"round": 4}, "round 4 instead of 3"),
        ({"schema": "e" * 64}, "schema eeeeeeeeeeee… instead of bbbbbbbbbbbb…"),
        ({"base": "e" * 64}, "base"),
        ({"run": "e" * 64}, "run"),
        ({"config": "e" * 64}, "config"),
        ({"site": "ward2"}, "site 'ward2' instead of 'ward1'"),
        ({"attempt": 1}, "attempt"),
        ({"cv_epoch": 1}, "cv_epoch"),
        ({"protocol": 3}, "protocol"),
    ],
)
def test_a_reply_to_another_request_is_rejected(change: dict[str, object], says: str) -> None:
    reply = Envelope(replace(HEADER, **change))  # type: ignore[arg-type]
    with pytest.raises(UpdateRejected, match=says):
        check_reply(HEADER, reply)


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"{}",
        "",
        "[]",
        "{",
        "{}",
        json.dumps({**asdict(HEADER), "extra": 1}),
        json.dumps({**asdict(HEADER), "round": "3"}),
        json.dumps({**asdict(HEADER), "round": True}),
        json.dumps({**asdict(HEADER), "site": 7}),
        json.dumps({**asdict(HEADER), "site": "x" * 5000}),
        "[" * 3000,
    ],
)
def test_a_malformed_header_is_rejected(text: object) -> None:
    with pytest.raises(UpdateRejected, match="message header"):
        decode_header(text)


@pytest.mark.parametrize("text", ['{"x": NaN}', '{"x": Infinity}', "7", "x" * (MAX_BODY_BYTES + 1)])
def test_a_malformed_body_is_rejected(text: str) -> None:
    with pytest.raises(UpdateRejected, match="message body"):
        decode_body(text)


def test_a_body_that_is_not_json_is_not_sent() -> None:
    with pytest.raises(FederationError, match="not JSON"):
        encode_body({"loss": float("nan")})
