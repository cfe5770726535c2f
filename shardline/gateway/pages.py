"""The HTML pages: the list of jobs, one job with sample rows, cancel and retry. Rendered on the server."""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.resources import files as package_files
from typing import Any
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader
from starlette.exceptions import HTTPException

from shardline.gateway.authorization import (
    COOKIE,
    CreateAccess,
    ReadAccess,
    authorize,
    bearer_token,
    cookie_user,
)
from shardline.gateway.context import Context, GatewayContext
from shardline.gateway.dataset_routes import request_cancel_or_retry
from shardline.gateway.health_routes import ROOT
from shardline.gateway.openapi import error_responses
from shardline.gateway.problems import Problem
from shardline.gateway.proxies import uses_https
from shardline.gateway.responses import Root
from shardline.gateway.users import Permission, User
from shardline.services.job_view import JobView
from shardline.services.units import format_duration
from shardline_common import __version__
from shardline_common.dataset.stage_events import Stage

router = APIRouter(tags=["pages"])
_MAX_JOBS = 200
_MAX_LINKS = 100
_SAMPLE_ROWS = 5
_SAMPLE_CHARS = 600
_MAX_FORM_BYTES = 20_000
# The parts of a name, each with the signs behind it: a narrow column breaks there, and not within a word.
_PARTS = re.compile(r"[^._:/-]*[._:/-]+|[^._:/-]+")
_MEDIA_TYPES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_static = {
    name: package_files("shardline.gateway").joinpath("static", name).read_bytes() for name in _MEDIA_TYPES
}
_templates = Environment(
    loader=PackageLoader("shardline.gateway"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def _cut(text: str) -> str:
    return text if len(text) <= _SAMPLE_CHARS else text[: _SAMPLE_CHARS - 1] + "…"


_FILTERS: Mapping[str, Callable[..., Any]] = {
    "duration": format_duration,
    "count": lambda number: f"{number:,}",
    "parts": _PARTS.findall,
}
_templates.filters |= _FILTERS


def wants_html(request: Request) -> bool:
    """Whether a request outside the API accepts HTML, as a browser's does."""
    api = request.url.path.startswith(("/api/", "/health", "/static/"))
    return not api and "text/html" in request.headers.get("accept", "")


def _page(
    template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    text = _templates.get_template(template).render(version=__version__, **values)
    return HTMLResponse(text, status, dict(headers or {}) | {"Cache-Control": "no-store"})


def error_page(error: HTTPException, request: Request) -> Response:
    """Render an error as a page; that of a 401 has the sign-in form."""
    # With WWW-Authenticate, a browser would show its own dialog instead of the form.
    headers = {name: value for name, value in (error.headers or {}).items() if name != "WWW-Authenticate"}
    title = HTTPStatus(error.status_code).phrase
    return _page(
        "error.html",
        error.status_code,
        headers,
        title=title,
        code=error.status_code,
        detail=error.detail,
        signed_in=_signed_in(request) and error.status_code != HTTPStatus.UNAUTHORIZED,
    )


def _signed_in(request: Request) -> bool:
    """Whether the cookie of the sign-in form is what authenticates the request."""
    return COOKIE in request.cookies and bearer_token(request) is None


def _job_fields(view: JobView, context: GatewayContext, user: User) -> dict[str, Any]:
    """Collect what the templates show of a job."""
    spec, state, progress = view.state.spec, view.state, view.progress
    rates = context.jobs.rates(spec.job_id)
    may_change = user.has(Permission.CREATE) and context.ownership.may_change(user, state)
    return {
        "id": spec.job_id,
        "name": spec.name,
        "query": spec.query.text,
        "state": state.state.value,
        "ratio": round(view.ratio, 4),
        "stage": view.phase if view.stage and state.active else "",
        "landed": state.active and view.stage in (Stage.LANDING, Stage.DECIDING),
        "read": state.source_count,
        "rows": progress.rows,
        "rejected": progress.rejected,
        "dead": progress.dead,
        # No documents pass while a dataset is decided and assembled.
        "rate": rates.documents if view.stage in (None, Stage.LANDING) else None,
        "left": rates.left,
        "attempt": state.attempt,
        "accepted_at": f"{state.accepted_at[:19].replace('T', ' ')} UTC" if state.accepted_at else "",
        "submitted_by": spec.submitted_by,
        "message": context.public(state.message or state.warning or state.waiting_slices or ""),
        "active": state.active,
        "may_change": may_change,
        "retriable": state.retriable,
    }


@router.get(
    "/",
    responses=error_responses(401, 403, 429, 503) | {200: {"content": {"text/html": {}}}},
    response_model=Root,
)
async def home(request: Request, context: Context) -> Response:
    """Get the endpoints of the gateway as JSON, or with `Accept: text/html` the page of jobs."""
    if not wants_html(request):
        return Response(ROOT.model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})
    user = await authorize(request, context, bearer_token(request), Permission.READ)
    views = context.jobs.jobs()[::-1]
    jobs = [_job_fields(view, context, user) for view in views[:_MAX_JOBS]]
    signed_in = _signed_in(request)
    return _page(
        "jobs.html", 200, {"Vary": "Accept"}, jobs=jobs, total=len(views), user=user, signed_in=signed_in
    )


@router.get("/jobs/{dataset_id}", include_in_schema=False)
async def job(dataset_id: str, request: Request, context: Context, user: ReadAccess) -> Response:
    """Show one job, with samples of the kept and the rejected documents."""
    view = context.jobs.job(dataset_id)
    spec, datasets = view.state.spec, context.datasets
    kept = await datasets.sample_rows(spec, "data/", _SAMPLE_ROWS)
    rejected = await datasets.sample_rows(spec, "rejected/", _SAMPLE_ROWS)
    manifest = await datasets.manifest(view)
    names = await datasets.file_names(spec, manifest) if manifest and user.has(Permission.EXPORT) else []
    context.audit_log.record(user, "view", "200", dataset=dataset_id)
    return _page(
        "job.html",
        job=_job_fields(view, context, user),
        manifest=manifest,
        kept_rows=[row | {"text": _cut(row["text"])} for row in kept],
        rejected_rows=rejected,
        links=[(name, context.download_link(dataset_id, name, user)) for name in names[:_MAX_LINKS]],
        user=user,
        signed_in=_signed_in(request),
    )


@router.post("/jobs/{dataset_id}/cancel", include_in_schema=False)
async def cancel(dataset_id: str, context: Context, user: CreateAccess) -> Response:
    """Cancel a job, for the button of the page."""
    await request_cancel_or_retry(context, user, dataset_id, retry=False)
    return RedirectResponse(f"/jobs/{quote(dataset_id)}", 303)


@router.post("/jobs/{dataset_id}/retry", include_in_schema=False)
async def retry(dataset_id: str, context: Context, user: CreateAccess) -> Response:
    """Retry a job, for the button of the page."""
    await request_cancel_or_retry(context, user, dataset_id, retry=True)
    return RedirectResponse(f"/jobs/{quote(dataset_id)}", 303)


@router.post("/sign-in", include_in_schema=False)
async def sign_in(request: Request, context: Context) -> Response:
    """Store the form's token in a cookie that scripts cannot read and other sites cannot send."""
    form = (await request.body())[:_MAX_FORM_BYTES].decode("utf-8", "replace")
    token = parse_qs(form).get("token", [""])[0].strip()
    user = await authorize(request, context, token or None, Permission.READ)
    response = RedirectResponse("/", 303)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=uses_https(request))
    context.audit_log.record(user, "sign_in", "303")
    return response


@router.post("/sign-out", include_in_schema=False)
async def sign_out(request: Request, context: Context) -> Response:
    """Remove the cookie of the sign-in form. The token itself stays valid until it expires."""
    user = await cookie_user(request, context)
    if user is not None:
        context.audit_log.record(user, "sign_out", "303")
    response = RedirectResponse("/", 303)
    # Browsers replace a cookie with `Secure` only by one that has it, too.
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=uses_https(request))
    return response


@router.get("/static/{name}", include_in_schema=False)
async def static(name: str) -> Response:
    """Get the style sheet, the script or the icon of the pages."""
    if name not in _static:
        raise Problem(404, "there is no such file")
    return Response(_static[name], media_type=_MEDIA_TYPES[name], headers={"Cache-Control": "max-age=300"})
