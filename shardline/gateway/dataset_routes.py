"""The routes of Clara's dataset API."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request

from shardline.gateway.authorization import CreateAccess, ExportAccess, ReadAccess
from shardline.gateway.chunked_response import ChunkedResponse, StreamOutcome, StreamSpec
from shardline.gateway.context import Context, GatewayContext
from shardline.gateway.http_headers import content_disposition
from shardline.gateway.openapi import error_responses
from shardline.gateway.problems import Problem
from shardline.gateway.request_models import CreateRequest, ExportRequest, job_from_request, make_job_id
from shardline.gateway.responses import (
    Dataset,
    DatasetAnswer,
    DatasetList,
    ExportAnswer,
    Status,
    dataset_from_view,
    public_json,
    status_from_view,
)
from shardline.gateway.users import Permission, User
from shardline.services.job_defaults import job_defaults
from shardline.services.job_view import JobView
from shardline.services.query_check import check_query
from shardline.services.row_stream import StreamCounts, row_batches
from shardline_common.job.names import Layout

router = APIRouter(prefix="/api/datasets", tags=["datasets"])
_CLARA_FRONTEND = "Clara-Frontend/"
_HTTP_10 = "1.0"


@router.post(
    "/stream",
    response_class=ChunkedResponse,
    responses=error_responses(400, 401, 403, 413, 422, 426, 429, 503)
    | {200: {"description": "Rows, one JSON object a line.", "content": {"application/x-ndjson": {}}}},
)
async def stream(
    request: Request, body: CreateRequest, context: Context, user: CreateAccess
) -> ChunkedResponse:
    """Stream the rows of a search, filtered and formatted, without creating a dataset.

    Each line is a row. When the source fails after the first line, the gateway closes the connection without
    the last chunk, so that the client sees a broken chunked body.
    """
    # 1. Check what can be checked before the source is opened.
    if not context.settings.streaming_enabled:
        raise Problem(503, "streaming is off (STREAMING_ENABLED=false)")
    if request.scope["http_version"] == _HTTP_10:
        raise Problem(
            426,
            "with HTTP/1.0 a client cannot see that a stream was aborted",
            headers={"Upgrade": "HTTP/1.1"},
        )
    _check_top_k(body, context)
    await context.uds3.require()
    spec = job_from_request(body, make_job_id(body.name, None), user.name)
    context.check_job(spec, user)
    context.uds3.require_search(spec)
    counts = StreamCounts()

    # 2. Read, filter and render.
    async def chunks() -> AsyncGenerator[bytes, None]:
        batch_size = context.settings.streaming_batch_size
        async with aclosing(
            row_batches(spec, context.open_source, batch_size, counts, context.render_lock)
        ) as batches:
            async for lines in batches:
                yield b"".join(lines)

    # 3. Report the outcome to the metrics and the audit log.
    def on_end(outcome: StreamOutcome) -> None:
        context.metrics.streamed(outcome.value, counts.rows)
        fields = {"rows": counts.rows, "read": counts.read, "rejected": counts.rejected, "dead": counts.dead}
        context.audit_log.record(user, "stream", outcome.value, dataset=body.name, **fields, **counts.notes)

    slot = context.limits.row_streams.slot(user.id)
    response_body = StreamSpec(chunks, slot, context.settings.gateway_stall_seconds, on_end)
    headers = {
        "X-Dataset-Name": quote(body.name, safe=""),
        "X-Query-Text": quote(body.search_query.query_text[:100], safe=""),
        "Content-Disposition": content_disposition(f"{body.name}.jsonl"),
        "Cache-Control": "no-store",
    }
    return ChunkedResponse(response_body, "application/x-ndjson", headers)


def _check_top_k(body: CreateRequest, context: GatewayContext) -> None:
    limit = context.settings.gateway_max_top_k
    if limit and body.search_query.top_k > limit:
        raise Problem(422, f"search_query.top_k: this gateway allows up to {limit} (GATEWAY_MAX_TOP_K)")


@router.post("", responses=error_responses(400, 401, 403, 409, 413, 422, 429, 503))
async def create(
    body: CreateRequest,
    context: Context,
    user: CreateAccess,
    idempotency_key: Annotated[
        str | None, Header(max_length=200, description="The same key and body again is the same dataset.")
    ] = None,
) -> DatasetAnswer:
    """Start a job that creates a dataset."""
    # A stream of the same search would be refused: the job would fail, but only at its planning.
    _check_top_k(body, context)
    await context.uds3.require()
    key = None if idempotency_key is None else f"{user.id}\n{idempotency_key}"
    defaults = job_defaults(context.settings)
    spec = job_from_request(body, make_job_id(body.name, key), user.name, defaults)
    context.check_job(spec, user)
    context.uds3.require_search(spec)
    await check_query(spec, context.open_source)
    view = await context.jobs.submit(spec, user.owner)
    context.audit_log.record(user, "create", "200", dataset=spec.job_id)
    return await _response(context, view, f"Dataset created: {spec.job_id}")


async def _response(context: GatewayContext, view: JobView, message: str) -> DatasetAnswer:
    data = await _dataset(context, view)
    return DatasetAnswer(
        success=True, dataset_id=data.dataset_id, status=data.status, message=message, data=data
    )


async def _dataset(context: GatewayContext, view: JobView) -> Dataset:
    manifest = await context.datasets.manifest(view)
    exports: dict[str, str] = {}
    if manifest is not None and context.datasets.store is not None:
        exports["jsonl"] = f"{context.datasets.store.uri}/{Layout.of(view.state.spec).root}data/"
    return dataset_from_view(view, manifest, exports, context.public)


@router.get("", responses=error_responses(401, 403, 422, 429, 503))
async def listing(
    context: Context,
    _: ReadAccess,
    status: Annotated[Status | None, Query(description="Only datasets of this status.")] = None,
    limit: Annotated[int | None, Query(ge=1, le=10_000, description="null: no limit.")] = None,
    offset: Annotated[int, Query(ge=0, le=1 << 53)] = 0,
    user_agent: Annotated[str, Header()] = "",
) -> DatasetList:
    """List the datasets, the oldest first."""
    views = [view for view in context.jobs.jobs() if status is None or status_from_view(view) == status]
    page = views[offset : None if limit is None else offset + limit]
    found = await asyncio.gather(*(_dataset(context, view) for view in page))
    datasets: list[Dataset] | dict[str, Dataset] = list(found)
    if user_agent.startswith(_CLARA_FRONTEND):
        datasets = {data.dataset_id: data for data in found}
    return DatasetList(datasets=datasets, total_count=len(views), limit=limit, offset=offset)


@router.get("/{dataset_id}", responses=error_responses(401, 403, 404, 429, 503))
async def one(dataset_id: str, context: Context, _: ReadAccess) -> DatasetAnswer:
    """Get one dataset."""
    view = context.jobs.job(dataset_id)
    response = await _response(context, view, "Dataset details retrieved")
    datasets = context.datasets
    manifest = await datasets.manifest(view)
    if manifest is not None and datasets.exports is not None and datasets.store is not None:
        for info in await datasets.exports.existing(view.state.spec):
            response.data.export_paths[info.key.rpartition(".")[2]] = f"{datasets.store.uri}/{info.key}"
    return response


@router.post("/{dataset_id}/export", responses=error_responses(400, 401, 403, 404, 413, 422, 429, 501, 503))
async def export(dataset_id: str, body: ExportRequest, context: Context, user: ExportAccess) -> ExportAnswer:
    """Export a completed dataset as one file. A second call for the same format returns the same file."""
    view = context.jobs.job(dataset_id)
    spec = view.state.spec
    store = context.require_store()
    manifest = await context.datasets.manifest(view)
    if manifest is None or context.datasets.exports is None:
        raise Problem(400, f"Dataset not ready (status: {status_from_view(view)})")
    key = await context.datasets.exports.get_or_create(
        spec, manifest, body.format, metadata=body.include_metadata, escape=body.escape_formulas
    )
    file = "exports/" + key.removeprefix(Layout.of(spec).exports)
    rows = manifest["totals"]["rows"]
    context.audit_log.record(user, "export", "200", dataset=dataset_id, file=file, rows=rows)
    return ExportAnswer(
        success=True,
        message=f"Dataset exported to {body.format}",
        export_path=f"{store.uri}/{key}",
        download_url=context.download_link(dataset_id, file, user),
        expires_in=context.settings.gateway_link_seconds,
    )


@router.delete("/{dataset_id}", responses=error_responses(401, 403, 404, 422, 429, 503))
async def delete(
    dataset_id: str,
    context: Context,
    user: CreateAccess,
    purge: Annotated[
        bool, Query(description="Remove the dataset with its exports, topics and dead letters, irrevocably.")
    ] = False,
) -> DatasetAnswer:
    """Cancel the job if it is active. Rows written so far are kept, unless `purge` is true."""
    view = context.jobs.job(dataset_id)
    action = "purge" if purge else "cancel"
    _require_change(context, user, view, action, Permission.PURGE if purge else Permission.CREATE)
    if purge:
        await context.jobs.request(dataset_id, "delete", user.name)
        message = "Removal of the dataset was requested"
    elif view.state.active:
        await context.jobs.request(dataset_id, "cancel", user.name)
        message = "Cancellation was requested; rows written so far are kept"
    else:
        message = "The job has ended already; its rows are kept, ?purge=true removes them"
    context.audit_log.record(user, action, "200", dataset=dataset_id)
    return await _response(context, view, message)


def _require_change(
    context: GatewayContext, user: User, view: JobView, action: str, permission: Permission
) -> None:
    """Raise Problem (403) when the user may not cancel, retry or purge the dataset. It is recorded."""
    try:
        user.require(permission)
        context.ownership.require(user, view.state)
    except Problem as problem:
        context.audit_log.record(user, action, str(problem.status_code), dataset=view.state.spec.job_id)
        raise


@router.get("/{dataset_id}/status", responses=error_responses(401, 403, 404, 429, 503))
async def status_of_job(dataset_id: str, context: Context, _: ReadAccess) -> dict[str, Any]:
    """Get the job of a dataset, as `shardline status --json` prints it."""
    return public_json(context.jobs.job(dataset_id), context.public)


@router.post("/{dataset_id}/cancel", responses=error_responses(401, 403, 404, 409, 429, 503))
async def cancel(dataset_id: str, context: Context, user: CreateAccess) -> DatasetAnswer:
    """Cancel the job. Rows written so far are kept, and a retry continues after them."""
    view = await request_cancel_or_retry(context, user, dataset_id, retry=False)
    return await _response(context, view, "Cancellation was requested; rows written so far are kept")


@router.post("/{dataset_id}/retry", responses=error_responses(401, 403, 404, 409, 429, 503))
async def retry(dataset_id: str, context: Context, user: CreateAccess) -> DatasetAnswer:
    """Start a new attempt of a failed or cancelled job. It continues after the rows written so far."""
    view = await request_cancel_or_retry(context, user, dataset_id, retry=True)
    return await _response(context, view, "A new attempt was requested")


async def request_cancel_or_retry(
    context: GatewayContext, user: User, dataset_id: str, *, retry: bool
) -> JobView:
    """Request that a job is cancelled or retried.

    Raises:
        Problem: 403, the dataset belongs to another user; 409, the job's state does not allow it.
    """
    view = context.jobs.job(dataset_id)
    action: Literal["cancel", "retry"] = "retry" if retry else "cancel"
    _require_change(context, user, view, action, Permission.CREATE)
    allowed = view.state.retriable if retry else view.state.active
    context.audit_log.record(user, action, "200" if allowed else "409", dataset=dataset_id)
    if not allowed:
        reason = "only a failed or cancelled job can be retried" if retry else "there is nothing to cancel"
        raise Problem(409, f"the job is {view.state.state.value}; {reason}")
    await context.jobs.request(dataset_id, action, user.name)
    return view
