"""Schemas as tables for people."""

from collections.abc import Mapping
from typing import Any

import orjson

Json = dict[str, Any]
_JOB_PARTS = {
    "JobSpec": "A job",
    "FilesSource": "source: files",
    "Uds3Source": "source: uds3",
    "ThemisSource": "source: themis",
    "Query": "query",
    "Range": "A range in query.filters",
    "Quality": "quality",
    "Format": "format",
    "Output": "output",
    "Request": "A request about a job",
}
_LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "minItems": "items at least",
    "maxItems": "items at most",
    "pattern": "matches",
}


def job_page(schemas: Mapping[str, Json]) -> str:
    """The fields of a job message, part by part."""
    return "\n".join(_job_part(title, schemas[name]) for name, title in _JOB_PARTS.items())


def _job_part(title: str, schema: Json) -> str:
    rows = [
        f"| `{field}` | {type_text(about)} | {_limits(about)} | {_default(field, about, schema)} |"
        for field, about in schema["properties"].items()
    ]
    head = f"## {title}\n\n{schema['description'].strip()}\n\n"
    return head + "| field | type | limits | default |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _limits(schema: Json) -> str:
    options = [schema, *schema.get("anyOf", ())]
    return ", ".join(
        f"{words} {option[name]}" for option in options for name, words in _LIMITS.items() if name in option
    ).replace("|", "\\|")


def _default(field: str, schema: Json, parent: Json) -> str:
    if field in parent.get("required", ()):
        return "required"
    return f"`{orjson.dumps(schema['default']).decode()}`" if "default" in schema else "its own defaults"


def schema_table(name: str, schema: Json) -> str:
    """The fields of a message as a section of a page."""
    rows = [
        f"| `{field}` | {type_text(about)} | {needed} | {about.get('description', '')} |"
        for field, about in schema["properties"].items()
        for needed in ["yes" if field in schema.get("required", ()) else ""]
    ]
    head = f"### {name}\n\n{schema['description'].strip()}\n\n"
    head += "| field | type | required | meaning |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def type_text(schema: Json) -> str:
    """The type that a schema describes, in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(type_text(option) for option in options))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum") or [schema["const"]])
    if schema.get("type") == "array":
        return f"list of {type_text(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_text(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))
