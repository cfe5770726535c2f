"""E-mail addresses, also with umlauts and as people disguise them: `name (at) firma (punkt) de`."""

import re
from collections.abc import Iterator

from shardline_consumer.pii.scan import Scan, Span

_LETTERS = "A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u024f\u0370-\u03ff\u0400-\u052f"
_LONGEST_LOCAL = 64
_LONGEST_DOMAIN = 255

# Read backwards from the sign: no regular expression then looks at a character twice.
_LOCAL_BACKWARDS = re.compile(f"[{_LETTERS}0-9._%+'&=~-]+")
_LABEL = f"[{_LETTERS}0-9](?:[{_LETTERS}0-9-]{{0,61}}[{_LETTERS}0-9])?"
_TOP = f"(?:xn--[a-z0-9-]{{2,59}}|[{_LETTERS}]{{2,24}})(?![{_LETTERS}0-9_-])"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_TOP}|\[(?:IPv6:)?[0-9A-Fa-f.:]{{3,45}}\]")
# `https://name:word@host` is an address of a page, and `picture@2x.png` a file.
_IN_URL = re.compile(r"://[^ \t\n/@]*$")
# Without a space behind the point: `max@firma.de.Danach`.
_NEXT_SENTENCE = re.compile(r"(?<=\.[a-z]{2})\.[A-Z][a-z]+$|(?<=\.[a-z]{3})\.[A-Z][a-z]+$")
_FILES = frozenset(
    {"bmp", "css", "gif", "html", "ico", "jpeg", "jpg", "js", "json", "pdf", "png", "svg", "webp"}
)
_PROGRAMS = frozenset({"git", "hg", "svn"})

# Of words and spaces, only the ends of common addresses count: any two words could be an address else.
_COMMON_TOP = (
    "(?:com|de|org|net|eu|at|ch|info|biz|io|edu|gov|uk|fr|it|nl|pl|es|be|dk|se|lu|us|cz|test|example"
    "|invalid"
    f"|berlin|hamburg|bayern|koeln|nrw)(?![{_LETTERS}0-9_-])"
)
_WORD_DOT = "(?: ?[(\\[{<] ?(?:dot|punkt|\\.) ?[)\\]}>] ?| (?:dot|punkt) )"
_AT_MARK = re.compile(
    r"[(\[{<&%](?:(?<=[(\[{<]) ?(?:[aA\xe4\xc4][tT]|@) ?[)\]}>] ?|(?<=\()a\)|(?<=&)#(?:64|x40);|(?<=%)40)"
)
_HOST = re.compile(
    f"{_LABEL}(?:(?:{_WORD_DOT}|\\.){_LABEL}){{0,4}}?(?:{_WORD_DOT}|\\.){_COMMON_TOP}", re.IGNORECASE
)
_HOST_OF_WORDS = re.compile(f"{_LABEL}(?:{_WORD_DOT}{_LABEL}){{0,4}}?{_WORD_DOT}{_COMMON_TOP}", re.IGNORECASE)
_DOT_AT_END = re.compile(f"{_WORD_DOT}\\Z", re.IGNORECASE)
_LONGEST_DOT = 9
_UPPER_MARK = " AT "
_WORD_MARKS = (" at ", " AT ", " \xe4t ", " \xc4T ")
_HAS_WORD_DOT = re.compile(r"[ (\[{<](?:dot|punkt)[ )\]}>]", re.IGNORECASE)


def find_emails(scan: Scan) -> Iterator[Span]:
    """The addresses of a text, of each way of writing in order."""
    text = scan.text
    if "@" in text:
        for at in _places(text, "@"):
            address = _address(text, at)
            if address is not None:
                yield address
            else:
                yield from _disguised(text, at, at + 1, _HOST_OF_WORDS)
    for mark in _AT_MARK.finditer(text):
        yield from _disguised(text, mark.start() - _spaces_before(text, mark.start()), mark.end(), _HOST)
    for at in _places(text, " @ "):
        yield from _disguised(text, at, at + 3, _HOST)
    for at in _places(text, _UPPER_MARK):
        # The name in small letters: `LOOK AT EXAMPLE.COM` is none.
        if not text[at - 1 : at].isupper():
            yield from _disguised(text, at, at + len(_UPPER_MARK), _HOST)
    yield from _with_words(text)


def _with_words(text: str) -> Iterator[Span]:
    """`max at firma dot de`: only where a word stands for the point too."""
    if any(mark in text for mark in _WORD_MARKS) and _HAS_WORD_DOT.search(text):
        for word in _WORD_MARKS:
            for at in _places(text, word):
                yield from _disguised(text, at, at + len(word), _HOST_OF_WORDS)


def _spaces_before(text: str, at: int) -> int:
    return int(at > 0 and text[at - 1] == " ")


def _places(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


def _address(text: str, at: int) -> Span | None:
    """The address around one sign."""
    domain = _DOMAIN.match(text, at + 1, at + 1 + _LONGEST_DOMAIN)
    if domain is None:
        return None
    start, end = _local_start(text, at), domain.end()
    if start == at:
        return None
    local = text[start:at]
    if local in _PROGRAMS and text.startswith(":", end):
        return None
    if _IN_URL.search(text, max(0, at - 2 * _LONGEST_LOCAL), at):
        return None
    labels = domain[0].split(".")
    if labels[-1].lower() in _FILES:
        return None
    next_sentence = _NEXT_SENTENCE.search(domain[0])
    return start, end - len(next_sentence[0]) if next_sentence else end


def _local_start(text: str, at: int) -> int:
    """Where the local part before `at` starts; `at`: there is none."""
    read = _LOCAL_BACKWARDS.match(text[max(0, at - _LONGEST_LOCAL) : at][::-1])
    if read is None or read[0].startswith("."):
        return at
    start = at - len(read[0].split("..", 1)[0].rstrip(".%+'&=~-"))
    # `@user@host` is the name of an account.
    return at if text.startswith("@", start - 1) and start else start


def _disguised(text: str, at: int, behind: int, host: re.Pattern[str]) -> Iterator[Span]:
    """The address around a mark that stands for the sign."""
    found = host.match(text, behind, behind + _LONGEST_DOMAIN)
    if found is None:
        return
    start = _local_start(text, at)
    while start < at:
        dot = _DOT_AT_END.search(text, max(0, start - _LONGEST_DOT), start)
        if dot is None:
            yield start, found.end()
            return
        before = _local_start(text, dot.start())
        if before == dot.start():
            return
        start = before
