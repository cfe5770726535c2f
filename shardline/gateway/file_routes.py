"""The routes of a dataset's files: whole or by range, with a token or a signed link."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, Field

from shardline.gateway.byte_ranges import Unsatisfiable, parse_range
from shardline.gateway.chunked_response import PieceStream, StreamPlan
from shardline.gateway.context import Exporter, Gate, Gateway, authorize, bearer_of, store_of
from shardline.gateway.dataset_routes import disposition, link_to
from shardline.gateway.export_formats import MEDIA
from shardline.gateway.openapi import refusals
from shardline.gateway.problems import Problem
from shardline.gateway.users import Right, User
from shardline_common.ports.store import ObjectInfo, ObjectStore

router = APIRouter(prefix="/api/datasets/{dataset_id}/files", tags=["files"])


class File(BaseModel):
    """A file of a dataset."""

    file: str
    download_url: str = Field(description="Works without a token for a while.")


class FileList(BaseModel):
    """The files of a finished dataset."""

    dataset_id: str
    expires_in: int = Field(description="Seconds that the links work.")
    files: list[File]


@router.get("", responses=refusals(400, 401, 403, 404, 429, 503))
async def files(dataset_id: str, gate: Gate, _: Exporter) -> FileList:
    """List the files of a finished dataset: shards, manifest, card and exports."""
    names = await _names(gate, dataset_id)
    found = [File(file=name, download_url=link_to(gate, dataset_id, name)) for name in names]
    return FileList(dataset_id=dataset_id, expires_in=gate.settings.gateway_link_seconds, files=found)


async def _names(gate: Gateway, dataset_id: str) -> list[str]:
    view = gate.watch.job(dataset_id)
    store_of(gate)
    manifest = await gate.library.manifest(view)
    if manifest is None:
        raise Problem(400, f"Dataset not ready (status: {view.state.state.value})")
    return await gate.library.files(view.state.spec, manifest)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a signed link carries."""

    expires: Annotated[int | None, Query(ge=0, le=1 << 53, description="Of a signed link.")] = None
    signature: Annotated[str | None, Query(max_length=200, description="Of a signed link.")] = None


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a file is wanted, and of which version of it."""

    wanted: Annotated[str | None, Header(alias="Range", max_length=200)] = None
    unless: Annotated[str | None, Header(alias="If-Range", max_length=200)] = None


_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", "content": {"application/octet-stream": {}}},
    206: {"description": "The range that was asked for.", "content": {"application/octet-stream": {}}},
}


@router.get(
    "/{file:path}",
    response_class=PieceStream,
    responses=_FILE | refusals(400, 401, 403, 404, 416, 422, 429, 503),
)
async def download(
    dataset_id: str,
    file: str,
    gate: Gate,
    request: Request,
    mark: Annotated[Mark, Depends()],
    part: Annotated[Part, Depends()],
) -> PieceStream:
    """Download a file that the list names, whole or one range of it."""
    user = await _let_in(request, gate, dataset_id, file, mark)
    if file not in await _names(gate, dataset_id):
        raise Problem(404, "the dataset has no such file")
    key = gate.library.key(gate.watch.job(dataset_id).state.spec, file)
    info = await gate.library.info(key)
    tag = f'"{info.etag.strip(chr(34))}"'
    chosen = _range(part.wanted if part.unless in (None, tag) else None, info.size)
    start, end = chosen or (0, info.size)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Content-Length": str(end - start),
        "Content-Disposition": disposition(file.rpartition("/")[2]),
        "Cache-Control": "private, no-cache",
    }
    if chosen is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.size}"
    gate.audit.record(user, "download", "206" if chosen else "200", dataset=dataset_id, file=file)
    plan = StreamPlan(
        lambda: _bytes(store_of(gate), info, start, end), nullcontext(), gate.settings.gateway_stall_seconds
    )
    media = MEDIA.get(file.rpartition(".")[2], "application/octet-stream")
    return PieceStream(plan, media, headers, 206 if chosen else 200)


async def _let_in(request: Request, gate: Gateway, dataset_id: str, file: str, mark: Mark) -> User | None:
    if mark.expires is not None and mark.signature is not None:
        now = gate.clock.now().timestamp()
        if not gate.links.holds(dataset_id, file, mark.expires, mark.signature, now):
            raise Problem(403, "the link is not valid, or too old; ask for a new one")
        return None
    return await authorize(request, gate, bearer_of(request), Right.EXPORT)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    try:
        return parse_range(header, size)
    except Unsatisfiable:
        raise Problem(
            416, "the range is not in the file", headers={"Content-Range": f"bytes */{size}"}
        ) from None


async def _bytes(store: ObjectStore, info: ObjectInfo, start: int, end: int) -> AsyncGenerator[bytes, None]:
    left = end - start
    if not left:
        return
    async with aclosing(store.stream(info.key, offset=start)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return
