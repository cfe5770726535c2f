"""The gateway as an ASGI application."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from shardline.gateway import dataset_routes as datasets
from shardline.gateway import event_stream as events
from shardline.gateway import file_routes as files
from shardline.gateway import health_routes as root
from shardline.gateway import pages
from shardline.gateway.context import Gateway
from shardline.gateway.middleware import Frame, FramePolicy, request_id
from shardline.gateway.openapi import allowed, describe
from shardline.gateway.problems import MEDIA_TYPE, from_error, problem_body, problem_response
from shardline_common import __version__
from shardline_common.errors import ShardlineError

_EXPOSED = ["X-Request-ID", "X-Dataset-Name", "X-Query-Text", "Content-Disposition", "Retry-After"]


def bare_app() -> FastAPI:
    """The routes without what they work on: enough to describe them."""
    app = FastAPI(title="Shardline gateway", version=__version__, docs_url=None, redoc_url=None)
    for module in (root, datasets, files, events, pages):
        app.include_router(module.router)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ShardlineError, _failed)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    return app


def make_app(gateway: Gateway) -> ASGIApp:
    """The application that serves."""
    app = bare_app()
    app.state.gateway = gateway
    settings = gateway.settings
    origins = [origin.strip() for origin in settings.gateway_cors_origins.split(",") if origin.strip()]
    served: ASGIApp = app
    if origins:
        served = CORSMiddleware(
            served,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID"],
            expose_headers=_EXPOSED,
        )
    loopback = gateway.security.everyone is not None and gateway.security.loopback_only
    policy = FramePolicy(settings.gateway_body_bytes, frozenset(origins), loopback)
    return Frame(served, policy, gateway.metrics.requested)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (
        methods := allowed(request.app, request.url.path)
    ):
        # The router knows only the methods of the first route that fits.
        error.headers = {"Allow": methods}
    if pages.wants_page(request):
        return pages.refusal(request, error)
    return problem_response(error, request_id.get())


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, ShardlineError)  # noqa: S101 - likewise
    return await _refused(request, from_error(error))


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - likewise
    body = problem_body(422, _sentences(error.errors()), request_id.get())
    return Response(body, 422, media_type=MEDIA_TYPE)


def _sentences(errors: Sequence[Any]) -> list[dict[str, Any]]:
    # What was sent is left out: it may be long, or secret, or no Unicode.
    return [
        {
            "loc": [part if isinstance(part, int) else _printable(str(part)) for part in item["loc"]],
            "msg": _printable(item["msg"]),
            "type": item["type"],
        }
        for item in errors[:100]
    ]


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:500]
