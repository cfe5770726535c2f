"""The OpenAPI description: refusals are problem details everywhere."""

import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from shardline.gateway.problems import MEDIA_TYPE
from shardline.gateway.responses import ProblemDetails
from shardline_common import __version__

_DESCRIPTION = """Clara's dataset API on Shardline's jobs and sources.

Every answer carries `X-Request-ID`; the log and the audit log name it. Refusals are problem details
(RFC 9457) whose `detail` is what Clara's clients read."""
_SAYINGS = {
    400: "The body is no JSON, or the dataset is not ready.",
    401: "No valid token.",
    403: "The roles do not allow it.",
    404: "There is no such dataset or file.",
    409: "The job is not in a state for that, or the id belongs to another one.",
    413: "The body is too large.",
    416: "The range lies behind the end of the file.",
    422: "A field does not fit; `detail` names it.",
    426: "HTTP/1.0 cannot carry a stream.",
    429: "Too many requests or streams; `Retry-After` tells how long to wait.",
    501: "The format needs a library that the gateway lacks.",
    503: "Kafka, the store, UDS3 or Keycloak cannot be reached, or the feature is off.",
}


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its `responses`."""
    return {code: {"description": _SAYINGS[code]} for code in codes}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description of the app."""
    if app.openapi_schema is None:
        found = get_openapi(
            title="Shardline gateway", version=__version__, description=_DESCRIPTION, routes=app.routes
        )
        _mend(found)
        app.openapi_schema = found
    return app.openapi_schema


def allowed(app: FastAPI, path: str) -> str:
    """The methods that a path takes, for the header Allow."""
    paths = app.openapi()["paths"]
    fitting = [path] if path in paths else [template for template in paths if _fits(template, path)]
    return ", ".join(sorted({name.upper() for template in fitting for name in paths[template]}))


def _fits(template: str, path: str) -> bool:
    pattern = re.escape(template).replace(r"\{file\}", ".*").replace(r"\{dataset_id\}", "[^/]+")
    return re.fullmatch(pattern, path) is not None


def _mend(found: dict[str, Any]) -> None:
    schemas = found["components"]["schemas"]
    schemas["ProblemDetails"] = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path in found["paths"].values():
        for operation in path.values():
            for code, answer in operation["responses"].items():
                if int(code) >= HTTPStatus.BAD_REQUEST:
                    answer["content"] = {
                        MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
                    }
