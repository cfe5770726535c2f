"""Every exception class of the client libraries has a line in the tables of their meanings."""

import inspect
from types import ModuleType

import pytest
from aiobotocore import response
from aiohttp import client_exceptions, http_exceptions
from botocore import exceptions as boto
from botocore import parsers

from shardline_common.http.client_faults import HTTP_FAULTS, Fault, fault_of, find_fault, words
from shardline_common.storage.s3_codes import CODES, STATUSES, Answer, Verdict, answer_of
from shardline_common.storage.s3_faults import S3_FAULTS

# These say nothing. A class below them that has no line of its own has none.
_ROOTS = {BaseException, Exception, boto.BotoCoreError, client_exceptions.ClientError}
# Answers of the store: `s3_codes` has the meaning of their codes.
_ANSWERS = (boto.ClientError,)
ANSWERS = sorted({*CODES.values(), *STATUSES.values()}, key=lambda answer: answer.hint)
LINES: list[Fault] = sorted(set(S3_FAULTS.values()), key=lambda line: line.meaning)


def exceptions_of(module: ModuleType) -> list[type[Exception]]:
    """The exception classes that a module defines."""
    return [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception)
        and not issubclass(kind, Warning)
        and kind.__module__ == module.__name__
    ]


@pytest.mark.parametrize(
    "module",
    [boto, parsers, response, client_exceptions, http_exceptions],
    ids=lambda module: module.__name__,
)
def test_each_exception_of_a_client_has_a_line(module: ModuleType) -> None:
    found = [kind for kind in exceptions_of(module) if kind not in _ROOTS and not issubclass(kind, _ANSWERS)]
    assert found
    assert [kind.__name__ for kind in found if fault_of(kind, S3_FAULTS) is None] == []
    if module in (client_exceptions, http_exceptions):
        assert [kind.__name__ for kind in found if fault_of(kind, HTTP_FAULTS) is None] == []


def test_a_class_without_a_line_is_found() -> None:
    # As a new version of the library would bring one.
    for root in _ROOTS:
        assert fault_of(type("New", (root,), {}), S3_FAULTS) is None


@pytest.mark.parametrize("fault", LINES, ids=[line.meaning for line in LINES])
def test_each_line_has_one_thing_to_do(fault: Fault) -> None:
    hint = fault.hint("THE_ADDRESS", "THE_CA")
    assert hint
    assert "{" not in hint


def test_a_chain_of_exceptions_that_ends_in_itself_is_read_once() -> None:
    error = OSError("again")
    error.__cause__ = error
    assert find_fault(error)[1] is error


def test_foreign_words_are_one_short_line_without_secrets() -> None:
    text = "no\x1b[31m\r\n\tway\u2028http://user:pass@host/?q token-1 " + "x" * 1000
    found = words(text, ("token-1",))
    assert found.startswith("no [31m way http://host/?q ******** xxx")
    assert len(found) < 310


@pytest.mark.parametrize("answer", ANSWERS, ids=[answer.hint for answer in ANSWERS])
def test_each_answer_of_a_store_has_one_thing_to_do(answer: Answer) -> None:
    assert answer.hint
    assert answer.hint[0].islower()
    assert not answer.hint.endswith(".")


@pytest.mark.parametrize(
    ("code", "status", "verdict"),
    [
        ("", 507, Verdict.REFUSED),
        ("", 500, Verdict.REPEAT),
        ("", 418, Verdict.REFUSED),
        ("NewCode", 503, Verdict.REPEAT),
        ("NewCode", 403, Verdict.REFUSED),
        ("SlowDown", 400, Verdict.REPEAT),
        ("ExpiredToken", 403, Verdict.WAIT),
        ("QuotaExceeded", 500, Verdict.REFUSED),
    ],
)
def test_a_code_says_more_than_a_status(code: str, status: int, verdict: Verdict) -> None:
    assert answer_of(code, status).verdict is verdict
