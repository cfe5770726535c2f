"""Spans of a job under one trace id; without a tracer nothing but the id, handed on."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import Message, Receive, Scope, Send

from shardline.gateway.middleware import GatewayMiddleware, MiddlewarePolicy
from shardline.services.embedded import EmbeddedRun
from shardline.services.sample import write_sample
from shardline.services.wiring.sources import source_factory
from shardline.services.wiring.tracing import traced
from shardline_common.dataset.verify import Verifier
from shardline_common.errors import BrokerUnavailable, UsageError
from shardline_common.job.names import Layout
from shardline_common.job.state import JobState, checkpoint, latest_states
from shardline_common.job.trace_headers import trace_headers, traceparent_of
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Record
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.logs import log_context
from shardline_common.telemetry.metrics import Metrics
from shardline_common.telemetry.otel import OtelTracer
from shardline_common.telemetry.tracing import continue_trace, current_traceparent, span, use_tracer
from shardline_producer.context import ProducerPolicy
from tests.make import job, sample_job

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What was done, once it is over."""
    exporter = InMemorySpanExporter()
    with use_tracer(OtelTracer(SimpleSpanProcessor(exporter), "test")):
        yield exporter


def trace_of(found: ReadableSpan) -> str:
    """The id of a span's trace."""
    assert found.context is not None
    return f"{found.context.trace_id:032x}"


def about(found: ReadableSpan) -> dict[str, Any]:
    """A span's attributes."""
    return dict(found.attributes or {})


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        GIVEN.encode() + b"-more",
        GIVEN.upper().encode(),
        GIVEN.replace(TRACE_ID, "0" * 32).encode(),
        GIVEN.replace("00f067aa0ba902b7", "0" * 16).encode(),
        GIVEN.replace("00-", "01-", 1).encode(),
    ],
)
def test_what_is_no_traceparent_is_none(value: bytes | None) -> None:
    assert traceparent_of([("traceparent", value)]) is None
    assert traceparent_of([("traceparent", value), ("traceparent", GIVEN.encode())]) == GIVEN
    assert traceparent_of([("other", GIVEN.encode())]) is None


def test_without_a_tracer_the_trace_is_handed_on() -> None:
    assert current_traceparent() is None
    assert trace_headers(current_traceparent()) == ()
    with continue_trace(GIVEN), span("batch", documents=1) as told:
        told.set(more=1)
        assert trace_headers(current_traceparent()) == (("traceparent", GIVEN.encode()),)
        with continue_trace(None):
            assert current_traceparent() == GIVEN
    assert current_traceparent() is None


async def test_a_span_lies_below_what_was_continued_also_in_other_tasks(spans: InMemorySpanExporter) -> None:
    async def inner() -> None:
        with span("inner", rows=3):
            assert traceparent_of(trace_headers(current_traceparent())) == current_traceparent()

    with continue_trace(GIVEN), log_context(job="laws"), span("outer"):
        await asyncio.create_task(inner())
    assert current_traceparent() is None
    below, above = spans.get_finished_spans()
    assert (below.name, above.name) == ("inner", "outer")
    assert {trace_of(below), trace_of(above)} == {TRACE_ID}
    assert below.parent is not None
    assert above.context is not None
    assert below.parent.span_id == above.context.span_id
    assert about(below) == {"shardline.job": "laws", "shardline.rows": 3}


def test_a_span_tells_the_class_of_an_error_and_none_of_its_words(spans: InMemorySpanExporter) -> None:
    with pytest.raises(BrokerUnavailable), span("put"):
        raise BrokerUnavailable("with the password hunter2")
    (found,) = spans.get_finished_spans()
    assert not found.status.is_ok
    assert about(found) == {"error.type": "BrokerUnavailable"}
    assert "hunter2" not in found.to_json()


def test_the_trace_of_a_checkpoint_stands_in_its_headers_alone() -> None:
    state = JobState(job(), traceparent=GIVEN)
    message = checkpoint(state)
    assert TRACE_ID.encode() not in (message.value or b"")
    assert message.value == JobState(job()).encode()
    record = Record(0, 0, message.key, message.value, message.headers)
    assert latest_states([record]) == {"test": state}
    assert latest_states([Record(0, 1, message.key, message.value)])["test"].traceparent is None


async def embedded(folder: Path) -> MemoryStore:
    """What a run of the sample leaves in its store."""
    store, source = MemoryStore(), source_factory(Settings(), folder, confined=True, remote=None)
    limits = ProducerPolicy(progress_seconds=0.05)
    embedded = EmbeddedRun(store, SystemClock(), Metrics(), source, limits, 1 << 28, spool_dir=folder)
    view = (await embedded.run(job(**sample_job("sample")), lambda _: None)).view
    assert view.state.state == "completed", view.to_json()
    return store


async def content(store: MemoryStore) -> dict[str, bytes]:
    """Shards and chain."""
    root = Layout.of(job(**sample_job("sample"))).root
    keys = [info.key for part in ("data/", "_state/chain/") async for info in store.list(root + part)]
    return {key: await store.get(key) for key in keys}


async def test_a_run_is_one_trace_and_makes_the_same_bytes(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.jsonl", 1200)
    plain = await embedded(tmp_path)
    exporter = InMemorySpanExporter()
    with use_tracer(OtelTracer(SimpleSpanProcessor(exporter), "test")):
        watched = await embedded(tmp_path)
    assert await content(watched) == await content(plain)
    root = Layout.of(job(**sample_job("sample"))).root
    digests = [(await Verifier(store, root).run()).digest for store in (plain, watched)]
    assert digests[0] == digests[1]
    found = exporter.get_finished_spans()
    assert {each.name for each in found} == {
        *("submit", "accept", "plan", "batch", "end", "segment", "put", "chain", "finish")
    }
    assert len({trace_of(each) for each in found}) == 1
    assert {about(each)["shardline.job"] for each in found} == {"sample"}
    batches = [about(each) for each in found if each.name == "batch"]
    assert sum(each["shardline.documents"] for each in batches) == 1200
    puts = [about(each) for each in found if each.name == "put"]
    assert {each["shardline.partition"] for each in puts} == {0, 1}
    # As many as there are shards: never one for a document.
    assert len(puts) == len([key for key in await content(watched) if "/data/" in key])


async def asked(path: str) -> None:
    """Ask a gateway that answers 204 whatever it is asked."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def nothing() -> Message:
        raise AssertionError("nothing is read")

    async def ignored(_: Message) -> None:
        return

    headers = [(b"traceparent", GIVEN.encode()), (b"x-request-id", b"mine"), (b"host", b"h")]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    middleware = GatewayMiddleware(app, MiddlewarePolicy(1000), lambda _status, _route, _seconds: None)
    await middleware(scope, nothing, ignored)


async def test_a_request_goes_on_with_its_callers_trace(spans: InMemorySpanExporter) -> None:
    await asked("/health")
    await asked("/api/datasets")
    (found,) = spans.get_finished_spans()
    assert trace_of(found) == TRACE_ID
    assert about(found) == {
        "shardline.request_id": "mine",
        "shardline.method": "GET",
        "shardline.path": "/api/datasets",
        "shardline.status": 204,
    }


@pytest.mark.parametrize("off", [{}, {"otel_disabled": True}, {"otel_exporter": "none"}])
def test_tracing_is_off_unless_it_is_asked_for(off: dict[str, Any]) -> None:
    address = {"otel_endpoint": "http://127.0.0.1:1"} if off else {}
    with traced(Settings.model_validate(off | address), "test"), span("batch"):
        assert current_traceparent() is None


def test_a_protocol_that_is_not_spoken_is_refused() -> None:
    settings = Settings(otel_endpoint="http://127.0.0.1:4317", otel_protocol="grpc")
    with pytest.raises(UsageError, match="grpc"), traced(settings, "test"):
        pass


def without_the_extra(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`shardline run` where OpenTelemetry is not installed."""
    code = "import sys; sys.modules['opentelemetry'] = None\nfrom shardline.cli.app import main\nmain()"
    command = [sys.executable, "-c", code, "run", "job.json", "--output", "out"]
    return subprocess.run(
        command, env=os.environ | env, cwd=folder, capture_output=True, text=True, check=False
    )


def test_without_the_extra_the_same_code_runs(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.jsonl", 100)
    (tmp_path / "job.json").write_text(job(**sample_job("sample")).model_dump_json())
    done = without_the_extra(tmp_path)
    assert done.returncode == 0, done.stderr
    refused = without_the_extra(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert refused.returncode == 2
    assert "OpenTelemetry is not installed" in refused.stderr
    assert "extra 'otel'" in refused.stderr
