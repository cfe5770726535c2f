"""How the bytes of a file become documents: found when the job is planned, and kept in its plan."""

import codecs
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.runtime.paths import shown_path

Compression = Literal["none", "gzip", "zstd", "xz", "bzip2"]
Records = Literal["jsonl", "json", "csv", "text", "parquet", "arrow", "arrow_stream"]
TABLES: frozenset[Records] = frozenset({"parquet", "arrow", "arrow_stream"})
"""Forms that need random access. They have no text: compression and encoding are their own."""
UTF_8 = "utf-8"


@dataclass(frozen=True, slots=True)
class FileFormat:
    """The compression of a file, the encoding of its text, and the form of its records.

    `encoding` is the name of a Python codec. `options` belong to the form, and are JSON: those of CSV are its
    dialect and its header.
    """

    compression: Compression = "none"
    encoding: str = UTF_8
    records: Records = "jsonl"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the bytes of the file are those of its text, so that a read can begin inside of it."""
        return self.compression == "none" and self.encoding == UTF_8 and self.records not in TABLES

    def to_json(self) -> dict[str, Any]:
        """The format as the plan keeps it."""
        return {
            "compression": self.compression,
            "encoding": self.encoding,
            "records": self.records,
            **({"options": dict(self.options)} if self.options else {}),
        }


def by_name(path: str) -> FileFormat:
    """The format that the name of a file says. Plans of version 0.1 have no other."""
    compression: Compression = "none"
    if path.endswith(".gz"):
        compression = "gzip"
    elif path.endswith(".zst"):
        compression = "zstd"
    return FileFormat(compression)


def with_format(file: dict[str, Any], found: FileFormat) -> dict[str, Any]:
    """A planned file with its format, which is left out when the name says it."""
    return file if found == by_name(file["path"]) else {**file, "format": found.to_json()}


def format_of(file: Mapping[str, Any]) -> FileFormat:
    """The format of a planned file.

    Raises:
        JobFailed: this version does not know the format (`source_invalid`).
    """
    stored = file.get("format")
    if stored is None:
        return by_name(file["path"])
    with suppress(TypeError, LookupError, ValueError):
        found = FileFormat(**stored)
        codecs.lookup(found.encoding)
        if found.compression in get_args(Compression) and found.records in get_args(Records):
            return found
    raise JobFailed(
        FailureCode.SOURCE_INVALID,
        f"{shown_path(file['path'])} was planned by another version of Shardline, as {stored}",
        hint="update this process, or submit a new job",
    )
