"""A stream's lines are those of a preview, and with it those of a job."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from shardline.services.judging import ContentJudge, Left, LineJudge
from shardline_common.job.messages import DeadLetter
from shardline_common.job.plan import Plan
from shardline_producer.sources.source import Document, InvalidDocument
from tests.make import job

_FIELDS = ("title", "domain", "document_type", "other")
_TEXTS = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        # White space and invisible characters, of which a text may consist; line breaks of some readers.
        st.sampled_from(" \t\n\r\x0b\x1c\x1f\x85\xa0\u1680\u2028\u2029\u200b\ufeffa"),
    ),
    max_size=40,
)
_DOCUMENTS = st.builds(
    Document,
    id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=5),
    text=st.builds(lambda text, times: text * times, _TEXTS, st.sampled_from([1, 1, 1, 5, 30, 60])),
    metadata=st.dictionaries(
        st.sampled_from(_FIELDS), st.one_of(st.none(), _TEXTS, st.integers()), max_size=4
    ),
    relevance=st.floats(0, 1),
)
_DEAD = InvalidDocument("a", DeadLetter("bad_json", "hint", "0" * 64, 3, b"abc"))


@given(
    st.lists(st.one_of(_DOCUMENTS, st.just(_DEAD)), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7]),
    st.sampled_from([1, 2]),
    st.sampled_from([1024, 4 << 20]),
)
@example([Document("a", "\x1c\x1f ", {}), Document("b", "\u200b", {})], 0.0, 1, 4 << 20)
@example([Document("a", "\x1c\x1f ", {}), Document("b", "\u200b", {})], 0.0, 2, 4 << 20)
def test_a_line_is_what_a_preview_shows(
    contents: list[Document | InvalidDocument], min_score: float, rules: int, max_bytes: int
) -> None:
    spec = job(source={"type": "uds3"}, quality={"min_score": min_score}, max_document_bytes=max_bytes)
    plan = Plan(frozen=[], columns=dict.fromkeys(_FIELDS[:3], "string"), rules=rules)
    lines, slow = LineJudge(spec, plan), ContentJudge(spec, plan)
    for content in contents:
        judged = slow.judge(content)
        expected: Any = judged.line if judged.reason is None else Left(judged.reason, judged.dead)
        assert lines.line(content) == expected
