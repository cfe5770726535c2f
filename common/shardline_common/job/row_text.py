"""A text in a row: its JSON, and its words. Workers that change a text render it as producers do."""

import orjson

# Some readers split lines at these as well; inside JSON strings they are escaped.
_LINE_BREAKS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))

_WORD_MARKS = bytes(not chr(code).isspace() for code in range(256))
# The white space that latin-1 does not have.
_WIDE_SPACES = tuple(map(chr, (0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)))


def count_words(text: str) -> int:
    """The number of words, which white space separates: `len(text.split())`, in a third of its time."""
    try:
        latin = text.encode("latin-1")
    except UnicodeEncodeError:
        if any(space in text for space in _WIDE_SPACES):
            return len(text.split())
        latin = text.encode("latin-1", "replace")
    # A byte for each character: 1 in words, 0 between them. Their neighbours differ twice for each word, once
    # for one at the start. Without branches, which a processor cannot predict for words.
    marks = int.from_bytes(latin.translate(_WORD_MARKS), "little")
    return ((marks ^ marks >> 8).bit_count() + (marks & 1)) >> 1


def text_json(text: str) -> bytes:
    """The text as in a row."""
    # To look for a character in the text takes a hundredth of the time of a search in its bytes.
    if not text.isascii() and ("\x85" in text or "\u2028" in text or "\u2029" in text):
        return escaped(orjson.dumps(text))
    return orjson.dumps(text)


def escaped(line: bytes) -> bytes:
    """JSON with escapes for the characters that some readers take for the end of a line."""
    for raw, escape in _LINE_BREAKS:
        if raw in line:
            line = line.replace(raw, escape)
    return line
