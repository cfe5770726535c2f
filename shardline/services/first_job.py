"""A first job for documents that are there: their fields are found, and the job file explains itself."""

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from shardline.services.preview import Preview, preview
from shardline.services.units import format_counts
from shardline.services.wiring.sources import source_factory
from shardline.services.wiring.stores import open_source_s3
from shardline_common.errors import FailureCode, JobFailed, UsageError
from shardline_common.job.spec import FieldMapping, FilesSource, JobSpec, parse_job, slugify
from shardline_common.memory.store import MemoryStore
from shardline_common.settings.load import Settings
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.field_proposals import fields_of, propose
from shardline_producer.sources.files.file_errors import OtherEncoding
from shardline_producer.sources.source import OpenSource

_DOCUMENTS = 1000
_SECONDS = 20.0
_RECORDS = 500
_LINE = 80
_OTHER_FILE = "name another file with --job"


@dataclass(frozen=True, slots=True)
class FirstJob:
    """A job, and what is known about its documents. `found`: what a preview found; None without a look."""

    spec: JobSpec
    found: Preview | None = None


async def files_job(paths: Sequence[str], name: str | None, settings: Settings) -> FirstJob:
    """A job over files. The fields of id and text are looked for in the first documents.

    Raises:
        JobFailed: the files cannot be read, or no field looks like the text of a document.
    """
    source: dict[str, Any] = {"type": "files", "paths": list(paths)}
    body = {"name": name or _name_of(paths[0]), "source": source}
    spec = _parsed(body)
    async with open_source_s3(settings, spec) as remote:
        open_source = source_factory(settings, Path(), confined=False, remote=remote)
        try:
            try:
                found = await _look(spec, open_source)
            except OtherEncoding as error:
                source["encoding"] = error.encoding
                spec = _parsed(body)
                found = await _look(spec, open_source)
        except JobFailed as error:
            fields = await _proposed_fields(spec, open_source) if error.code is FailureCode.ALL_DEAD else None
            if fields is None:
                raise
            source["fields"] = fields
            spec = _parsed(body)
            found = await _look(spec, open_source)
        sample = found.sample
        if sample.documents and all(one.dead for one in sample.documents):
            reasons = format_counts(sample.reasons(dead=True))
            raise JobFailed(
                FailureCode.ALL_DEAD,
                f"none of the first {len(sample.documents):,} documents can be read: {reasons}",
                hint="docs/sources.md names the formats that are read",
            )
        if sample.documents and not sample.rows and "below_min_score" in sample.reasons(dead=False):
            # A first run shall have rows.
            spec = _parsed(body | {"quality": {"min_score": 0.0}})
            found = await _look(spec, open_source)
    return FirstJob(spec, found)


def store_job(kind: str, query: str | None, name: str | None) -> FirstJob:
    """A job over a store whose address is a setting. It is not looked at.

    Raises:
        UsageError: there is no such store, or it cannot search.
    """
    body: dict[str, Any] = {"name": name or slugify(query or "documents"), "source": {"type": kind}}
    if query:
        body["query"] = {"text": query, "top_k": 5000}
    return FirstJob(_parsed(body))


def render(job: FirstJob, path: str) -> str:
    """The job file: JSON with comments, which `shardline run` reads. `path` is its own name."""
    spec, found = job.spec, job.found
    path = _in_comment(shlex.quote(path))
    lines = [
        "// A job of Shardline: which documents are read, which are kept, and how they are stored.",
        f"// `shardline preview {path}` shows what it would do, `shardline run {path}` does it.",
        "// `shardline job` explains every field that a job can have.",
        "{",
        "  // The name of the dataset. Its folder is this name in lower case.",
        f'  "name": {_json(spec.name)},',
        "",
        *_source_lines(spec, found),
        "",
        *_query_lines(spec),
        "",
        f"  // Documents with a quality score below min_score, from 0 to 1, are left out.{_kept(found)}",
        f'  "quality": {{"min_score": {_json(spec.quality.min_score)}}},',
        "",
        "  // validation_fraction: 0.05 puts one document of 20 into a validation split.",
        "  // compression: none, gzip or zstd.",
        '  "output": {"validation_fraction": 0.0, "compression": "none"}',
        "}",
    ]
    return "\n".join(lines) + "\n"


def _source_lines(spec: JobSpec, found: Preview | None) -> list[str]:
    source = spec.source
    if not isinstance(source, FilesSource):
        where = {"uds3": "POSTGRES_HOST and the other settings of UDS3", "themis": "THEMIS_URL"}[source.type]
        return [
            f"  // Where the documents are. The settings say where the store is: {where};",
            "  // `shardline doctor` checks them.",
            f'  "source": {_json(source.model_dump(mode="json", exclude_defaults=True))},',
        ]
    count = "" if found is None or found.documents is None else f": about {found.documents:,} documents"
    if found is not None and found.sample.complete:
        count = f": {len(found.sample.documents):,} documents"
    mapped = source.fields != FieldMapping()
    return [
        f"  // The files that are read{count}. Patterns such as in/*.jsonl and s3:// work too.",
        '  "source": {',
        '    "type": "files",',
        *_encoding_lines(source),
        *(_mapped_lines(source.fields) if mapped else _USUAL_FIELDS),
        *_metadata_lines(found),
        f'    "paths": {_json(source.paths)}',
        "  },",
    ]


def _encoding_lines(source: FilesSource) -> list[str]:
    if source.encoding is None:
        return []
    return [
        "    // The likeliest encoding of files that are not UTF-8: look at the texts with preview.",
        f'    "encoding": {_json(source.encoding)},',
    ]


_USUAL_FIELDS = (
    "    // Id and text are the fields document_id and content, or the name and the whole of a text file.",
    "    // For other names, take away the slashes of the next line:",
    '    // "fields": {"id": "uid", "text": "/body/text"},',
)


def _mapped_lines(fields: FieldMapping) -> list[str]:
    return [
        "    // The fields that are the id and the text of a document; all others are metadata.",
        f'    "fields": {{"id": {_json(fields.id)}, "text": {_json(fields.text)}}},',
    ]


def _metadata_lines(found: Preview | None) -> list[str]:
    if found is None:
        return []
    columns = list(found.columns)
    others = [name for name in found.sample.fields if name not in columns and name not in found.renamed]
    lines = [f"    // Its metadata: {_listed(columns)}"] if columns else []
    if others:
        # Their values would seem to be lost: a preview shows columns only.
        lines += [
            f"    // In metadata.extra, as JSON: {_listed(others)}",
            '    // "flatten": ["/field/inner"] makes a column of a field inside of another.',
        ]
    return lines


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(map(_in_comment, names))
    return text if len(text) <= _LINE else f"{text[:_LINE].rsplit(', ', 1)[0]}, …"


def _query_lines(spec: JobSpec) -> list[str]:
    query: dict[str, Any] = {"top_k": spec.query.top_k, "filters": {}}
    if spec.query.text is not None:
        query = {"text": spec.query.text, **query}
    return [
        "  // top_k: the most documents to read; null reads all.",
        '  // filters: a value, a list or a range of a field, as "year": {"gte": 2020}.',
        f'  "query": {_json(query)},',
    ]


def _kept(found: Preview | None) -> str:
    if found is None or not found.sample.documents:
        return ""
    share = len(found.sample.rows) / len(found.sample.documents)
    return f"\n  // Of the first {len(found.sample.documents):,} documents {share:.0%} are kept."


async def _look(spec: JobSpec, open_source: OpenSource) -> Preview:
    return await preview(spec, open_source, documents=_DOCUMENTS, seconds=_SECONDS)


async def _proposed_fields(spec: JobSpec, open_source: OpenSource) -> dict[str, str] | None:
    """The fields of the likeliest mapping, from the documents that lack those of the job."""
    source = open_source(spec, StoredPlanPages(MemoryStore(), ""))
    frozen = await source.freeze()
    records = list[Mapping[str, Any]]()
    async with aclosing(source.sample(frozen)) as batches:
        async for batch in batches:
            records += fields_of(item.content for item in batch)
            if len(records) >= _RECORDS:
                break
    if not records or not isinstance(spec.source, FilesSource):
        return None
    return propose(spec.source.fields, records)


def _parsed(body: dict[str, Any]) -> JobSpec:
    try:
        return parse_job(orjson.dumps(body), default_id=True)
    except TypeError:
        # A name on the disk may be any bytes.
        hint = "name the files by a pattern, such as folder/*.jsonl, and the dataset with --name"
        raise UsageError("a name that is not UTF-8 cannot stand in a job", hint=hint) from None


def _name_of(path: str) -> str:
    """The name of a dataset for a path: its last part without suffixes, or the folder of a pattern."""
    parts = [part for part in path.split("/") if part and not set(part) & set("*?[")]
    last = parts[-1] if parts else "documents"
    stem = last.split(".")[0] if last.strip(".") else Path(path).resolve().name
    return stem or "documents"


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet.

    Raises:
        UsageError: it exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise already_there(path) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint=_OTHER_FILE) from None


def already_there(path: Path) -> UsageError:
    """The error for a job file that exists."""
    return UsageError(f"{path} exists, and is not overwritten", hint=_OTHER_FILE)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _in_comment(text: str) -> str:
    # A line break in the name of a field would end the comment.
    return text if text.isprintable() else repr(text)[1:-1]
