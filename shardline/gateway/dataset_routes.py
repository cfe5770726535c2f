"""The routes of Clara's dataset API."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request

from shardline.gateway.chunked_response import Ending, PieceStream, StreamPlan
from shardline.gateway.context import Creator, Exporter, Gate, Gateway, Reader, store_of
from shardline.gateway.openapi import refusals
from shardline.gateway.problems import Problem
from shardline.gateway.request_models import CreateRequest, ExportRequest, job_of, new_id
from shardline.gateway.responses import (
    Dataset,
    DatasetAnswer,
    DatasetList,
    ExportAnswer,
    Status,
    dataset_of,
    status_of,
)
from shardline.gateway.users import Right, User
from shardline.services.client import JobView
from shardline.services.row_stream import StreamCounts, row_pieces
from shardline_common.job.names import Layout
from shardline_common.job.state import State

router = APIRouter(prefix="/api/datasets", tags=["datasets"])
_FRONTEND = "Clara-Frontend/"
_HTTP_10 = "1.0"


@router.post(
    "/stream",
    response_class=PieceStream,
    responses=refusals(400, 401, 403, 413, 422, 426, 429, 503)
    | {200: {"description": "Rows, one JSON object a line.", "content": {"application/x-ndjson": {}}}},
)
async def stream(request: Request, body: CreateRequest, gate: Gate, user: Creator) -> PieceStream:
    """Stream what the search finds, filtered and formatted, without making a dataset.

    Lines are only ever data. When something fails in the middle the connection is cut, and the client sees
    a broken chunked body.
    """
    if not gate.settings.streaming_enabled:
        raise Problem(503, "streaming is off (STREAMING_ENABLED=false)")
    if request.scope["http_version"] == _HTTP_10:
        raise Problem(
            426, "HTTP/1.0 cannot tell a broken stream from a whole one", headers={"Upgrade": "HTTP/1.1"}
        )
    _check_top_k(body, gate)
    await gate.uds3.require()
    spec, tally = job_of(body, new_id(body.name, None), user.name), StreamCounts()
    gate.uds3.require_search(spec)

    async def pieces() -> AsyncGenerator[bytes, None]:
        size = gate.settings.streaming_batch_size
        async with aclosing(row_pieces(spec, gate.open_source, size, tally, gate.render_lock)) as found:
            async for rows in found:
                yield b"".join(row.line for row in rows)

    def ended(ending: Ending) -> None:
        counts = {"rows": tally.rows, "read": tally.read, "rejected": tally.rejected, "dead": tally.dead}
        gate.metrics.streamed(ending.value, tally.rows)
        gate.audit.record(user, "stream", ending.value, dataset=body.name, **counts, **tally.notes)

    plan = StreamPlan(pieces, gate.streams.slot(user.id), gate.settings.gateway_stall_seconds, ended)
    return PieceStream(plan, "application/x-ndjson", _stream_headers(body))


def _check_top_k(body: CreateRequest, gate: Gateway) -> None:
    most = gate.settings.gateway_max_top_k
    if most and body.search_query.top_k > most:
        raise Problem(422, f"search_query.top_k: this gateway allows up to {most} (GATEWAY_MAX_TOP_K)")


def _stream_headers(body: CreateRequest) -> dict[str, str]:
    name = quote(body.name, safe="")
    return {
        "X-Dataset-Name": name,
        "X-Query-Text": quote(body.search_query.query_text[:100], safe=""),
        "Content-Disposition": disposition(f"{body.name}.jsonl"),
        "Cache-Control": "no-store",
    }


def disposition(filename: str) -> str:
    """A Content-Disposition whose name survives every client: plain ASCII, and the real one beside it."""
    plain = "".join(
        char if char.isascii() and (char.isalnum() or char in "._- ") else "_" for char in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


@router.post("", responses=refusals(400, 401, 403, 409, 413, 422, 429, 503))
async def create(
    body: CreateRequest,
    gate: Gate,
    user: Creator,
    idempotency_key: Annotated[
        str | None, Header(max_length=200, description="The same key and body again is the same dataset.")
    ] = None,
) -> DatasetAnswer:
    """Start a job that makes a dataset."""
    if not gate.settings.uds3_enabled:
        await gate.uds3.require()
    _check_top_k(body, gate)
    key = None if idempotency_key is None else f"{user.id}\n{idempotency_key}"
    spec = job_of(body, new_id(body.name, key), user.name)
    view = await gate.watch.submit(spec)
    gate.audit.record(user, "create", "200", dataset=spec.job_id)
    return await _answer(gate, view, f"Dataset created: {spec.job_id}")


async def _answer(gate: Gateway, view: JobView, message: str) -> DatasetAnswer:
    data = await _dataset(gate, view)
    return DatasetAnswer(
        success=True, dataset_id=data.dataset_id, status=data.status, message=message, data=data
    )


async def _dataset(gate: Gateway, view: JobView) -> Dataset:
    manifest = await gate.library.manifest(view)
    exports: dict[str, str] = {}
    if manifest is not None and gate.library.store is not None:
        exports["jsonl"] = f"{gate.library.store.uri}/{Layout.of(view.state.spec).root}data/"
    return dataset_of(view, manifest, exports)


@router.get("", responses=refusals(401, 403, 422, 429, 503))
async def listing(
    gate: Gate,
    _: Reader,
    status: Annotated[Status | None, Query(description="Only datasets of this status.")] = None,
    limit: Annotated[int | None, Query(ge=1, le=10_000, description="None is all.")] = None,
    offset: Annotated[int, Query(ge=0, le=1 << 53)] = 0,
    user_agent: Annotated[str, Header()] = "",
) -> DatasetList:
    """List the datasets, the oldest first."""
    views = [view for view in gate.watch.jobs() if status is None or status_of(view) == status]
    chosen = views[offset : None if limit is None else offset + limit]
    found = await asyncio.gather(*(_dataset(gate, view) for view in chosen))
    datasets: list[Dataset] | dict[str, Dataset] = list(found)
    if user_agent.startswith(_FRONTEND):
        datasets = {data.dataset_id: data for data in found}
    return DatasetList(datasets=datasets, total_count=len(views), limit=limit, offset=offset)


@router.get("/{dataset_id}", responses=refusals(401, 403, 404, 429, 503))
async def one(dataset_id: str, gate: Gate, _: Reader) -> DatasetAnswer:
    """Get one dataset."""
    view = gate.watch.job(dataset_id)
    answer = await _answer(gate, view, "Dataset details retrieved")
    manifest = await gate.library.manifest(view)
    if manifest is not None and gate.library.exports is not None and gate.library.store is not None:
        for info in await gate.library.exports.existing(view.state.spec):
            answer.data.export_paths[info.key.rpartition(".")[2]] = f"{gate.library.store.uri}/{info.key}"
    return answer


@router.post("/{dataset_id}/export", responses=refusals(400, 401, 403, 404, 413, 422, 429, 501, 503))
async def export(dataset_id: str, body: ExportRequest, gate: Gate, user: Exporter) -> ExportAnswer:
    """Make one file of a finished dataset; the second call for the same one finds it made."""
    view = gate.watch.job(dataset_id)
    spec = view.state.spec
    store = store_of(gate)
    manifest = await gate.library.manifest(view)
    if manifest is None or gate.library.exports is None:
        raise Problem(400, f"Dataset not ready (status: {status_of(view)})")
    key = await gate.library.exports.make(spec, manifest, body.format, metadata=body.include_metadata)
    file = "exports/" + key.removeprefix(Layout.of(spec).exports)
    gate.audit.record(user, "export", "200", dataset=dataset_id, file=file, rows=manifest["totals"]["rows"])
    return ExportAnswer(
        success=True,
        message=f"Dataset exported to {body.format}",
        export_path=f"{store.uri}/{key}",
        download_url=link_to(gate, dataset_id, file),
        expires_in=gate.settings.gateway_link_seconds,
    )


def link_to(gate: Gateway, dataset_id: str, file: str) -> str:
    """A link to a file that works without a token for a while."""
    expires = int(gate.clock.now().timestamp()) + gate.settings.gateway_link_seconds
    return gate.links.link(dataset_id, file, expires)


@router.delete("/{dataset_id}", responses=refusals(401, 403, 404, 422, 429, 503))
async def delete(
    dataset_id: str,
    gate: Gate,
    user: Creator,
    purge: Annotated[
        bool, Query(description="Remove the dataset and all that belongs to it, for ever.")
    ] = False,
) -> DatasetAnswer:
    """Cancel the job where it still runs. What landed is kept, unless `purge` is asked for."""
    view = gate.watch.job(dataset_id)
    if purge:
        _may_purge(gate, user, dataset_id)
        await gate.watch.request(dataset_id, "delete", user.name)
        message = "Removal of the dataset was requested"
    elif view.state.active:
        await gate.watch.request(dataset_id, "cancel", user.name)
        message = "Cancelling was requested; what landed is kept"
    else:
        message = "The job has ended already; what landed is kept, ?purge=true removes it"
    gate.audit.record(user, "purge" if purge else "cancel", "200", dataset=dataset_id)
    return await _answer(gate, view, message)


def _may_purge(gate: Gateway, user: User, dataset_id: str) -> None:
    if not user.may(Right.PURGE):
        gate.audit.record(user, "purge", "403", dataset=dataset_id)
        user.require(Right.PURGE)


@router.get("/{dataset_id}/status", responses=refusals(401, 403, 404, 429, 503))
async def status_of_job(dataset_id: str, gate: Gate, _: Reader) -> dict[str, Any]:
    """Get the job behind a dataset, as `shardline status --json` prints it."""
    return gate.watch.job(dataset_id).to_json()


@router.post("/{dataset_id}/cancel", responses=refusals(401, 403, 404, 409, 429, 503))
async def cancel(dataset_id: str, gate: Gate, user: Creator) -> DatasetAnswer:
    """Cancel the job. What landed is kept, and a retry goes on from there."""
    view = await act(gate, user, dataset_id, retry=False)
    return await _answer(gate, view, "Cancelling was requested; what landed is kept")


@router.post("/{dataset_id}/retry", responses=refusals(401, 403, 404, 409, 429, 503))
async def retry(dataset_id: str, gate: Gate, user: Creator) -> DatasetAnswer:
    """Start a new attempt of a failed or cancelled job; it continues what landed."""
    view = await act(gate, user, dataset_id, retry=True)
    return await _answer(gate, view, "A new attempt was requested")


async def act(gate: Gateway, user: User, dataset_id: str, *, retry: bool) -> JobView:
    """Cancel or retry a job. Raises Problem (409) when it is not in a state for that."""
    view = gate.watch.job(dataset_id)
    fits = view.state.state in (State.FAILED, State.CANCELLED) if retry else view.state.active
    action = "retry" if retry else "cancel"
    gate.audit.record(user, action, "200" if fits else "409", dataset=dataset_id)
    if not fits:
        wanted = "only a failed or cancelled job can be retried" if retry else "there is nothing to cancel"
        raise Problem(409, f"the job is {view.state.state.value}; {wanted}")
    await gate.watch.request(dataset_id, "retry" if retry else "cancel", user.name)
    return view
