"""Progress as server-sent events: of one job until it ends, or of all jobs."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter

from shardline.gateway.chunked_response import PieceStream, StreamPlan
from shardline.gateway.context import Gate, Gateway, Reader
from shardline.gateway.job_watcher import Watch
from shardline.gateway.openapi import refusals
from shardline.gateway.users import User
from shardline.services.client import JobView
from shardline_common.errors import BrokerUnavailable, JobUnknown

router = APIRouter(tags=["events"])
_MEDIA = "text/event-stream"
_BEAT_SECONDS = 15.0
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `progress`, `unavailable`, at last `end`.",
        "content": {_MEDIA: {}},
    }
}


@router.get(
    "/api/datasets/{dataset_id}/events",
    response_class=PieceStream,
    responses=_EVENTS | refusals(401, 403, 404, 429, 503),
)
async def events(dataset_id: str, gate: Gate, user: Reader) -> PieceStream:
    """Watch one job: an event for each change, and `end` when it has ended."""
    gate.watch.job(dataset_id)
    return _stream(gate, user, dataset_id)


@router.get("/api/events", response_class=PieceStream, responses=_EVENTS | refusals(401, 403, 429, 503))
async def all_events(gate: Gate, user: Reader) -> PieceStream:
    """Watch all jobs."""
    gate.watch.jobs()
    return _stream(gate, user, None)


def _stream(gate: Gateway, user: User, dataset_id: str | None) -> PieceStream:
    plan = StreamPlan(
        partial(_events, gate.watch, dataset_id),
        gate.watchers.slot(user.id),
        gate.settings.gateway_stall_seconds,
    )
    return PieceStream(plan, _MEDIA, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


def progress_of(view: JobView, watch: Watch) -> dict[str, Any]:
    """A job's progress with its rates."""
    rates = watch.rates(view.state.spec.job_id)
    body = view.to_json()
    del body["spec"]
    return body | {"documents_per_second": rates.documents, "seconds_left": rates.left}


async def _events(watch: Watch, only: str | None) -> AsyncGenerator[bytes, None]:
    said: dict[str, bytes] = {}
    yield b"retry: 2000\n\n"
    while True:
        try:
            views = watch.jobs() if only is None else [watch.job(only)]
            for view in views:
                body = orjson.dumps(progress_of(view, watch))
                if said.get(view.state.spec.job_id) != body:
                    said[view.state.spec.job_id] = body
                    yield b"event: progress\ndata: " + body + b"\n\n"
            if only is not None and not views[0].state.active:
                yield b"event: end\ndata: {}\n\n"
                return
        except JobUnknown:
            yield b"event: end\ndata: {}\n\n"
            return
        except BrokerUnavailable as error:
            yield b"event: unavailable\ndata: " + orjson.dumps({"detail": str(error)}) + b"\n\n"
        try:
            async with asyncio.timeout(_BEAT_SECONDS):
                await watch.changed()
        except TimeoutError:
            yield b": still here\n\n"
