"""A script that drops exact duplicates, shuffles, splits and cuts equal shards, with everything in memory."""

import random
import time
from hashlib import blake2b
from pathlib import Path

import orjson

from tests.benchmarks.assembly.documents import SEED

_SHARD_BYTES = 64 << 20
_VALIDATION = 0.05


def by_script(path: Path, folder: Path) -> float:
    """Make shards of the documents of a JSONL file. Returns the CPU-seconds."""
    started = time.process_time()
    seen: set[bytes] = set()
    rows: list[bytes] = []
    with path.open("rb") as lines:
        for line in lines:
            document = orjson.loads(line)
            key = blake2b(" ".join(document["text"].split()).encode(), digest_size=16).digest()
            if key in seen:
                continue
            seen.add(key)
            row = {"text": document["text"], "document_id": document["id"], "source": "files"}
            rows.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    random.Random(SEED).shuffle(rows)
    held = int(len(rows) * _VALIDATION)
    for split, part in (("validation", rows[:held]), ("train", rows[held:])):
        count = -(-sum(map(len, part)) // _SHARD_BYTES)
        for number in range(count):
            shard = part[number * len(part) // count : (number + 1) * len(part) // count]
            (folder / f"{split}-{number:05d}.jsonl").write_bytes(b"".join(shard))
    return time.process_time() - started
