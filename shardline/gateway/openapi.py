"""The OpenAPI description of the gateway. Every error response is problem details."""

import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from shardline.gateway.problems import MEDIA_TYPE
from shardline.gateway.responses import ProblemDetails
from shardline_common import __version__

_DESCRIPTION = """Clara's dataset API on Shardline's jobs and sources.

Every response has the header `X-Request-ID`. The log and the audit log name the same id. Error responses are
problem details (RFC 9457); Clara's clients read their `detail`."""
_ERRORS = {
    400: "The body is not JSON, or the dataset is not ready.",
    401: "The request has no valid token.",
    403: "The roles of the user do not allow the action.",
    404: "There is no such dataset or file.",
    409: "The state of the job does not allow the action, or the id belongs to another job.",
    413: "The body is too large.",
    416: "The range lies behind the end of the file.",
    422: "A field is not valid; `detail` names it.",
    426: "HTTP/1.0 cannot carry a stream.",
    429: "Too many requests or streams; `Retry-After` is the number of seconds to wait.",
    501: "The format needs a library that is not installed on the gateway.",
    503: "Kafka, the store, UDS3 or Keycloak cannot be reached, or the feature is switched off.",
}


def error_responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the error responses of a route, for its `responses`."""
    return {code: {"description": _ERRORS[code]} for code in codes}


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description of the application; it is built at the first call."""
    if app.openapi_schema is None:
        found = get_openapi(
            title="Shardline gateway", version=__version__, description=_DESCRIPTION, routes=app.routes
        )
        schemas = found["components"]["schemas"]
        schemas["ProblemDetails"] = ProblemDetails.model_json_schema(
            ref_template="#/components/schemas/{model}"
        )
        # FastAPI describes its own error bodies, which the gateway never sends.
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        problem = {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
        for path in found["paths"].values():
            for operation in path.values():
                for code, response in operation["responses"].items():
                    if int(code) >= HTTPStatus.BAD_REQUEST:
                        response["content"] = {MEDIA_TYPE: problem}
        app.openapi_schema = found
    return app.openapi_schema


def allowed_methods(app: FastAPI, path: str) -> str:
    """Return the methods that a path accepts, as the value of the header Allow."""
    paths = app.openapi()["paths"]
    templates = [path] if path in paths else [template for template in paths if _matches(template, path)]
    return ", ".join(sorted({method.upper() for template in templates for method in paths[template]}))


def _matches(template: str, path: str) -> bool:
    pattern = re.escape(template).replace(r"\{file\}", ".*").replace(r"\{dataset_id\}", "[^/]+")
    return re.fullmatch(pattern, path) is not None
