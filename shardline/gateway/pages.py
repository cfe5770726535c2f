"""The pages for people: jobs with their progress, one job with samples, cancel and retry. Server-rendered."""

from collections.abc import Mapping
from http import HTTPStatus
from importlib.resources import files as package_files
from typing import Any
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader
from starlette.exceptions import HTTPException

from shardline.gateway.context import COOKIE, Creator, Gate, Gateway, Reader, authorize, bearer_of
from shardline.gateway.dataset_routes import act, link_to
from shardline.gateway.health_routes import ROOT
from shardline.gateway.openapi import refusals
from shardline.gateway.problems import Problem
from shardline.gateway.responses import Root
from shardline.gateway.users import Right, User
from shardline.services.client import JobView
from shardline.services.units import format_duration
from shardline_common import __version__

router = APIRouter(tags=["pages"])
_MOST_JOBS = 200
_SAMPLE = 5
_SHOWN_CHARS = 600
_MOST_FORM = 20_000
_TYPES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_static = {name: package_files("shardline.gateway").joinpath("static", name).read_bytes() for name in _TYPES}
_templates = Environment(
    loader=PackageLoader("shardline.gateway"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_templates.filters |= {"duration": format_duration, "count": lambda number: f"{number:,}"}


def wants_page(request: Request) -> bool:
    """Whether a person's browser asks, for something that is not the API."""
    api = request.url.path.startswith(("/api/", "/health", "/static/"))
    return not api and "text/html" in request.headers.get("accept", "")


def _page(name: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> Response:
    text = _templates.get_template(name).render(version=__version__, **values)
    return HTMLResponse(text, status, dict(headers or {}) | {"Cache-Control": "no-store"})


def refusal(_: Request, error: HTTPException) -> Response:
    """A refusal as a page."""
    headers = {name: value for name, value in (error.headers or {}).items() if name != "WWW-Authenticate"}
    title = HTTPStatus(error.status_code).phrase
    return _page(
        "refusal.html", error.status_code, headers, title=title, code=error.status_code, detail=error.detail
    )


def job_facts(view: JobView, gate: Gateway, user: User) -> dict[str, Any]:
    """What a page shows of a job."""
    spec, state, progress = view.state.spec, view.state, view.progress
    rates = gate.watch.rates(spec.job_id)
    creator = user.may(Right.CREATE)
    return {
        "id": spec.job_id,
        "name": spec.name,
        "query": spec.query.text,
        "state": state.state.value,
        "ratio": round(view.ratio, 4),
        "read": state.source_count,
        "rows": progress.rows,
        "bytes": progress.bytes,
        "rejected": progress.rejected,
        "dead": progress.dead,
        "rate": rates.documents,
        "left": rates.left,
        "attempt": state.attempt,
        "accepted": state.accepted_at[:19].replace("T", " "),
        "by": spec.submitted_by,
        "message": state.message or state.warning,
        "active": state.active,
        "may_cancel": creator and state.active,
        "may_retry": creator and state.state.value in ("failed", "cancelled"),
    }


@router.get(
    "/", responses=refusals(401, 403, 429, 503) | {200: {"content": {"text/html": {}}}}, response_model=Root
)
async def home(request: Request, gate: Gate) -> Response:
    """Tell what is where; for `Accept: text/html` the page of jobs."""
    if not wants_page(request):
        return Response(ROOT.model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})
    user = await authorize(request, gate, bearer_of(request), Right.READ)
    views = gate.watch.jobs()[::-1]
    jobs = [job_facts(view, gate, user) for view in views[:_MOST_JOBS]]
    return _page("jobs.html", 200, {"Vary": "Accept"}, jobs=jobs, total=len(views), user=user)


@router.get("/jobs/{dataset_id}", include_in_schema=False)
async def job(dataset_id: str, gate: Gate, user: Reader) -> Response:
    """One job, with samples of what was kept and what was dropped."""
    view = gate.watch.job(dataset_id)
    spec = view.state.spec
    kept = await gate.library.sample(spec, "data/", _SAMPLE)
    dropped = await gate.library.sample(spec, "rejected/", _SAMPLE)
    manifest = await gate.library.manifest(view)
    names = await gate.library.files(spec, manifest) if manifest and user.may(Right.EXPORT) else []
    return _page(
        "job.html",
        job=job_facts(view, gate, user),
        spec=spec,
        manifest=manifest,
        kept=[row | {"text": row["text"][:_SHOWN_CHARS]} for row in kept],
        dropped=dropped,
        links=[(name, link_to(gate, dataset_id, name)) for name in names[:100]],
        user=user,
    )


@router.post("/jobs/{dataset_id}/cancel", include_in_schema=False)
async def cancel(dataset_id: str, gate: Gate, user: Creator) -> Response:
    """The button Cancel."""
    await act(gate, user, dataset_id, retry=False)
    return RedirectResponse(f"/jobs/{quote(dataset_id)}", 303)


@router.post("/jobs/{dataset_id}/retry", include_in_schema=False)
async def retry(dataset_id: str, gate: Gate, user: Creator) -> Response:
    """The button Retry."""
    await act(gate, user, dataset_id, retry=True)
    return RedirectResponse(f"/jobs/{quote(dataset_id)}", 303)


@router.post("/sign-in", include_in_schema=False)
async def sign_in(request: Request, gate: Gate) -> Response:
    """Take a token from the form into a cookie that scripts cannot read and other sites cannot send."""
    form = (await request.body())[:_MOST_FORM].decode("utf-8", "replace")
    token = parse_qs(form).get("token", [""])[0].strip()
    await authorize(request, gate, token or None, Right.READ)
    answer = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
    return answer


@router.get("/static/{name}", include_in_schema=False)
async def static(name: str) -> Response:
    """The pages' style and script."""
    if name not in _static:
        raise Problem(404, "there is no such file")
    return Response(_static[name], media_type=_TYPES[name], headers={"Cache-Control": "max-age=300"})
