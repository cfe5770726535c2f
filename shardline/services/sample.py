"""A deterministic synthetic corpus: the same bytes on every machine and in every version."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import zstandard

from shardline_common.runtime.atomic_file import AtomicFile

_GERMAN = (
    "Die Behörde|Der Bauherr|Die Gemeinde|Ein Antragsteller|Der Eigentümer|Die Prüfstelle",
    "prüft|genehmigt|übermittelt|ändert|verlängert|begründet|veröffentlicht",
    "den Bebauungsplan|die Baugenehmigung|das Straßenverzeichnis|die Dachfläche|den Bescheid|die Übersicht",
    "unverzüglich|auf Antrag|nach § 34|innerhalb von drei Monaten|gemäß „Anlage 2“|für das Außengelände",
)
_ENGLISH = (
    "The authority|A developer|The council|An applicant|The owner|The inspector",
    "reviews|approves|submits|amends|extends|explains|publishes",
    "the zoning plan|the building permit|the road register|the roof area|the fee notice|the survey",
    'without delay|upon request|under section 34|within three months|as in "Annex 2"|for the outer grounds',
)
_DOMAINS = ("baurecht", "umweltrecht", "verwaltungsrecht", "verkehrsrecht")
_TYPES = ("gesetz", "verordnung", "bescheid", "leitfaden")


class Dice:
    """A pseudo-random generator from SHA-256: the corpus must not depend on a library."""

    def __init__(self, seed: str) -> None:
        self._state = sha256(seed.encode()).digest()

    def roll(self, sides: int) -> int:
        """Return a number from 0 to `sides` - 1."""
        self._state = sha256(self._state).digest()
        return int.from_bytes(self._state[:8], "big") % sides

    def pick(self, options: str) -> str:
        """Return one of the options, which are separated by `|`."""
        choices = options.split("|")
        return choices[self.roll(len(choices))]


def sample_document(number: int, seed: int = 1) -> dict[str, Any]:
    """Return document `number` of a corpus: some are long and well described, some short, some empty."""
    dice = Dice(f"{seed}/{number}")
    german = dice.roll(3) > 0
    document: dict[str, Any] = {
        "document_id": f"sample-{number:08d}",
        "content": _content(dice, _GERMAN if german else _ENGLISH),
        "language": "de" if german else "en",
        "created_at": f"{2015 + dice.roll(10)}-{1 + dice.roll(12):02d}-{1 + dice.roll(28):02d}",
        "pages": 1 + dice.roll(40),
    }
    if dice.roll(10) > 1:
        document["title"] = f"{dice.pick((_GERMAN if german else _ENGLISH)[2])} Nr. {number}"
    if dice.roll(3) > 0:
        document["domain"] = _DOMAINS[dice.roll(len(_DOMAINS))]
    if dice.roll(10) > 1:
        document["document_type"] = _TYPES[dice.roll(len(_TYPES))]
    if dice.roll(4) == 0:
        document["score"] = dice.roll(1000) / 1000
    if dice.roll(8) == 0:
        document["keywords"] = [_DOMAINS[dice.roll(len(_DOMAINS))], "satzung"]
    return document


def _content(dice: Dice, words: tuple[str, ...]) -> str:
    kind = dice.roll(40)
    if kind == 0:
        return " \n" if dice.roll(2) else ""
    # A long text repeats a block of sentences, so it takes no longer to make than a short one.
    sentences = [" ".join(dice.pick(part) for part in words) + "." for _ in range(1 + dice.roll(6))]
    text = "\n".join(sentences)
    times = 1 + (dice.roll(3) if kind < 12 else dice.roll(16))  # noqa: PLR2004 - a third is short
    text = "\n\n".join(f"({block + 1}) {text}" for block in range(times))
    return text + " \u2028 \u0085" if kind == 1 else text


INVALID_LINES: tuple[bytes, ...] = (
    b'{"document_id": "broken-json", "content": ',
    b'{"document_id": "broken-utf8", "content": "\xff\xfe"}',
    b'{"document_id": "nan", "content": "x", "score": NaN}',
    b'["not", "an", "object"]',
    b'{"content": "no id"}',
    b'{"document_id": {}, "content": "an object as id"}',
    b'{"document_id": "no-content"}',
    b'{"document_id": "number-content", "content": 5}',
    b'{"document_id": "lone-surrogate", "content": "\\ud800"}',
    b'{"document_id": "deep", "content": "x", "deep": ' + b"[" * 200 + b"]" * 200 + b"}",
)


def sample_lines(count: int, seed: int = 1, *, broken: bool = False) -> Iterator[bytes]:
    """Yield the lines of a corpus. `broken` adds a line of each kind that cannot be a document."""
    for number in range(count):
        yield orjson.dumps(sample_document(number, seed), option=orjson.OPT_APPEND_NEWLINE)
        if broken and number < len(INVALID_LINES):
            yield INVALID_LINES[number] + b"\n"
    if broken:
        for line in INVALID_LINES[count:]:
            yield line + b"\n"


def write_sample(path: Path, count: int, seed: int = 1, *, broken: bool = False) -> None:
    """Write a corpus to a file, compressed if its name ends in .gz or .zst. A failure leaves no file."""
    with AtomicFile(path) as raw, _encoded(raw, path.name) as out:
        for line in sample_lines(count, seed, broken=broken):
            out.write(line)


@contextmanager
def _encoded(raw: Any, name: str) -> Iterator[Any]:
    if name.endswith(".zst"):
        with zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False) as out:
            yield out
    elif name.endswith(".gz"):
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as out:
            yield out
    else:
        yield raw
