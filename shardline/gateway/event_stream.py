"""Progress as server-sent events: of one job until it ends, or of all jobs."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter

from shardline.gateway.authorization import ReadAccess
from shardline.gateway.chunked_response import ChunkedResponse, StreamSpec
from shardline.gateway.context import Context, GatewayContext
from shardline.gateway.openapi import error_responses
from shardline.gateway.users import User
from shardline_common.errors import BrokerUnavailable, JobUnknown

router = APIRouter(tags=["events"])
_MEDIA_TYPE = "text/event-stream"
_KEEP_ALIVE_SECONDS = 15.0
_JOBS_AT_ONCE = 20
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `progress`, `unavailable`, and `end` as the last one.",
        "content": {_MEDIA_TYPE: {}},
    }
}


@router.get(
    "/api/datasets/{dataset_id}/events",
    response_class=ChunkedResponse,
    responses=_RESPONSES | error_responses(401, 403, 404, 429, 503),
)
async def events(dataset_id: str, context: Context, user: ReadAccess) -> ChunkedResponse:
    """Follow one job: `progress` at each change, and `end` when the job has ended."""
    context.jobs.job(dataset_id)
    return _event_response(context, user, dataset_id)


@router.get(
    "/api/events", response_class=ChunkedResponse, responses=_RESPONSES | error_responses(401, 403, 429, 503)
)
async def all_events(context: Context, user: ReadAccess) -> ChunkedResponse:
    """Follow all jobs: `progress` at each change of a job."""
    context.jobs.jobs()
    return _event_response(context, user, None)


def _event_response(context: GatewayContext, user: User, dataset_id: str | None) -> ChunkedResponse:
    stream = StreamSpec(
        partial(_events, context, dataset_id),
        context.limits.event_streams.slot(user.id),
        context.settings.gateway_stall_seconds,
    )
    return ChunkedResponse(stream, _MEDIA_TYPE, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


async def _events(context: GatewayContext, only: str | None) -> AsyncGenerator[bytes, None]:
    jobs = context.jobs
    last_sent: dict[str, bytes] = {}
    yield b"retry: 2000\n\n"
    while True:
        try:
            views = jobs.jobs() if only is None else [jobs.job(only)]
            for number, view in enumerate(views):
                body = context.progress.made(view, jobs.refresh)
                if body is None:
                    body = context.progress.make(view, jobs.rates(view.state.spec.job_id), jobs.refresh)
                    if number % _JOBS_AT_ONCE == 0:
                        # Many jobs may have changed, and others wait.
                        await asyncio.sleep(0)
                if last_sent.get(view.state.spec.job_id) != body:
                    last_sent[view.state.spec.job_id] = body
                    yield b"event: progress\ndata: " + body + b"\n\n"
            if only is not None and not views[0].state.active:
                yield b"event: end\ndata: {}\n\n"
                return
        except JobUnknown:
            # The dataset was deleted.
            yield b"event: end\ndata: {}\n\n"
            return
        except BrokerUnavailable as error:
            yield (
                b"event: unavailable\ndata: " + orjson.dumps({"detail": context.public(str(error))}) + b"\n\n"
            )
        try:
            async with asyncio.timeout(_KEEP_ALIVE_SECONDS):
                await jobs.wait_for_refresh()
        except TimeoutError:
            yield b": keep-alive\n\n"
