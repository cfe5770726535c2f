"""The gateway as an ASGI application."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from shardline.gateway import dataset_routes, event_stream, file_routes, health_routes, pages
from shardline.gateway.context import GatewayContext
from shardline.gateway.invalid_requests import request_faults
from shardline.gateway.middleware import GatewayMiddleware, MiddlewarePolicy, request_id
from shardline.gateway.openapi import allowed_methods, build_openapi
from shardline.gateway.problems import MEDIA_TYPE, Problem, problem_body, problem_from_error, problem_response
from shardline_common import __version__
from shardline_common.errors import ShardlineError

_EXPOSED_HEADERS = ["X-Request-ID", "X-Dataset-Name", "X-Query-Text", "Content-Disposition", "Retry-After"]
_MAX_FIELD_ERRORS = 100
_log = logging.getLogger("shardline.gateway")


def bare_app() -> FastAPI:
    """Make the application without a context. It can be described by OpenAPI, but cannot serve requests."""
    app = FastAPI(title="Shardline gateway", version=__version__, docs_url=None, redoc_url=None)
    for module in (health_routes, dataset_routes, file_routes, event_stream, pages):
        app.include_router(module.router)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(ShardlineError, _on_shardline_error)
    app.openapi = lambda: build_openapi(app)  # type: ignore[method-assign]
    return app


def make_app(context: GatewayContext) -> ASGIApp:
    """Make the application that serves requests: the routes, CORS and the middleware."""
    app = bare_app()
    app.state.context = context
    settings = context.settings
    origins = [origin.strip() for origin in settings.gateway_cors_origins.split(",") if origin.strip()]
    served: ASGIApp = app
    if origins:
        served = _Cors(
            served,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID"],
            expose_headers=_EXPOSED_HEADERS,
        )
    loopback_only = context.security.debug_user is not None and context.security.loopback_only
    policy = MiddlewarePolicy(settings.gateway_body_bytes, frozenset(origins), loopback_only)
    return GatewayMiddleware(served, policy, context.metrics.requested)


class _Cors(CORSMiddleware):
    """Refuses a preflight request with problem details, as every other request."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < HTTPStatus.BAD_REQUEST:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        problem = Problem(response.status_code, bytes(response.body).decode(), headers=headers)
        return problem_response(problem, request_id.get())


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    unreadable = isinstance(error.__cause__, RecursionError | ValueError)
    if error.status_code == HTTPStatus.BAD_REQUEST and unreadable:
        # What FastAPI makes of JSON that Python cannot read: nested too deeply, or a number with too many
        # digits, or not UTF-8.
        error = Problem(422, "the body is not JSON in UTF-8, or nested too deeply, or has too large a number")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (
        methods := allowed_methods(request.app, request.url.path)
    ):
        # Starlette names only the methods of the first route whose path matches.
        error.headers = {"Allow": methods}
    if isinstance(error.detail, str):
        public = request.app.state.context.public(error.detail)
        if public != error.detail:
            # The operator needs what a user must not see.
            _log.info("refused: %s", error.detail)
            error = HTTPException(error.status_code, public, error.headers)
    if pages.wants_html(request):
        return pages.error_page(error, request)
    return problem_response(error, request_id.get())


async def _on_shardline_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ShardlineError)  # noqa: S101 - registered for this class
    return await _on_http_error(request, problem_from_error(error))


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    # The rejected input is left out: it may be long or secret, and may not be valid Unicode.
    details = [
        {
            "loc": [part if isinstance(part, int) else _printable(str(part)) for part in fault.path],
            "msg": _printable(fault.without_value),
            "type": fault.kind,
        }
        for fault in request_faults(request.scope.get("route"), error)[:_MAX_FIELD_ERRORS]
    ]
    return Response(problem_body(422, details, request_id.get()), 422, media_type=MEDIA_TYPE)


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:500]
