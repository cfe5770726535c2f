"""Texts of evaluations in a document: a model that has seen them in training is measured too well."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field, StringConstraints

from shardline_common.assembly.words import words_of
from shardline_common.curation.filter import FilterKind, Part, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_common.errors import FailureCode, JobFailed
from shardline_consumer.filters.ngram_index import MOST_NGRAMS, NgramIndex, TooManyNgrams
from shardline_consumer.filters.parameters import Parameters, of_last

ListName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,62}$")]


class Contaminated(Parameters):
    """Overlap with texts of evaluations, in n-grams of words, as GPT-3 and others measure it.

    The reason is `contaminated.<list>`, and its value how many n-grams the document has of the list.
    Case, punctuation and white space do not count. The texts of a list are those of a JSONL file, or the
    paragraphs of a plain one; those of fewer than `ngram` words are not looked for.
    """

    lists: Annotated[
        dict[ListName, str],
        Field(
            min_length=1,
            description="Files of JSON lines or of plain text in UTF-8, by the name that the reason has.",
            examples=[{"gsm8k": "s3://evaluation/gsm8k.jsonl"}],
        ),
    ]
    fields: list[str] = Field(
        ["text"],
        min_length=1,
        description="The fields of a JSON line with its texts.",
        examples=[["question", "answer"]],
    )
    ngram: Annotated[int, Field(ge=5, le=50, description="How many words an n-gram has.", examples=[13])] = 13
    max_overlap: Annotated[
        int | None,
        Field(ge=0, description="The most n-grams that a document may have in common.", examples=[0]),
    ] = 0


_BYTES_PER_WORD = 4
# What stands between two words of a text, for a preview.
_BETWEEN = r"[^0-9A-Za-z\xc0-\u024f]+"


_WordsOf = Callable[[TextFacts], list[bytes]]


def _rules(parameters: Contaminated, files: Mapping[str, Path]) -> Sequence[Rule]:
    words = of_last(lambda facts: words_of(facts.text))
    rules = []
    for name in parameters.lists:
        index = _index(name, files[name], parameters)
        rules.append(
            Rule(
                name,
                _overlap(index, words),
                most=parameters.max_overlap,
                parameter="max_overlap",
                find=_first(index, words, parameters.ngram),
            )
        )
    return rules


def _overlap(index: NgramIndex, words: _WordsOf) -> Callable[[TextFacts], float]:
    def overlap(facts: TextFacts) -> float:
        return sum(1 for _ in index.places(words(facts)))

    return overlap


def _first(index: NgramIndex, words: _WordsOf, size: int) -> Callable[[TextFacts], Part | None]:
    def first(facts: TextFacts) -> Part | None:
        place = next(index.places(words(facts)), None)
        if place is None:
            return None
        ngram = [re.escape(word.decode("utf-8", "replace")) for word in words(facts)[place : place + size]]
        found = re.search(_BETWEEN.join(ngram), facts.text, re.IGNORECASE)
        # None where the words are spelled in another way than the text, as with a sharp s.
        return found.span() if found is not None else None

    return first


def _index(name: str, path: Path, parameters: Contaminated) -> NgramIndex:
    try:
        index = NgramIndex(
            parameters.ngram, _texts(name, path, parameters), path.stat().st_size // _BYTES_PER_WORD
        )
    except TooManyNgrams:
        raise _invalid(
            f"the list {name} has more than {MOST_NGRAMS:,} n-grams: they would take too much memory",
            "give a part of the list, or several lists in jobs one after the other",
        ) from None
    except UnicodeDecodeError as error:
        raise _invalid(
            f"the list {name} is not in UTF-8: {error.reason} at byte {error.start} of a line",
            "give the file as JSON lines or plain text in UTF-8, not compressed",
        ) from None
    if not len(index):
        raise _invalid(
            f"no text of the list {name} has {parameters.ngram} words",
            "name the fields with its texts in `fields`, or give a smaller `ngram`",
        )
    return index


def _invalid(message: str, hint: str) -> JobFailed:
    return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)


def _texts(name: str, path: Path, parameters: Contaminated) -> Iterator[list[bytes]]:
    """The words of each text of a list. No more than a line, or a paragraph, is in memory."""
    with path.open("rb") as file:
        head = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        file.seek(0)
        if head.startswith(b"{"):
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield from _of_json(name, number, line.removeprefix(b"\xef\xbb\xbf"), parameters.fields)
        else:
            yield from _of_plain(file, parameters.ngram)


def _of_json(name: str, number: int, line: bytes, fields: Sequence[str]) -> Iterator[list[bytes]]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"line {number} of the list {name} is no JSON: {error}", "repair the line") from None
    texts = [text for field in fields for text in _strings(row.get(field))] if isinstance(row, dict) else []
    if not texts and not (isinstance(row, dict) and any(field in row for field in fields)):
        there = ", ".join(row) if isinstance(row, dict) else "no fields"
        raise _invalid(
            f"line {number} of the list {name} has none of the fields {', '.join(fields)}; it has {there}",
            "name the fields with the texts in `fields`",
        )
    for text in texts:
        yield words_of(text)


def _strings(value: Any) -> Iterator[str]:
    """The texts of a field: itself, or those of a list such as the choices of a question."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)


_LONGEST_PARAGRAPH = 100_000


def _of_plain(lines: Iterator[bytes] | Any, size: int) -> Iterator[list[bytes]]:
    words: list[bytes] = []
    for line in lines:
        own = words_of(line.decode("utf-8"))
        if own:
            words += own
        else:
            yield words
            words = []
        if len(words) > _LONGEST_PARAGRAPH:
            yield words
            # The n-grams that go on in the next line.
            words = words[max(0, len(words) - size + 1) :]
    yield words


def _files(parameters: Contaminated) -> Mapping[str, str]:
    return parameters.lists


FILTER = FilterKind("contaminated", 1, Contaminated, _rules, _files)
