"""How a source proved its own count: per store the certainty, and the documents that were left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shardline_common.runtime.paths import shown_path

MIXED_IDS = "mixed_ids"
"""The note of a plan that counts the ids of its sample that came both as a number and as text."""
SLICES = "slices"
"""The note of a plan with fewer slices than its job asks for, as a sentence."""
_MIXED = "ids of the first documents came both as a number and as text; each document is a row of its own"


class Level(StrEnum):
    """How certain it is that a list of documents is that of its store.

    PROVEN: what came was compared with what the store promised (size, digest, one snapshot with a proven end,
    or two lists that agree). COUNTED: only the numbers agree. UNPROVEN: the store cannot say.
    """

    PROVEN = "proven"
    COUNTED = "counted"
    UNPROVEN = "unproven"


_ORDER = tuple(Level)


@dataclass(frozen=True, slots=True)
class Certainty:
    """The level of a store. `how` is a sentence: how the count was proven, or why it could not be."""

    level: Level
    how: str


@dataclass(slots=True)
class Findings:
    """A collector: a source notes in it while it lists and reads.

    `stores` maps the name of a store to its weakest noted level, `deleted` to the number of documents that
    were left out because that store marks them deleted. `ignored` is {files, bytes, first}: how many bytes
    behind the end of the data of how many compressed files were not read, and the first of these files.
    """

    stores: dict[str, Certainty] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, Any] = field(default_factory=dict)

    def note(self, store: str, level: Level, how: str) -> None:
        """Note how the count of a store was proven. A level no weaker than the noted one is dropped."""
        noted = self.stores.get(store)
        if noted is None or _ORDER.index(level) > _ORDER.index(noted.level):
            self.stores[store] = Certainty(level, how)

    def leave_out(self, store: str, count: int) -> None:
        """Count documents that are left out because the store marks them deleted."""
        if count:
            self.deleted[store] = self.deleted.get(store, 0) + count

    def ignore(self, files: int, size: int, first: str) -> None:
        """Note the bytes behind the end of the data of compressed files."""
        if files:
            self.ignored = {"files": files, "bytes": size, "first": first}

    def to_json(self) -> dict[str, Any]:
        """The findings as plan pages, outcome and manifest hold them. What is empty is left out."""
        found: dict[str, Any] = {}
        if self.stores:
            found["completeness"] = {
                name: {"level": one.level.value, "how": one.how} for name, one in sorted(self.stores.items())
            }
        if self.deleted:
            found["deleted"] = dict(sorted(self.deleted.items()))
        if self.ignored:
            found["ignored"] = self.ignored
        return found

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Findings":
        """The findings of `to_json`. Other fields are ignored, so a manifest's `source` will do."""
        stores = {
            name: Certainty(Level(one["level"]), one["how"])
            for name, one in value.get("completeness", {}).items()
        }
        return cls(stores, dict(value.get("deleted", {})), dict(value.get("ignored", {})))


def merged_findings(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The findings of a source, as JSON, of which each range was read by itself.

    A store has its weakest level. Each range knows all documents that its store marks deleted, because the
    list of the documents is one; the bytes that were ignored are those of its own files.
    """
    merged = Findings()
    for part in map(Findings.of, parts):
        for store, one in part.stores.items():
            merged.note(store, one.level, one.how)
        for store, count in part.deleted.items():
            merged.deleted[store] = max(count, merged.deleted.get(store, 0))
        if part.ignored:
            known = merged.ignored or {"files": 0, "bytes": 0, "first": part.ignored["first"]}
            files = known["files"] + part.ignored["files"]
            merged.ignore(files, known["bytes"] + part.ignored["bytes"], known["first"])
    return merged.to_json()


def uncertain(source: Mapping[str, Any]) -> list[str]:
    """A sentence for each store of a `source` whose count is less than proven."""
    return [
        f"{name}: the count is {one.level.value}, not proven: {one.how}"
        if one.level is Level.COUNTED
        else f"{name}: the count is unproven: {one.how}"
        for name, one in Findings.of(source).stores.items()
        if one.level is not Level.PROVEN
    ]


def remarks(source: Mapping[str, Any]) -> list[str]:
    """What a user should know of a `source`.

    Files with another name than content, documents and bytes that were left out, ids that may be those of
    different documents, slices without documents, and counts less than proven.
    """
    found = Findings.of(source)
    left_out = [
        f"{count:,} documents were left out because {name} marks them deleted"
        for name, count in found.deleted.items()
    ]
    if found.ignored:
        names = shown_path(found.ignored["first"])
        if (more := found.ignored["files"] - 1) > 0:
            names += f" and {more:,} more {'files' if more > 1 else 'file'}"
        left_out.append(
            f"{found.ignored['bytes']:,} bytes behind the end of the compressed data of {names} were not read"
        )
    mixed = [f"{count:,} {_MIXED}"] if (count := source.get(MIXED_IDS, 0)) else []
    fewer = [source[SLICES]] if source.get(SLICES) else []
    return [*source.get("misnamed", ()), *left_out, *mixed, *fewer, *uncertain(source)]
