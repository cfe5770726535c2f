"""The routes of a dataset's files: download whole or by range, with a token or a signed link."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request

from shardline.gateway.authorization import ExportAccess, authorize, bearer_token
from shardline.gateway.chunked_response import ChunkedResponse, StreamSpec
from shardline.gateway.context import Context, GatewayContext
from shardline.gateway.export_formats import MEDIA_TYPES
from shardline.gateway.http_headers import RangeNotSatisfiable, content_disposition, parse_range
from shardline.gateway.middleware import KNOWN_USER
from shardline.gateway.openapi import error_responses
from shardline.gateway.problems import Problem
from shardline.gateway.rate_limits import client_address
from shardline.gateway.responses import File, FileList
from shardline.gateway.users import Permission
from shardline_common.ports.store import ObjectInfo, ObjectStore

router = APIRouter(prefix="/api/datasets/{dataset_id}/files", tags=["files"])
_MAX_ID_CHARS = 300


@router.get("", responses=error_responses(400, 401, 403, 404, 429, 503))
async def files(dataset_id: str, context: Context, user: ExportAccess) -> FileList:
    """List the files of a completed dataset: shards, manifest, card and exports."""
    names = await _file_names(context, dataset_id)
    found = [File(file=name, download_url=context.download_link(dataset_id, name, user)) for name in names]
    context.audit_log.record(user, "list_files", "200", dataset=dataset_id, files=len(found))
    return FileList(dataset_id=dataset_id, expires_in=context.settings.gateway_link_seconds, files=found)


async def _file_names(context: GatewayContext, dataset_id: str) -> list[str]:
    view = context.jobs.job(dataset_id)
    context.require_store()
    manifest = await context.datasets.manifest(view)
    if manifest is None:
        raise Problem(400, f"Dataset not ready (status: {view.state.state.value})")
    return await context.datasets.file_names(view.state.spec, manifest)


@dataclass(frozen=True, slots=True)
class LinkParameters:
    """The query parameters of a signed link."""

    expires: Annotated[int | None, Query(ge=0, le=1 << 53, description="Part of a signed link.")] = None
    user: Annotated[str | None, Query(max_length=300, description="Part of a signed link.")] = None
    signature: Annotated[str | None, Query(max_length=200, description="Part of a signed link.")] = None


@dataclass(frozen=True, slots=True)
class RangeHeaders:
    """The headers of a request for a part of a file. The range applies only to the version `if_range`."""

    range: Annotated[str | None, Header(alias="Range", max_length=200)] = None
    if_range: Annotated[str | None, Header(alias="If-Range", max_length=200)] = None


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", "content": {"application/octet-stream": {}}},
    206: {"description": "The requested range.", "content": {"application/octet-stream": {}}},
}


@router.get(
    "/{file:path}",
    response_class=ChunkedResponse,
    responses=_RESPONSES | error_responses(400, 401, 403, 404, 416, 422, 429, 503),
)
async def download(
    dataset_id: str,
    file: str,
    context: Context,
    request: Request,
    link: Annotated[LinkParameters, Depends()],
    part: Annotated[RangeHeaders, Depends()],
) -> ChunkedResponse:
    """Download a file of the list, whole or one range of it."""
    # 1. A valid link needs no token. It names the user to whom it was given.
    user, by = None, "link"
    if link.expires is None or link.signature is None:
        user, by = await authorize(request, context, bearer_token(request), Permission.EXPORT), "token"
        caller = user.id
    else:
        now = context.clock.now().timestamp()
        holder = link.user or ""
        if not context.link_signer.verify(dataset_id, file, link.expires, link.signature, now, holder):
            # Before the audit log: without a limit, a stranger could fill it.
            context.limits.refusals.take(client_address(request.scope))
            context.audit_log.record(None, "download", "403", dataset=dataset_id[:_MAX_ID_CHARS], by="link")
            raise Problem(403, "the link is not valid or has expired; request a new one")
        # Not the user's own limit: everyone who has the link may use it.
        caller = f"link of {holder}"
        request.scope[KNOWN_USER] = holder
        context.limits.requests.take(caller)
    # 2. Only listed files can be downloaded, not everything below the dataset's root.
    if file not in await _file_names(context, dataset_id):
        raise Problem(404, "the dataset has no such file")
    key = context.datasets.object_key(context.jobs.job(dataset_id).state.spec, file)
    info = await context.datasets.object_info(key)
    # 3. If-Range with another version than the stored one means: send the whole file.
    etag = f'"{info.etag.strip(chr(34))}"'
    try:
        chosen = parse_range(part.range if part.if_range in (None, etag) else None, info.size)
    except RangeNotSatisfiable:
        headers = {"Content-Range": f"bytes */{info.size}"}
        raise Problem(416, "the range is not in the file", headers=headers) from None
    start, end = chosen or (0, info.size)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Length": str(end - start),
        "Content-Disposition": content_disposition(file.rpartition("/")[2]),
        "Cache-Control": "private, no-cache",
    }
    if chosen is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.size}"
    # 4. Send the bytes.
    status = 200 if chosen is None else 206
    given_to = {} if user is not None else {"user_id": link.user}

    @contextmanager
    def slot() -> Iterator[None]:
        # Another download may take the last slot after this request was checked.
        with context.limits.downloads.slot(caller):
            context.audit_log.record(
                user, "download", str(status), dataset=dataset_id, file=file, by=by, **given_to
            )
            yield

    stream = StreamSpec(
        lambda: _read(context.require_store(), info, start, end),
        slot(),
        context.settings.gateway_stall_seconds,
    )
    media_type = MEDIA_TYPES.get(file.rpartition(".")[2], "application/octet-stream")
    return ChunkedResponse(stream, media_type, headers, status)


async def _read(store: ObjectStore, info: ObjectInfo, start: int, end: int) -> AsyncGenerator[bytes, None]:
    left = end - start
    if not left:
        return
    async with aclosing(store.stream(info.key, offset=start)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return
