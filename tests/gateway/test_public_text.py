"""Refusals name no inner address and no absolute path; the log does."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline.gateway.public_text import inner_names, public_text
from shardline_common.errors import SourceUnavailable, StoreUnavailable
from shardline_common.job.state import State
from shardline_common.settings.load import Settings
from tests.gateway.inprocess import gateway_in_memory
from tests.gateway.system import body
from tests.make import job

SETTINGS = Settings(
    postgres_host="db",
    kafka_bootstrap_servers="kafka-1:9092,broker.example.org:9093",
    aws_endpoint_url_s3="http://seaweed:8333",
    files_root=Path("/srv/my files"),
)
INNER = (
    "10.0.0.5", "10.11.12.13:5432", "[fd00::5]:5432", "fd00::5", "::1", "db:5432", "db.internal",
    "kafka-1:9092",
    "kafka-1", "http://seaweed:8333", "bolt://neo4j.prod.svc.cluster.local:7687", "couch.corp:5984",
    "postgresql://reader:secret@db/uds3", "file:///srv/laws.jsonl", "localhost:8000", "broker.example.org",
    "host_7:9092", "neo4j+s://graph", "BROKER.EXAMPLE.ORG",
)  # fmt: skip
SENTENCES = (
    "PostgreSQL at {} is unavailable: connection refused",
    "{}: no answer",
    "{} cannot be reached (list); check it",
    "not reachable: broker 1 ({}); start it",
    'could not translate host name "{}" to address',
    "is '{}' up, or {}?",
    "the last word is {}.",
)


@pytest.mark.parametrize("address", INNER)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_an_address_is_hidden(address: str, sentence: str) -> None:
    shown = public_text(sentence.format(address, address), inner_names(SETTINGS))
    assert shown == sentence.format("…", "…")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/srv/data/laws.jsonl", "…/laws.jsonl"), ("/mnt", "…/mnt"), ("/var/spool/shardline/", "…/shardline"),
        ("C:\\data\\laws.jsonl", "…/laws.jsonl"), ("\\\\server\\share\\laws.jsonl", "…/laws.jsonl"),
    ],
)  # fmt: skip
def test_of_an_absolute_path_only_the_last_name_is_shown(path: str, shown: str) -> None:
    for sentence in (
        "{} cannot be read",
        "'{}' is no file",
        "no space left on {}: clean up",
        "see ({})",
        "{}",
        "FILES_ROOT={}",
        "[{}, {}]",
        "PosixPath('{}')",
    ):
        assert public_text(sentence.format(path, path)) == sentence.format(shown, shown)
    if path.startswith("/"):
        assert public_text(f"error:{path}: gone") == f"error:{shown}: gone"


def test_a_path_with_spaces_is_hidden() -> None:
    text = "'/srv/my files/a b.jsonl' is outside of /srv/my files, the folder that this producer may read"
    assert public_text(text, inner_names(SETTINGS)) == (
        "'…/a b.jsonl' is outside of …, the folder that this producer may read"
    )


@pytest.mark.parametrize(
    "text",
    [
        "UDS3 is not available: UDS3 is switched off (UDS3_ENABLED=false)",
        "the field 'colour' is not known; fields: created_at, domain, title",
        "no store of datasets is configured: S3_BUCKET is not set",
        "search_query.top_k: this gateway allows up to 100 (GATEWAY_MAX_TOP_K)",
        "s3://bucket/in/laws.jsonl is not there; a star does not match a slash",
        "laws.jsonl:300: invalid JSON at 12:30:45 on 2026-11-29T08:00:00.000Z",
        "set transaction.max.timeout.ms, or advertised.listeners, of dataset.jobs",
        "a token is needed: Authorization: Bearer …; and/or application/json",
        "the job is running; only a failed or cancelled job can be retried",
        "version 0.1.0, 99.5 % of 1.5 million; 3:1",
        "database, dbase, mydb and db_name stay",
        'write this into the job: "fields": {"id": "/meta/id", "text": "/body/a \\" b", "score": "stars"}}',
    ],
)
def test_other_sentences_stay_as_they_are(text: str) -> None:
    assert public_text(text, inner_names(SETTINGS)) == text


def test_a_proposed_mapping_hides_addresses_and_nothing_behind_it() -> None:
    text = '"fields": {"id": "/meta/id", "text": "http://10.0.0.5/x"}}, read from \'/srv/a/in.jsonl\''
    assert public_text(text) == '"fields": {"id": "/meta/id", "text": "…"}}, read from \'…/in.jsonl\''


@given(st.text(max_size=200))
def test_any_text_is_harmless(text: str) -> None:
    once = public_text(text, inner_names(SETTINGS))
    assert "10.0.0.5" not in public_text(f"{text} 10.0.0.5 {text}")
    assert isinstance(once, str)


ERROR = "PostgreSQL at 10.0.0.5:5432 is unavailable; it keeps its socket in /run/postgresql/main"


async def test_refusals_hide_what_the_log_shows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_in_memory(tmp_path) as gateway:

        async def fail(*_: object) -> None:
            raise SourceUnavailable(ERROR, hint="see http://wiki.internal/postgres")

        monkeypatch.setattr(gateway.context.uds3, "_probe", fail)
        with caplog.at_level(logging.INFO):
            refused = await gateway.call("POST", "/api/datasets/stream", "erika", body=body())
        assert refused.status == 503
        assert "is unavailable" in refused.json()["detail"]
        hidden(refused.text)
        assert "10.0.0.5:5432" in caplog.text


async def test_errors_of_the_store_and_of_streams_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        await gateway.accepted(job(job_id="done"), State.COMPLETED)

        def away(_: str) -> None:
            raise StoreUnavailable(ERROR)

        monkeypatch.setattr(gateway.store, "get", away)
        for headers in ({}, {"accept": "text/html"}):
            path = "/jobs/done" if headers else "/api/datasets/done"
            refused = await gateway.call("GET", path, "erika", headers=headers)
            assert refused.status == 503
            hidden(refused.text)


@pytest.mark.parametrize("path", ["/api/datasets", "/api/datasets/bad", "/api/datasets/bad/status"])
async def test_the_message_of_a_failed_job_is_hidden(tmp_path: Path, path: str) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        await gateway.accepted(job(job_id="bad"), State.FAILED, code="source_unreachable", message=ERROR)
        found = await gateway.call("GET", path, "erika")
        assert "is unavailable" in found.text
        hidden(found.text)
        events = await gateway.call("GET", "/api/datasets/bad/events", "erika")
        assert "is unavailable" in events.text
        hidden(events.text)
        page = await gateway.call("GET", "/jobs/bad", "erika", headers={"accept": "text/html"})
        assert "is unavailable" in page.text
        hidden(page.text)


def hidden(text: str) -> None:
    """Fail when a text holds what `ERROR` and its hint name."""
    for inner in ("10.0.0.5", "5432", "/run/", "wiki"):
        assert inner not in text
