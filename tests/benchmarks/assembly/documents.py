"""Documents of 2 KB of random words: one in ten repeats a text, one in thirty is nearly another text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from shardline_common.job.hashing import order_key, order_partition
from shardline_common.job.messages import Facts, encode_document, encode_position
from shardline_common.ports.broker import Record

SEED = 7
"""The seed of the order."""
_WORDS, _OF_TEXT, _CHANGED = 20_000, 290, 8
_REPEATS, _NEARLY = 10, 30
_AT_ONCE = 1000


class Document(NamedTuple):
    """A document of the comparison."""

    id: str
    text: str


def documents(count: int) -> Iterator[list[Document]]:
    """So many documents, the same in each process, by a thousand."""
    import numpy as np

    random = np.random.default_rng(1)
    letters = np.array(list("abcdefghiklmnoprstuwz"))
    vocabulary = ["".join(random.choice(letters, size)) for size in random.integers(3, 10, _WORDS)]
    for start in range(0, count, _AT_ONCE):
        chosen = random.integers(0, _WORDS, (min(_AT_ONCE, count - start), _OF_TEXT))
        texts: list[str] = []
        for place, numbers in enumerate(chosen):
            number, other = start + place, place // 2
            if number % _REPEATS == _REPEATS - 1:
                texts.append(texts[other])
                continue
            if number % _NEARLY == _NEARLY - 2:
                numbers[_CHANGED:] = chosen[other, _CHANGED:]
            texts.append(" ".join([vocabulary[one] for one in numbers]))
        yield [Document(f"document-{start + place:09d}", text) for place, text in enumerate(texts)]


def write_documents(path: Path, count: int) -> None:
    """The documents as JSON lines."""
    with path.open("wb") as file:
        for part in documents(count):
            lines = [orjson.dumps({"id": one.id, "text": one.text}) + b"\n" for one in part]
            file.write(b"".join(lines))


class Topic:
    """The messages of the documents, as a producer sends them to so many partitions."""

    def __init__(self, partitions: int) -> None:
        self._next = [0] * partitions
        self._sent = 0

    def send(self, part: Sequence[Document]) -> list[list[Record]]:
        """The messages of these documents, by partition."""
        partitions = len(self._next)
        found: list[list[Record]] = [[] for _ in range(partitions)]
        for one in part:
            self._sent += 1
            key = one.id.encode()
            number = order_partition(order_key(SEED, key), partitions)
            sequence, self._next[number] = self._next[number], self._next[number] + 1
            head = b'{"text":' + orjson.dumps(one.text) + b',"quality_score":'
            title = b'"metadata":{"title":"Satzung","domain":"baurecht"}'
            tail = b',"document_id":"%s","source":"files",%s}\n' % (key, title)
            facts = Facts(len(one.text), _OF_TEXT, 3, False, 0.5)
            position = encode_position((0, self._sent, self._sent))
            value = encode_document(sequence, position, facts, head, tail)
            found[number].append(Record(number, sequence, key, value))
        return found
