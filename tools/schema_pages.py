"""Schemas as tables for people."""

from collections.abc import Mapping
from typing import Any

import orjson

Json = dict[str, Any]
JOB_PARTS = {
    "JobSpec": "A job",
    "FilesSource": "source: files",
    "Uds3Source": "source: uds3",
    "ThemisSource": "source: themis",
    "Query": "query",
    "Range": "Range",
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
    return "\n".join(_job_part(title, schemas[name], schemas) for name, title in JOB_PARTS.items())


def _job_part(title: str, schema: Json, schemas: Mapping[str, Json]) -> str:
    rows = [
        f"| `{field}` | {type_text(about, schemas)} | {_limits(about)} | {_default(field, about, schema)} |"
        for field, about in schema["properties"].items()
    ]
    head = f"## {title}\n\n{schema['description'].strip()}\n\n"
    return head + "| field | type | limits | default |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _limits(schema: Json) -> str:
    options = [schema, *schema.get("anyOf", ())]
    return ", ".join(
        f"{words} `{option[name]}`" for option in options for name, words in _LIMITS.items() if name in option
    ).replace("|", "\\|")


def _default(field: str, schema: Json, parent: Json) -> str:
    if field in parent.get("required", ()):
        return "required"
    return f"`{orjson.dumps(schema['default']).decode()}`" if "default" in schema else "its own defaults"


def schema_table(name: str, schemas: Mapping[str, Json]) -> str:
    """The fields of a message as a section of a page; what they mean, where the schema tells."""
    schema = schemas[name]
    fields: Mapping[str, Json] = schema["properties"]
    told = any("description" in about for about in fields.values())
    lines = ["| field | type | required |" + told * " meaning |", "|---|---|---|" + told * "---|"]
    for field, about in fields.items():
        needed = "yes" if field in schema.get("required", ()) else ""
        meaning = told * f" {about.get('description', '')} |"
        lines.append(f"| `{field}` | {type_text(about, schemas)} | {needed} |{meaning}")
    return "\n".join([f"### {name}\n", schema.get("description", "").strip() + "\n", *lines, ""])


def type_text(schema: Json, schemas: Mapping[str, Json]) -> str:
    """The type that a schema describes, in a word or two; `schemas` are those it may refer to."""
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(type_text(option, schemas) for option in options))
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    choices = schemas.get(name, schema)
    if "const" in choices or "enum" in choices:
        return ", ".join(f"`{value}`" for value in choices.get("enum") or [choices["const"]])
    if schema.get("type") == "array":
        return f"list of {type_text(schema.get('items', {}), schemas)}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_text(schema['additionalProperties'], schemas)}"
    return JOB_PARTS.get(name, name) or str(schema.get("type", "any"))
