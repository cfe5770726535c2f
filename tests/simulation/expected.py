"""What a job must make of its documents, recomputed by brute force and without Shardline's own functions."""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b, sha256
from itertools import accumulate
from typing import Any

from shardline_common.job.spec import JobSpec
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem

_LENGTHS = ((1000, 0.4), (500, 0.3), (200, 0.2))
_FACTS = ("title", "domain", "document_type")
_ORIGINAL = 65_536
_SCAN_FACTOR = 4


@dataclass(slots=True)
class Entry:
    """One message of a partition. It has a row, a rejection or a dead letter.

    `order` is its key in the global order of an assembled dataset; 0 in any other.
    """

    key: bytes
    position: list[Any]
    scanned: int = 0
    row: bytes = b""
    words: int = 0
    quality: int = 0
    reason: str = ""
    rejected: bytes = b""
    dead: dict[str, Any] = field(default_factory=dict)
    order: int = 0


@dataclass(slots=True)
class Segment:
    """The messages [first, next) of a partition.

    `originals`: how many bytes of originals its object of dead letters keeps; -1: none.
    """

    split: str
    partition: int
    first: int
    entries: list[Entry]
    originals: int

    @property
    def next(self) -> int:
        """The sequence behind the last message."""
        return self.first + len(self.entries)

    @property
    def rows(self) -> bytes:
        """The shard, uncompressed; of an assembled dataset the staged rows."""
        return b"".join(entry.row for entry in sorted(self.entries, key=_place))

    @property
    def rejected(self) -> bytes:
        """The rejected documents, uncompressed."""
        return b"".join(entry.rejected for entry in self.entries)

    @property
    def dead_letters(self) -> bytes:
        """The object of dead letters, uncompressed. Behind the first original without room none is kept."""
        lines, room = [], self.originals
        for sequence, entry in enumerate(self.entries, self.first):
            if not entry.dead:
                continue
            size = len(base64.b64decode(entry.dead["original_base64"]))
            fits = size <= room
            room = room - size if fits else min(room, 0)
            line = {"sequence": sequence, "position": entry.position} | entry.dead
            lines.append(_json(line if fits else line | {"original_base64": None}) + b"\n")
        return b"".join(lines)

    def facts(self) -> dict[str, Any]:
        """What its chain record says about it."""
        entries = self.entries
        return {
            "split": self.split,
            "partition": self.partition,
            "first": self.first,
            "next": self.next,
            "sha256": sha256(self.rows).hexdigest(),
            "rows": sum(bool(entry.row) for entry in entries),
            "bytes": len(self.rows),
            "rejected": Counter(entry.reason for entry in entries if entry.reason),
            "dead": Counter(entry.dead["reason"] for entry in entries if entry.dead),
            "hash_sum": sum(hash64(entry.key, b"document") for entry in entries) % 2**64,
            "words": sum(entry.words for entry in entries),
            "quality": sum(entry.quality for entry in entries),
            "scanned_bytes": sum(entry.scanned for entry in entries),
            "position": entries[-1].position,
        }


def _place(entry: Entry) -> tuple[int, int]:
    """The place of a record among those of its partition, whose positions rise."""
    return entry.order, entry.position[-1]


@dataclass
class Expected:
    """The segments of each partition, in order."""

    partitions: list[list[Segment]]

    @cached_property
    def segments(self) -> list[Segment]:
        """All segments."""
        return [segment for part in self.partitions for segment in part]

    @cached_property
    def dead_letters(self) -> dict[tuple[int, int], dict[str, Any]]:
        """The dead letters by partition and sequence."""
        return {
            (segment.partition, segment.first + index): entry.dead | {"position": entry.position}
            for segment in self.segments
            for index, entry in enumerate(segment.entries)
            if entry.dead
        }

    @cached_property
    def scanned(self) -> list[list[int]]:
        """Of each partition, the scanned bytes before each sequence."""
        return [
            list(accumulate((entry.scanned for segment in part for entry in segment.entries), initial=0))
            for part in self.partitions
        ]

    @cached_property
    def digest(self) -> str:
        """The dataset digest."""
        digest = sha256()
        for segment in self.segments:
            facts = segment.facts()
            counts = [sorted(facts[name].items()) for name in ("rejected", "dead")]
            names = ("split", "partition", "first", "next", "rows", "sha256")
            digest.update(_json([*(facts[name] for name in names), *counts]) + b"\n")
        return digest.hexdigest()


def expect(spec: JobSpec, items: Sequence[SourceItem], max_records: int) -> Expected:
    """The dataset of a job that reads `items`; a segment closes at `max_records` at the latest."""
    documents = [item.content for item in items if isinstance(item.content, Document)]
    columns, total = _columns(documents), _slice_partitions(spec)
    parts: list[list[Entry]] = [[] for _ in range(spec.slices * total)]
    for number, piece in enumerate(_ranges(items, spec.slices)):
        for item in piece:
            parts[number * total + partition_of(spec, item.content)].append(_entry(spec, item, columns))
    return Expected([_segments(spec, number, part, max_records) for number, part in enumerate(parts)])


def _ranges(items: Sequence[SourceItem], slices: int) -> list[Sequence[SourceItem]]:
    """The items of each slice, in ranges of the same size. With one range positions are those of items."""
    count = max(1, min(slices, len(items)))
    if count == 1:
        return [items]
    bounds = [len(items) * number // count for number in range(count + 1)]
    return [
        [
            replace(item, position=(number, *item.position[:-1], item.position[-1] - bounds[number]))
            for item in items[bounds[number] : bounds[number + 1]]
        ]
        for number in range(count)
    ]


def partition_of(spec: JobSpec, content: Document | InvalidDocument) -> int:
    """The partition of a document: those of the validation split follow those of train."""
    output, count = spec.output, spec.partitions
    key = (content.id if isinstance(content, Document) else content.key).encode()
    if spec.assembled:
        seeded = output.order != "source"
        return order_of(spec, key) * count >> 64 if seeded else hash64(key, b"partition") % count
    value = content.metadata.get(output.group_by or "") if isinstance(content, Document) else None
    group = key if value is None else str(value).encode()
    if hash64(group, b"split") < output.validation_fraction * 2**64:
        return count + hash64(key, b"partition") % max(1, round(count * output.validation_fraction))
    return hash64(key, b"partition") % count


def order_of(spec: JobSpec, key: bytes) -> int:
    """The key of a document in the global order of an assembled dataset; 0 in that of the source."""
    order = spec.output.order
    if not spec.assembled or order == "source":
        return 0
    seed = order.seed if order is not None else 0
    return hash64(seed.to_bytes(8, "big") + key, b"order")


def _slice_partitions(spec: JobSpec) -> int:
    """Train partitions of a slice, and those of validation, which an assembled dataset does not have."""
    share = 0 if spec.assembled else spec.output.validation_fraction
    return spec.partitions + (max(1, round(spec.partitions * share)) if share else 0)


def _segments(spec: JobSpec, partition: int, entries: list[Entry], max_records: int) -> list[Segment]:
    found: list[Segment] = []
    total = _slice_partitions(spec)
    split, size = "train" if partition % total < spec.partitions else "validation", spec.output.shard_bytes
    originals = size if spec.dead_letter_originals else -1
    start = rows = scanned = 0
    for number, entry in enumerate(entries, 1):
        rows, scanned = rows + len(entry.row), scanned + entry.scanned
        reached = rows >= size or scanned >= _SCAN_FACTOR * size or number - start >= max_records
        if reached or number == len(entries):
            found.append(Segment(split, partition, start, entries[start:number], originals))
            start, rows, scanned = number, 0, 0
    return found


def _entry(spec: JobSpec, item: SourceItem, columns: dict[str, str]) -> Entry:
    entry = _unordered_entry(spec, item, columns)
    entry.order = order_of(spec, entry.key)
    return entry


def _unordered_entry(spec: JobSpec, item: SourceItem, columns: dict[str, str]) -> Entry:
    content, position = item.content, list(item.position)
    if isinstance(content, InvalidDocument):
        letter = content.dead_letter
        dead = _dead(letter.reason, letter.sha256, letter.size, letter.original)
        return Entry(content.key.encode(), position, len(letter.original), dead=dead)
    key, text, metadata = content.id.encode(), content.text, content.metadata
    relevance = round(content.relevance, 4) + 0.0
    head = _json({"text": text, "metadata": _metadata(metadata, columns), "source": "files"})[:-1]
    head += b',"quality_score":'
    tail = b"," + _json({"document_id": content.id, "relevance_score": relevance})[1:] + b"\n"
    size = len(head + tail)
    if size > spec.max_document_bytes:
        row = head + tail
        dead = _dead("too_large", sha256(row).hexdigest(), size, row[:_ORIGINAL])
        return Entry(key, position, min(size, _ORIGINAL), dead=dead)
    length = next((points for limit, points in _LENGTHS if len(text) > limit), 0.1)
    present = sum(metadata.get(name) not in (None, "") for name in _FACTS)
    score = round(min(1.0, length + 0.3 * (present / len(_FACTS)) + 0.3 * content.relevance), 4)
    if not text.strip() or score < spec.quality.min_score:
        reason = "below_min_score" if text.strip() else "empty"
        line = {
            "document_id": content.id,
            "reason": reason,
            "scores": {"quality": score, "relevance": relevance},
        }
        kept = _json(line) + b"\n" if spec.quality.keep_rejected else b""
        return Entry(key, position, size, reason=reason, rejected=kept)
    row = head + _json(score) + tail
    return Entry(key, position, size, row, len(text.split()), round(score * 10_000))


def _dead(reason: str, digest: str, size: int, original: bytes) -> dict[str, Any]:
    kept = base64.b64encode(original).decode()
    return {"reason": reason, "sha256": digest, "size": size, "original_base64": kept}


def _columns(documents: list[Document]) -> dict[str, str]:
    kinds: dict[str, set[str]] = {}
    for document in documents:
        for name, value in document.metadata.items():
            kinds.setdefault(name, set()).add(type(value).__name__)
    columns = {}
    for name, found in kinds.items():
        scalar = found & {"str", "int", "float"}
        if scalar == {"int", "float"}:
            columns[name] = "float"
        elif scalar or found == {"NoneType"}:
            columns[name] = next(iter(scalar)) if len(scalar) == 1 else "str"
    return columns


def _metadata(metadata: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(columns)
    extra = {}
    for name, value in metadata.items():
        kind = type(value).__name__
        if columns.get(name) == "float" and kind == "int":
            row[name] = float(value)
        elif name in columns and kind in ("NoneType", columns[name]):
            row[name] = value
        else:
            extra[name] = value
    return row | {"extra": _text(extra) if extra else None}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _json(value: Any) -> bytes:
    text = _text(value)
    for char in ("\u0085", "\u2028", "\u2029"):
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def hash64(data: bytes, person: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8, person=person).digest(), "big")
