"""The fields that documents have, and the mapping that most likely makes ids and texts of them. Pure.

A proposal is for a person to read and to paste: it may be wrong, and nothing but messages is made of it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardline_common.job.clara_score import clara_score, present_fields
from shardline_common.job.field_mapping import HASH, LINE, Path, is_template, parse_reference, reference
from shardline_common.job.messages import Facts
from shardline_common.job.spec import FieldMapping, FilesSource
from shardline_producer.sources.documents import as_score
from shardline_producer.sources.field_values import MISSING, NotFinite, value_at
from shardline_producer.sources.source import Document, InvalidDocument

_DOCUMENTS = 500
_DEPTH = 4
_FIELDS = 300
_SHOWN = 20
_SHOWN_NAME = 80
_SOURCE_CHARS = 600
_MAX_ID_CHARS = 200
_SHORT = 64
_NEARLY_ALL = 0.9
_FEW = 3

# Names are compared in lower case and without `_`. Of the ids the likeliest is first.
_ID_NAMES = """documentid docid id oid uid uuid guid identifier key pk doi ecli isbn slug url uri link
permalink href path filename file sha256 sha1 md5 hash digest aktenzeichen number num nr no nummer lfdnr
index row"""
_TEXT_NAMES = """text content body article message document passage fulltext bodytext articlebody pagecontent
rawcontent transcript story markdown inhalt volltext"""
_RATHER_TEXT_NAMES = """description abstract summary comment review answer output response question
beschreibung"""
_RANKS = {name: float(rank) for rank, name in enumerate(_ID_NAMES.split())}
_ID_SUFFIX = re.compile(r"[_\-. ](?:id|ID|Id)$|[a-z]I[dD]$")
_SUFFIX_RANK = _RANKS["key"] + 0.5
# By how much a name makes up for a shorter text.
_WEIGHTS = dict.fromkeys(_TEXT_NAMES.split(), 4.0) | dict.fromkeys(_RATHER_TEXT_NAMES.split(), 2.0)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LETTER_AND_DIGIT = re.compile(r"(?=.*[^\W\d_])(?=.*\d)[^\s]+")
_TYPES: dict[type, str] = {
    str: "text",
    int: "number",
    float: "number",
    NotFinite: "number",
    bool: "boolean",
    list: "list",
    dict: "object",
}


@dataclass(slots=True)
class _Profile:
    """What the documents have at one path."""

    path: Path
    types: dict[str, None] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last name in lower case, without what programs put between words."""
        return re.sub(r"[\W_]", "", self.path[-1]).lower()

    @property
    def texts(self) -> list[str]:
        """The values that are text."""
        return [value for value in self.values if type(value) is str]


def fields_of(contents: Iterable[Document | InvalidDocument]) -> list[Mapping[str, Any]]:
    """The fields of those contents that cannot be documents because of their fields."""
    return [one.fields for one in contents if isinstance(one, InvalidDocument) and one.fields]


def advice(source: FilesSource, documents: Sequence[Mapping[str, Any]], min_score: float = 0.0) -> str | None:
    """What to write into the job, as a hint with JSON to paste; None when nothing looks like the text.

    Where none of the documents can reach `min_score`, the JSON lowers it: the dataset would be empty.
    """
    proposal = propose(source.fields, documents)
    if proposal is None:
        return None
    whole = source.model_dump(mode="json") | {"fields": proposal}
    quality, why = "", ""
    if (best := _best_score(FieldMapping(**proposal), documents)) < min_score:
        quality = ', "quality": {"min_score": 0.0}'
        why = f" (no document has a higher quality score than {best:.1f}, and the job asks for {min_score})"
    text = f'"source": {json.dumps(whole, ensure_ascii=False)}'
    if len(text) > _SOURCE_CHARS:
        fields = json.dumps(proposal, ensure_ascii=False)
        also = f", and into the job: {quality[2:]}" if quality else ""
        return f'write this into `source` of the job: "fields": {fields}{also}{why}'
    return f"write this into the job: {text}{quality}{why}"


def _best_score(fields: FieldMapping, documents: Sequence[Mapping[str, Any]]) -> float:
    """The highest quality score of documents with these fields."""
    text, score = parse_reference(fields.text), parse_reference(fields.score)
    best = 0.0
    for document in documents[:_DOCUMENTS]:
        found = value_at(dict(document), text)
        if isinstance(found, str):
            relevance = as_score(value_at(dict(document), score)) or 0.0
            facts = Facts(len(found), 0, len(present_fields(document)), blank=False, relevance=relevance)
            best = max(best, round(clara_score(facts), 4))
    return best


def describe(documents: Sequence[Mapping[str, Any]]) -> str:
    """The fields with the types of their values: `uid (number), /meta/author (text)`."""
    found = [
        f"{_shown(one.path)} ({' or '.join(one.types)})"
        for one in _profiles(documents)
        if list(one.types) != ["object"]
    ]
    more = len(found) - _SHOWN
    return ", ".join(found[:_SHOWN] + ([f"and {more:,} more"] if more > 0 else [])) or "none"


def propose(fields: FieldMapping, documents: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """The fields of a mapping that gives most documents an id and a text; None when nothing is a text.

    A field of the present mapping that most documents have stays as it is.
    """
    documents = documents[:_DOCUMENTS]
    profiles = _profiles(documents)
    count = len(documents)
    text, texts = fields.text, _values(fields.text, documents, str)
    if 2 * len(texts) < count or is_template(text):
        if (found := _text(profiles, count)) is None:
            return None
        text, texts = reference(found.path), found.texts
    identity = fields.id
    if identity not in (HASH, LINE) and 2 * len(_values(identity, documents, str, int)) < count:
        candidates = [one for one in profiles if one.path != parse_reference(text)]
        chosen = _identity(candidates, count)
        unique = len(set(texts)) == count
        identity = reference(chosen.path) if chosen else (HASH if unique else LINE)
    proposal = {"id": identity, "text": text, "score": fields.score}
    written = FieldMapping.model_validate(proposal).model_dump(mode="json")
    return written if written != fields.model_dump(mode="json") else None


def _values(name: str, documents: Iterable[Mapping[str, Any]], *types: type) -> list[Any]:
    """The values of a field that have one of the types."""
    if is_template(name):
        return []
    path = parse_reference(name)
    found = [value_at(dict(one), path) for one in documents]
    return [value for value in found if value is not MISSING and type(value) in types]


def _profiles(documents: Sequence[Mapping[str, Any]]) -> list[_Profile]:
    """A profile of each path, by first appearance. Lists are not entered: their indexes name no field."""
    found: dict[Path, _Profile] = {}

    def visit(value: Mapping[str, Any], path: Path) -> None:
        for name, inner in value.items():
            here = (*path, name)
            if here not in found and len(found) >= _FIELDS:
                continue
            profile = found.setdefault(here, _Profile(here))
            profile.types[_TYPES.get(type(inner), "null" if inner is None else type(inner).__name__)] = None
            if isinstance(inner, dict):
                if len(here) < _DEPTH:
                    visit(inner, here)
            elif inner is not None:
                profile.values.append(inner)

    for document in documents[:_DOCUMENTS]:
        visit(document, ())
    return list(found.values())


def _text(profiles: Sequence[_Profile], count: int) -> _Profile | None:
    """The longest text by the mean of its characters; a name that says text counts for more."""
    best, best_weight = None, 0.0
    for one in profiles:
        texts = one.texts
        if 2 * len(texts) < count or (one.name not in _WEIGHTS and not any(map(_may_be_prose, texts))):
            continue
        mean = sum(map(len, texts)) / len(texts)
        weight = mean * _WEIGHTS.get(one.name, 1.0)
        if weight > best_weight:
            best, best_weight = one, weight
    return best


def _may_be_prose(text: str) -> bool:
    # Not all scripts put spaces between words.
    plain = text.isascii() and not any(map(str.isspace, text))
    return not plain and not _DATE.match(text)


def _identity(profiles: Sequence[_Profile], count: int) -> _Profile | None:
    """The field with values of its own for each document: by its name, else by what the values look like."""
    unique = [one for one in profiles if _is_unique(one, count)]
    named = [
        (rank, len(one.path), number) for number, one in enumerate(unique) if (rank := _rank(one)) is not None
    ]
    if named:
        return unique[min(named)[2]]
    if count < _FEW:
        return None
    return next((one for one in unique if all(map(_looks_like_an_id, one.values))), None)


def _is_unique(one: _Profile, count: int) -> bool:
    values = [value for value in one.values if type(value) in (str, int)]
    usable = all(type(value) is int or _is_usable(value) for value in values)
    enough = len(values) == len(one.values) and len(values) >= _NEARLY_ALL * count
    return bool(values) and enough and usable and len({str(value) for value in values}) == len(values)


def _is_usable(text: str) -> bool:
    return 0 < len(text) <= _MAX_ID_CHARS and text.isprintable()


def _rank(one: _Profile) -> float | None:
    return _RANKS.get(one.name, _SUFFIX_RANK if _ID_SUFFIX.search(one.path[-1]) else None)


def _looks_like_an_id(value: object) -> bool:
    # A number may be an amount, and a word a title.
    return (
        isinstance(value, str)
        and len(value) <= _SHORT
        and _LETTER_AND_DIGIT.fullmatch(value) is not None
        and not _DATE.match(value)
    )


def _shown(path: Path) -> str:
    name = reference(path)
    name = name if name.isprintable() else repr(name)[1:-1]
    return name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]}…"
