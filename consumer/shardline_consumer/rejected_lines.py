"""The lines of `rejected/`: a document with its reason and scores, and with its text if the job asks."""

import re
from dataclasses import dataclass
from math import isnan

import orjson

from shardline_common.job.spec import JobSpec
from shardline_consumer.curation.verdicts import Curated
from shardline_consumer.filters.clara import Verdict

# The first field of a row. Possessive quantifiers, because a text may have millions of characters.
_TEXT = re.compile(rb'\{"text":("(?:[^"\\]++|\\.)*+")', re.DOTALL)


@dataclass(frozen=True, slots=True)
class RejectedLines:
    """Renders the lines. The relevance has `decimals` decimals. `with_text`: the text is in the line too."""

    decimals: int
    with_text: bool = False

    @classmethod
    def of(cls, spec: JobSpec) -> "RejectedLines | None":
        """The lines of a job; None when it does not keep rejected documents."""
        kept = spec.quality.keep_rejected
        return cls(spec.relevance_decimals, kept == "full") if kept else None

    def render(self, key: bytes, verdict: Verdict, relevance: float, head: bytes) -> bytes:
        """The line of a document. `head` is the beginning of its row."""
        return self._render(self._line(key, verdict.reason, verdict.text, relevance), head)

    def render_curated(self, key: bytes, found: Curated, relevance: float) -> bytes:
        """The line of a document of a job with filters: with what a rule measured, and its bound."""
        line = self._line(key, found.reason, found.score_text, relevance)
        if not isnan(found.value):
            line |= {"value": found.value, "threshold": found.threshold}
        return self._render(line, found.head)

    def _line(self, key: bytes, reason: str | None, score: bytes, relevance: float) -> dict[str, object]:
        return {
            "document_id": key.decode(),
            "reason": reason,
            "scores": {
                "quality": orjson.Fragment(score),
                "relevance": round(relevance, self.decimals) + 0.0,
            },
        }

    def _render(self, line: dict[str, object], head: bytes) -> bytes:
        if self.with_text:
            # As it stands in the row, with the same escapes.
            found = _TEXT.match(head)
            line["text"] = orjson.Fragment(found[1] if found else b"null")
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
