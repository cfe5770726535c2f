"""JSON Schemas as tables of Markdown."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]
LINE = 99
JOB_PARTS = {
    "JobSpec": "A job",
    "FilesSource": "source: files",
    "FieldMapping": "source.fields",
    "CsvOptions": "source.csv",
    "Uds3Source": "source: uds3",
    "ThemisSource": "source: themis",
    "Query": "query",
    "Range": "Range",
    "Quality": "quality",
    "FilterUse": "quality.filters",
    "Format": "format",
    "Dedup": "dedup",
    "Near": "dedup.near",
    "Sample": "sample",
    "Pii": "pii",
    "Output": "output",
    "SeededOrder": "output.order",
    "Shards": "output.shards",
    "Splits": "output.splits",
    "Request": "A request about a job",
}


def wrapped(text: str) -> str:
    """Break the paragraphs of a docstring into lines for a page; fenced blocks stay as they are."""
    parts = re.split(r"(^```.*?^```$)", text.strip(), flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _paragraphs(part) for part in parts)


def _paragraphs(text: str) -> str:
    # Join words that are separated by one blank or one line end. Items of a list begin a new line.
    return re.sub(r"\S+(?:[ \n](?!\n|- )\S+)*", lambda found: "\n".join(_filled(found[0])), text)


def _filled(paragraph: str) -> list[str]:
    return textwrap.wrap(paragraph, LINE, break_long_words=False, break_on_hyphens=False)


def schema_table(name: str, schemas: Mapping[str, Json]) -> str:
    """Return the fields of a message as a section of a page, with meanings where the schema has them."""
    schema = schemas[name]
    fields: Mapping[str, Json] = schema["properties"]
    described = any("description" in about for about in fields.values())
    lines = ["| field | type | required |" + described * " meaning |", "|---|---|---|" + described * "---|"]
    for field, about in fields.items():
        needed = "yes" if field in schema.get("required", ()) else ""
        meaning = described * f" {about.get('description', '')} |"
        lines.append(f"| `{field}` | {type_text(about, schemas)} | {needed} |{meaning}")
    return "\n".join([f"### {name}\n", wrapped(schema.get("description", "")) + "\n", *lines, ""])


def type_text(schema: Json, schemas: Mapping[str, Json]) -> str:
    """Return the type that a schema describes in a few words; `schemas` are those it may refer to."""
    found = dict.fromkeys(_types(schema, schemas))
    if "number" in found:
        found.pop("integer", None)
    # Null comes last.
    return " or ".join(sorted(found, key=lambda words: words == "null"))


def _types(schema: Json, schemas: Mapping[str, Json]) -> Iterator[str]:
    if options := schema.get("anyOf") or schema.get("oneOf"):
        for option in options:
            yield from _types(option, schemas)
        return
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    choices = schemas.get(name, schema)
    if "const" in choices or "enum" in choices:
        yield ", ".join(f"`{value}`" for value in choices.get("enum") or [choices["const"]])
    elif schema.get("type") == "array":
        yield f"list of {_of(schema.get('items', {}), schemas)}"
    elif isinstance(schema.get("additionalProperties"), dict):
        yield f"object of {_of(schema['additionalProperties'], schemas)}"
    else:
        yield JOB_PARTS.get(name, name) or str(schema.get("type", "any"))


def _of(schema: Json, schemas: Mapping[str, Json]) -> str:
    text = type_text(schema, schemas)
    return f"({text})" if " or " in text else text
