"""docs/http-api.md: the calls of the gateway as a page for people, from its OpenAPI description."""

from collections.abc import Iterator

from tools.schema_pages import Json, schema_table, type_text, wrapped

# FastAPI's defaults for responses without a description.
_DEFAULTS = {"Successful Response": "Success.", "Validation Error": "A parameter is invalid."}


def http_page(openapi: Json) -> str:
    """Return each call with its parameters, body and responses; then the fields of bodies and responses."""
    calls = [
        _call(method.upper(), path, operation)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = openapi["components"]["schemas"]
    tables = [schema_table(name, schemas) for name, schema in schemas.items() if "properties" in schema]
    return "\n".join([*calls, "## Bodies and responses\n", *tables])


def _call(method: str, path: str, operation: Json) -> str:
    parts = [f"## `{method} {path}`\n", wrapped(operation["description"]) + "\n"]
    if parameters := operation.get("parameters"):
        rows = [
            f"| `{item['name']}` | {item['in']} | {type_text(item['schema'], {})} "
            f"| {item.get('description', '')} |"
            for item in parameters
        ]
        parts.append("| parameter | in | type | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    if body := operation.get("requestBody"):
        parts.append(f"Body: {', '.join(_content(body))}.\n")
    parts.append("| status | meaning | content |\n|---|---|---|\n" + "\n".join(_responses(operation)) + "\n")
    return "\n".join(parts)


def _responses(operation: Json) -> Iterator[str]:
    for status, response in operation["responses"].items():
        meaning = _DEFAULTS.get(response["description"], response["description"])
        content = "" if status >= "400" else ", ".join(_content(response))
        yield f"| {status} | {meaning} | {content} |"


def _content(body: Json) -> Iterator[str]:
    for kind, media in body.get("content", {}).items():
        name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
        yield f"`{kind}`: [{name}](#{name.lower()})" if name else f"`{kind}`"
