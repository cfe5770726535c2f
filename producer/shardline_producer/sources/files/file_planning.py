"""Which files a job reads, and how: found when the job is planned."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from posixpath import basename
from typing import Any

from shardline_common.job.field_mapping import LINE
from shardline_common.job.spec import FilesSource
from shardline_common.runtime.paths import shown_path
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.threads import run_in_thread
from shardline_common.runtime.waits import log_wait
from shardline_producer.sources.files.decompress import named_compression
from shardline_producer.sources.files.file_errors import source_invalid
from shardline_producer.sources.files.file_format import format_of, with_format
from shardline_producer.sources.files.file_locations import FileLocation
from shardline_producer.sources.files.formats import HEAD_BYTES, detect
from shardline_producer.sources.files.line_names import line_names
from shardline_producer.sources.files.path_schemes import plain_path
from shardline_producer.sources.source import Frozen

_SHOWN_NAMES = 20
# Each holds up to 256 KiB, and as much again that was decompressed.
_HEADS_AT_ONCE = 16
_SMALL = 1 << 12
_log = logging.getLogger(__name__)
Locate = Callable[[str], FileLocation]


async def plan_files(source: FilesSource, locate: Locate) -> list[dict[str, Any]]:
    """The files in the order of the job's paths, those of a pattern by name, each once, with its format.

    A file with several names has the first of them; the others are in `also`. `locate` says which location
    holds a path.

    Raises:
        JobFailed: a path matches no file, or a file cannot be read (`source_invalid`).
        SourceUnavailable: a later try may succeed.
    """
    files: dict[str, dict[str, Any]] = {}
    patterns: dict[str, str] = {}
    for pattern in map(plain_path, source.paths):
        location = locate(pattern)
        found = await location.find(pattern)
        if not found:
            raise source_invalid(f"no file matches '{shown_path(pattern)}'", location.not_found_hint)
        for file in found:
            identity = [file["path"], *file.pop("identity", ())]
            known = next((files[name] for name in identity if name in files), file)
            files |= dict.fromkeys(identity, known)
            patterns.setdefault(known["path"], pattern)
            # A pattern or a folder may well have what another path names.
            named = len(found) == 1 and basename(pattern) == basename(file["path"])
            name = pattern if named else file["path"]
            if known is not file and name not in (known["path"], *known.get("also", ())):
                known.setdefault("also", []).append(name)
    unique = list({id(file): file for file in files.values()}.values())
    for sentence in _same_files(unique):
        _log.warning("%s: it is read once", sentence)
    done = 0

    async def planned(file: dict[str, Any], name: str) -> dict[str, Any]:
        nonlocal done
        found = await _with_format(file, name, source, locate(file["path"]))
        done += 1
        return found

    calls = [partial(planned, file, name) for file, name in zip(unique, line_names(patterns), strict=True)]
    with log_wait("the first bytes of each file", lambda: f"{done:,} of {len(unique):,} files"):
        return await gather_limited(calls, _HEADS_AT_ONCE)


async def _with_format(
    file: dict[str, Any], name: str, source: FilesSource, location: FileLocation
) -> dict[str, Any]:
    head = await location.head(file, HEAD_BYTES)
    look = partial(detect, file["path"], head, source)
    # Of a small file, this takes less time than the change to a thread.
    found = look() if len(head) < _SMALL else await run_in_thread(look)
    if source.fields.id == LINE:
        file["name"] = name
    if found.records == "text":
        found = replace(found, options={"id": name})
    return with_format(file, found)


def plan_notes(frozen: Frozen) -> dict[str, Any]:
    """Sentences about the files for the notes of the plan."""
    notes = {"same_files": _same_files(frozen), "misnamed": _misnamed(frozen)}
    return {name: sentences for name, sentences in notes.items() if sentences}


def _same_files(frozen: Frozen) -> list[str]:
    """A sentence for each further name of a file."""
    return _shown(
        [
            f"{shown_path(name)} is {shown_path(file['path'])}"
            for file in frozen
            for name in file.get("also", ())
        ],
        "{:,} more names are those of other files",
    )


def _misnamed(frozen: Frozen) -> list[str]:
    """A sentence for each file that is compressed otherwise than its name says."""
    sentences = []
    for file in frozen:
        found, named = format_of(file).compression, named_compression(file["path"])
        if found != named:
            how = "is not compressed" if found == "none" else f"is compressed by {found}"
            sentences.append(f"{shown_path(file['path'])} {how}, other than its name says")
    return _shown(sentences, "{:,} more files are compressed otherwise than their names say")


def _shown(sentences: list[str], rest: str) -> list[str]:
    """The first sentences, and one for what is more than a person reads."""
    more = len(sentences) - _SHOWN_NAMES
    return sentences[:_SHOWN_NAMES] + ([rest.format(more)] if more > 0 else [])
