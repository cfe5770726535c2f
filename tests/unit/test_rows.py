"""The short ways of the row renderer give what the long ones give."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.job.columns import Columns, conform
from shardline_producer.rows import RowRenderer, count_words, escaped
from shardline_producer.sources.source import Document
from tests.make import job

SPACES = "".join(char for char in map(chr, range(0x110000)) if char.isspace())
TEXTS = st.text(st.sampled_from(SPACES + "ab\u00e4\u201e\U0001f600\x00\x85") | st.characters(codec="utf-8"))


@given(TEXTS | st.text(st.characters(max_codepoint=255)))
def test_words_are_those_of_split(text: str) -> None:
    assert count_words(text) == len(text.split())


@pytest.mark.parametrize("char", [chr(code) for code in range(256)] + list(SPACES))
def test_each_character_separates_words_as_split_says(char: str) -> None:
    for text in (char, f"a{char}b", f"{char}a", f"a{char}", f"a{char}{char} b"):
        assert count_words(text) == len(text.split()), (text, text.split())


@given(TEXTS, st.dictionaries(st.sampled_from("ab"), TEXTS), TEXTS)
def test_a_row_is_its_json_with_escaped_line_breaks(text: str, metadata: dict[str, Any], name: str) -> None:
    columns = Columns({"a": "string"})
    row = RowRenderer(job(), columns).render(Document(name, text, metadata, 0.25))
    whole = {
        "text": text,
        "metadata": conform(metadata, columns),
        "source": "files",
        "quality_score": 0.5,
        "document_id": name,
        "relevance_score": 0.25,
    }
    assert row.head + b"0.5" + row.tail == escaped(orjson.dumps(whole)) + b"\n"
    assert len((row.head + row.tail).decode().splitlines()) == 1
