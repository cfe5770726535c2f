"""The documents of large tests: the shared corpus where it exists, else a sample."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

from shardline.services.sample import write_sample

SHARED = Path(__file__).parent.parent.parent / "shared" / "corpus" / "laws.jsonl.zst"
SAMPLE_DOCUMENTS = 50_880


@dataclass
class Expectation:
    """The expected rows and rejections of a corpus, computed without Shardline's code."""

    documents: int = 0
    rows: dict[str, tuple[str, float]] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)


def corpus_file(folder: Path) -> Path:
    """The corpus as laws.jsonl.zst in `folder`."""
    path = folder / "laws.jsonl.zst"
    if SHARED.exists():
        shutil.copy(SHARED, path)
    else:
        write_sample(path, SAMPLE_DOCUMENTS)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """All documents of a .zst file."""
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as plain:
        return [json.loads(line) for line in plain.read().split(b"\n") if line]


@cache
def expectation(path: Path, min_score: float = 0.5) -> Expectation:
    """Clara's scoring rule, written again."""
    found = Expectation()
    for document in lines(path):
        found.documents += 1
        text = document["content"]
        score = 0.4 if len(text) > 1000 else 0.3 if len(text) > 500 else 0.2 if len(text) > 200 else 0.1
        score += 0.3 * sum(bool(document.get(name)) for name in ("title", "domain", "document_type")) / 3
        score = round(min(1.0, score + 0.3 * document.get("score", 0.0)), 4)
        if not text.strip():
            found.rejected["empty"] += 1
        elif score < min_score:
            found.rejected["below_min_score"] += 1
        else:
            found.rows[document["document_id"]] = (text, score)
    return found
