"""Reading CouchDB's documents by their ids, each of which must be answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from shardline_common.errors import JobFailed
from shardline_producer.sources.exact_json import is_unicode
from shardline_producer.sources.http_store import HttpStore

NOT_FOUND = 404
_MAX_DIGITS = 30
# The stub of an attachment says then whether CouchDB keeps it compressed.
_WITH_DOCUMENTS = {"include_docs": "true", "att_encoding_info": "true"}


@dataclass(frozen=True, slots=True)
class CouchRow:
    """The answer to one id that the database has, or had.

    `removed`: the document was deleted; CouchDB keeps its tombstone. `document` is None then, and if only the
    revision was asked for.
    """

    revision: str
    removed: bool
    document: Mapping[str, Any] | None


def database_path(database: str) -> str:
    """The path of a database."""
    return "/" + quote(database, safe="")


async def read_rows(
    http: HttpStore, database: str, couch_ids: Sequence[str], *, documents: bool = True
) -> dict[str, CouchRow] | None:
    """The rows of the ids that the database has or had; None if there is no such database.

    Raises:
        SourceUnavailable: rows are missing, hold an error, or lack their document, also when asked again.
        ResponseTooLarge: the response is over the limit.
    """
    response = await http.post(
        f"{database_path(database)}/_all_docs",
        {"keys": list(couch_ids)},
        _WITH_DOCUMENTS if documents else None,
        check=partial(_fault_of_rows, couch_ids, documents),
    )
    if response.status == NOT_FOUND:
        return None
    rows = (await http.fields(response, "read documents", rows=list))["rows"]
    return {key: _row(row) for key, row in zip(couch_ids, rows, strict=True) if not _is_missing(row)}


def _row(row: Mapping[str, Any]) -> CouchRow:
    value, document = row.get("value") or {}, row.get("doc") or None
    removed = value.get("deleted") is True or (document is not None and document.get("_deleted") is True)
    return CouchRow(str(value.get("rev", "")), removed, None if removed else document)


def _is_missing(row: Mapping[str, Any]) -> bool:
    return row.get("error") == "not_found"


def _fault_of_rows(couch_ids: Sequence[str], documents: bool, found: Any) -> str | None:
    """The fault of a response without one whole row for each id, in their order."""
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        # `HttpStore.fields` names it.
        return None
    keys = [row.get("key", row.get("id")) if isinstance(row, dict) else None for row in rows]
    if keys != list(couch_ids):
        return (
            f"it answered {len(rows)} rows to the keys of {len(couch_ids)} documents, or rows of other keys"
        )
    return next((fault for row in rows if (fault := fault_of_row(row, documents=documents))), None)


def fault_of_row(row: Mapping[str, Any], *, documents: bool) -> str | None:
    """Why a row of `_all_docs` is not whole; None when it is. A missing document is a whole answer."""
    key, value = row.get("key", row.get("id")), row.get("value")
    if row.get("error"):
        return None if _is_missing(row) else f"the row of '{key}' is the error {row['error']}"
    if not isinstance(value, Mapping | None) or (not documents and not value):
        return f"the row of '{key}' has no revision"
    if value and not is_text(value.get("rev", "")):
        return f"the row of '{key}' has no revision"
    if not documents or (value and value.get("deleted") is True):
        return None
    return _fault_of_document(str(key), row.get("doc"))


def _fault_of_document(key: str, document: object) -> str | None:
    if not isinstance(document, Mapping) or document.get("_id") != key:
        return f"the row of '{key}' has no document"
    stubs = document.get("_attachments")
    if stubs is not None and not (isinstance(stubs, Mapping) and all(map(_is_object, stubs.values()))):
        return f"the document '{key}' has attachments of another form"
    return None


def is_text(value: object) -> bool:
    """Whether a value of JSON is a text that a request or a file can hold."""
    return isinstance(value, str) and is_unicode(value)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def no_database(http: HttpStore, database: str) -> JobFailed:
    """The error of a configured database that does not exist."""
    return http.invalid(
        f"there is no database '{database}'", "set COUCH_DATABASE; Shardline never creates one"
    )


def identity_of(database: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a database from another one under its name, from its description.

    `made` is the time at which it was made, in versions of CouchDB that keep it. `changes` counts all
    changes: it never becomes less.
    """
    made, changes = database.get("instance_start_time"), database.get("update_seq")
    number = str(changes).partition("-")[0]
    return {
        "made": str(made) if made not in (None, "", "0", 0) else None,
        "changes": int(number) if number.isdecimal() and len(number) <= _MAX_DIGITS else None,
        "documents": database["doc_count"],
    }


def why_other(planned: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Why a database is not the planned one, or is empty now; None if it is the planned one."""
    if planned.get("documents") and not found["documents"]:
        return "the database is empty"
    if planned.get("made") and found["made"] and planned["made"] != found["made"]:
        return "the database was made anew"
    if planned.get("changes") and found["changes"] is not None and found["changes"] < planned["changes"]:
        return f"the database has had {found['changes']} changes, and had had {planned['changes']}"
    return None
