"""What is wrong with a request that does not fit its route, in the sentences of a job's faults."""

from dataclasses import replace

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from shardline_common.job.expected import place_of_field
from shardline_common.job.field_faults import Fault, faults_of, plain_sentence

_NOT_JSON = "json_invalid"


def request_faults(route: object, error: RequestValidationError) -> list[Fault]:
    """The faults of a request, in the order of its errors. A path begins with `body`, `query` or `path`."""
    errors: list[ErrorDetails] = list(error.errors())
    body = [item.copy() for item in errors if item["loc"][:1] == ("body",)]
    for item in body:
        item["loc"] = item["loc"][1:]
    model = _body_model(route)
    found = []
    if any(item["type"] == _NOT_JSON for item in body):
        found.append(Fault(("body",), _NOT_JSON, "the body is not JSON"))
    elif body and model is not None and any(item["loc"] for item in body):
        found += [
            Fault(("body", *fault.path), fault.kind, fault.sentence, fault.got, fault.near)
            for fault in faults_of(body, model, error.body)
        ]
    elif body:
        found.append(Fault(("body",), body[0]["type"], "expected a JSON object, sent as application/json"))
    for item in errors:
        if item["loc"][:1] != ("body",):
            found.append(Fault(tuple(item["loc"]), item["type"], _parameter_sentence(route, item)))
    return found


def _body_model(route: object) -> type[BaseModel] | None:
    field = route.body_field if isinstance(route, APIRoute) else None
    annotation = field.field_info.annotation if field is not None else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _parameter_sentence(route: object, item: ErrorDetails) -> str:
    if isinstance(route, APIRoute) and item["type"] not in ("missing", "value_error"):
        needed = route.dependant
        for field in (*needed.query_params, *needed.path_params, *needed.header_params):
            if field.alias in item["loc"][1:]:
                # No text of a URL is null.
                place = replace(place_of_field(field.field_info), nullable=False)
                return f"expected {place.text}"
    return plain_sentence(item)
