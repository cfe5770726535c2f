"""datatrove's own filters: `trove_filters.py LANGUAGE WORDS`, documents and verdicts as JSON lines.

WORDS: `given` takes the words of each document, `plain` cuts them by a pattern, `spacy` is datatrove's way.
"""

import re
import sys
import time
from typing import Any

import orjson
from datatrove.data import Document
from datatrove.pipeline.filters import (
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from datatrove.utils.text import split_into_words

_WORD = re.compile(r"\w+|[^\w\s]")
_MODULES = {
    "gopher": gopher_quality_filter,
    "repetition": gopher_repetition_filter,
    "fineweb": fineweb_quality_filter,
}


def filters(language: str, bounds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The filters with some bounds."""
    return {
        "gopher": GopherQualityFilter(language=language, **bounds.get("gopher", {})),
        "repetition": GopherRepetitionFilter(language=language, **bounds.get("repetition", {})),
        "fineweb": FineWebQualityFilter(language=language, **bounds.get("fineweb", {})),
        "c4": c4_filters.C4QualityFilter(language=language, **bounds.get("c4", {})),
    }


def main() -> None:
    """Read the bounds and the documents; write the verdicts, then the CPU-seconds of each filter."""
    language, words = sys.argv[1:]
    first, *rest = sys.stdin.buffer.read().splitlines()
    documents = [orjson.loads(line) for line in rest]
    made = filters(language, orjson.loads(first))
    current: dict[str, Any] = {}
    if words != "spacy":
        for name, module in _MODULES.items():

            def split(text: str, _language: str, name: str = name) -> list[str]:
                found: list[str] = current["words"][name] if words == "given" else _WORD.findall(text)
                return found

            module.split_into_words = split
        # A sentence ends where a sign of an end stands before white space.
        c4_filters.split_into_sentences = lambda text, _language: re.split(r"(?<=[.!?])\s+", text)
    else:
        # To load the tokenizer costs as much as some hundred documents.
        split_into_words("warm", language)
    verdicts: list[dict[str, str | None]] = [{} for _ in documents]
    costs = {}
    for name, one in made.items():
        started = time.process_time()
        for document, verdict in zip(documents, verdicts, strict=True):
            current = document
            try:
                kept = one.filter(Document(text=document["text"], id=""))
            except ZeroDivisionError:
                kept = (False, "error")
            verdict[name] = kept[1] if isinstance(kept, tuple) else None
        costs[name] = time.process_time() - started
    for verdict in verdicts:
        sys.stdout.buffer.write(orjson.dumps(verdict) + b"\n")
    sys.stdout.buffer.write(orjson.dumps(costs) + b"\n")


if __name__ == "__main__":
    main()
