"""Precision and recall on a labelled set: invented people, German and English, and what looks like them.

A finding counts if kind, start and end are those of the label. Phone numbers are of the ranges for films
where there are some, cards and addresses of those for tests and documents.
"""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from shardline_consumer.pii import KINDS, Found, find

LABELLED = Path(__file__).parent / "labelled.jsonl"
LEAST = 0.95


class Line(NamedTuple):
    text: str
    found: list[Found]


def lines() -> list[Line]:
    read = [json.loads(line) for line in LABELLED.read_text("utf-8").splitlines()]
    return [Line(one["text"], [Found(*found) for found in one["found"]]) for one in read]


def test_the_set_is_large_and_has_traps() -> None:
    labels = Counter(found.kind for line in lines() for found in line.found)
    assert len(lines()) >= 300
    assert sum(not line.found for line in lines()) >= 100
    assert all(labels[kind] >= 10 for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_precision_recall_and_f1_of_each_kind(kind: str) -> None:
    right = spurious = missed = 0
    for line in lines():
        wanted = {one for one in line.found if one.kind == kind}
        got = {one for one in find(line.text) if one.kind == kind}
        right += len(wanted & got)
        spurious += len(got - wanted)
        missed += len(wanted - got)
    precision, recall = right / (right + spurious), right / (right + missed)
    assert min(precision, recall, 2 * precision * recall / (precision + recall)) >= LEAST


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_asked_for_alone_finds_the_same(kind: str) -> None:
    for line in lines():
        assert find(line.text, {kind}) == [one for one in find(line.text) if one.kind == kind]
