"""A site's ClientApp as a SuperNode calls it: the node says what the site brings, and no exception's words leave it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

from infra.digest import digest_json
from infra.federation.base import load_base
from infra.federation.client_app import app
from infra.federation.job import FederationJob
from infra.federation.local.plan import DataPlan
from infra.federation.messages import CALIBRATE, GATE, HELLO, Envelope, Header
from infra.federation.wire import from_records, to_records
from models.adapters import adapter_schema
from models.errors import FederationError
from tests.infra.federation.world import make_job


@pytest.fixture
def job(tmp_path: Path) -> FederationJob:
    job = make_job(tmp_path / "world", sites=2)
    job.save(tmp_path / "job.json")
    return job


def ask(job: FederationJob, action: str, config: dict[str, str], body: dict | None = None) -> Envelope:
    net, base = load_base(job.base_model, job.model(), job.reasons)
    body = body or {}
    pinned = digest_json(body.get("data", {}))
    header = Header(action, "", "", 0, 0, adapter_schema(net).digest, base, pinned)
    if action == CALIBRATE:
        header = replace(header, site="site1")
    message = Message(to_records(Envelope(header, body)), dst_node_id=7, message_type=f"query.{action}")
    message.metadata.__dict__["_message_id"] = "1"
    context = Context(run_id=1, node_id=7, node_config=dict(config), state=RecordDict(), run_config={})
    return from_records(app(message, context).content, max_payload=0)


def test_the_node_says_what_the_site_brings(job: FederationJob, tmp_path: Path) -> None:
    config = {"job": str(tmp_path / "job.json"), "site": "site1"}
    assert ask(job, HELLO, config).body["site"] == "site1"

    plan = {"data": DataPlan().to_dict()}
    ready = ask(job, GATE, config, plan)
    assert ready.refused
    assert "brings ready frames" in ready.body["message"]

    config |= {"manifest": str(tmp_path / "kanarien.csv"), "folder": str(tmp_path / "its-own")}
    absent = ask(job, GATE, config, plan)
    assert absent.refused
    assert absent.body["type"] == "ManifestError"
    assert "kanarien" not in str(absent.body)
    assert "kanarien.csv does not exist" in (tmp_path / "its-own" / "refusals.log").read_text()
    assert (
        ask(job, HELLO, config).body["type"] == "DataError"
    )  # nothing extracted: the job's frames are not its own


def test_no_exceptions_words_leave_the_site(
    job: FederationJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kanarien = tmp_path / "kanarien.json"
    with pytest.raises(FederationError, match=r"\(ConfigError\); the reason stays") as err:
        ask(job, HELLO, {"job": str(kanarien), "site": "site1"})
    assert "kanarien" not in str(err.value)
    assert err.value.__cause__ is None
    assert err.value.__suppress_context__
    with pytest.raises(FederationError, match="ConfigError"):
        ask(job, HELLO, {"site": "site1"})
    said = [r.exc_info[1] for r in caplog.records if r.levelno == logging.ERROR and r.exc_info]
    assert "kanarien" in str(said[0])
    assert "lacks job" in str(said[1])
