"""Which encoding the first bytes of a file have; one that is neither marked nor named is refused."""

import codecs
import re
from contextlib import suppress

from shardline_common.errors import JobFailed
from shardline_common.job.spec import FilesSource
from shardline_common.job.text_encodings import canonical_encoding
from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.files.file_errors import OtherEncoding, source_invalid
from shardline_producer.sources.files.file_format import UTF_8

# What no text has: the control characters but for white space and escape.
_CONTROLS = bytes([*range(0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F])
CONTROL = re.compile(b"[" + re.escape(_CONTROLS) + b"]")
# That of UTF-32 begins with that of UTF-16.
_BOMS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = tuple(name for _, name in _BOMS[1:])
_GENERIC = ("utf-16", "utf-32")
# Those in which files are written. Among all codecs of Python, short texts fit many that nobody uses.
_PROBABLE = [
    "cp1252",
    "cp1250",
    "cp1251",
    "koi8_r",
    "shift_jis",
    "euc_jp",
    "euc_kr",
    "gb18030",
    "big5",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp1257",
    "cp850",
    "cp866",
    "iso8859_5",
    "mac_cyrillic",
    "mac_roman",
    "tis_620",
]
_SAMPLE = 1 << 14
# Between letters: in cp1250 they are letters too, in cp1252 they are signs.
_POLISH = re.compile(rb"[a-z][\x9d\x9f\xb3\xb9\xbe\xbf]|[\x9d\x9f\xb3\xb9\xbe\xbf][a-z]")
# Those of ISO 2022 are ASCII but for their escapes, and EBCDIC has other bytes for every letter.
_ESCAPED = ((re.compile(rb"\x1b\$[@B]"), "iso2022_jp"), (re.compile(rb"\x1b\$\)C"), "iso2022_kr"))
_EBCDIC, _MOST = "cp037", 0.8
# The dead letters that a job allows by default: more than this many, and more than this share.
_FEW_LINES, _FEW_SHARE = 10, 0.1
# In a text of another encoding, one byte in so many at least is not ASCII.
_SPARSE = 2000
# A few characters of a text in two bytes each may be UTF-8 by chance. In an encoding of one byte a character,
# the pairs of UTF-8 are a letter and a sign that nobody writes.
_CHANCE = 10
_MANY_CONTROLS = 0.05
_SHOWN_BYTES = 16


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a text: no compressed file begins like one."""
    marked = _marked(head)
    if marked in _WIDE:
        return _decodes(head, marked)
    return CONTROL.search(head) is None and _decodes(head, UTF_8)


def detect_encoding(path: str, head: bytes, source: FilesSource) -> str:
    """The encoding of a text that begins with `head`, as the name of a Python codec.

    A byte order mark decides, then `source.encoding` where the bytes are not those of UTF-8. Without it, a
    text that is UTF-8 but for a few lines is UTF-8, and these lines become dead letters.

    Raises:
        JobFailed: it is in another encoding, or no text (`source_invalid`).
    """
    if (marked := _marked(head)) is not None:
        return marked
    if source.encoding is not None:
        named = canonical_encoding(source.encoding)
        # Read in another encoding, such a text would be other letters without a word.
        return UTF_8 if _is_surely_utf_8(head, named) else _named(path, head, named)
    if (wide := _wide(head)) is not None:
        raise _refused(path, head, wide)
    for escape, name in _ESCAPED:
        if escape.search(head):
            raise _refused(path, head, name)
    if _is_ebcdic(head):
        raise _refused(path, head, _EBCDIC)
    if head and _share_of_controls(head) > _MANY_CONTROLS:
        raise _no_text(path, head)
    if not _decodes(head, UTF_8) and not _is_mostly_utf_8(head):
        raise _refused(path, head, *_probable(head))
    return UTF_8


def _is_surely_utf_8(head: bytes, encoding: str) -> bool:
    """Whether a text is UTF-8, with other characters than ASCII, and not by chance."""
    others = sum(not char.isascii() for char in head.decode(errors="ignore"))
    return _decodes(head, UTF_8) and others > (_CHANCE if _has_pairs(encoding) else 0)


def _has_pairs(encoding: str) -> bool:
    """Whether an encoding has characters of several bytes, that of Chinese, Japanese or Korean texts."""
    for lead in (b"\x93", b"\xc4"):
        with suppress(UnicodeDecodeError):
            if not codecs.getincrementaldecoder(encoding)().decode(lead):
                return True
    return False


def _named(path: str, head: bytes, encoding: str) -> str:
    if encoding not in _GENERIC:
        return encoding
    wide = _wide(head)
    if not head or (wide is not None and wide.startswith(encoding)):
        return wide or f"{encoding}-le"
    raise source_invalid(
        f"{shown_path(path)} has no byte order mark, and does not look like {encoding}",
        f'set source.encoding to "{encoding}-le" or "{encoding}-be"',
    )


def _marked(head: bytes) -> str | None:
    return next((name for mark, name in _BOMS if head.startswith(mark)), None)


def _wide(head: bytes) -> str | None:
    """The encoding of two or four bytes a character that the place of zero bytes shows, without a mark."""
    if head.count(0) * 10 < len(head):
        return None
    return next((name for name in _WIDE if _fits(head, name)), None)


def _fits(head: bytes, encoding: str) -> bool:
    unit = 4 if "32" in encoding else 2
    whole = head[: len(head) - len(head) % unit]
    if not whole or not _decodes(whole, encoding):
        return False
    text = whole.decode(encoding, "ignore")
    # In the other byte order, the characters of a Latin text are those of many scripts, and none is ASCII.
    plain = sum(char.isascii() for char in text)
    return plain * 5 > len(text) and CONTROL.search(text.encode(errors="ignore")) is None


def _decodes(head: bytes, encoding: str) -> bool:
    """Whether bytes are of an encoding, as far as their last character is whole."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _share_of_controls(head: bytes) -> float:
    return 1 - len(head.translate(None, _CONTROLS)) / len(head)


def _is_mostly_utf_8(head: bytes) -> bool:
    """Whether a text that is not all UTF-8 is no text of another encoding either."""
    text = head.decode(errors="replace")
    bad = text.count("\ufffd")
    good = sum(not char.isascii() for char in text) - bad
    # In an encoding of two bytes a character, some pairs are UTF-8 by chance.
    if bad < good or bad * _SPARSE < len(head):
        return True
    lines = [line for line in head.split(b"\n") if line.strip()]
    # The last one may be cut.
    lines = lines[:-1] or lines
    damaged = sum(not _decodes(line, UTF_8) for line in lines)
    return damaged * 2 <= len(lines) and (damaged <= _FEW_LINES or damaged <= _FEW_SHARE * len(lines))


def _probable(head: bytes) -> list[str]:
    """The likeliest encodings of a text, the best one first."""
    # Imported here: it takes a tenth of a second, and few jobs need it.
    from charset_normalizer import from_bytes  # noqa: PLC0415 - see above

    lines = head.splitlines(keepends=True)
    sample = b"".join(line for line in lines if not line.isascii())[:_SAMPLE]
    faults = {match.encoding: match.chaos for match in from_bytes(sample, cp_isolation=_PROBABLE)}
    names = list(faults)[:2]
    if set(names) & {"cp1250", "cp1252"} and faults.get("cp1252", 1) <= faults.get("cp1250", 1):
        # Most of their letters are the same. The commoner one, unless letters of the other are signs in it.
        names = ["cp1250", "cp1252"] if _POLISH.search(sample) else ["cp1252", "cp1250"]
    elif names[:1] == ["cp1250"] and sample.decode("cp1250", "replace") == sample.decode("cp1252", "replace"):
        # Some versions of the library name one of two equal ones.
        names = ["cp1252"]
    return [codecs.lookup(name).name for name in names]


def _is_ebcdic(head: bytes) -> bool:
    text = head[:_SAMPLE].decode(_EBCDIC)
    plain = sum(char.isascii() and char.isprintable() for char in text)
    return not head[:_SAMPLE].isascii() and plain > _MOST * len(text)


def _refused(path: str, head: bytes, *names: str) -> JobFailed:
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(head)
        where = f"it begins with the bytes {head[:_SHOWN_BYTES].hex(' ')}"
    except UnicodeDecodeError as error:
        where = f"its byte {error.start:,} is {head[error.start]:02x}"
    if not names and CONTROL.search(head):
        return _no_text(path, head)
    if not names:
        return source_invalid(
            f"{shown_path(path)} is not UTF-8, and its encoding is not known: {where}",
            'name its encoding in source, such as "encoding": "cp1252", and look at the texts with '
            "`shardline preview`",
        )
    message = f"{shown_path(path)} is not UTF-8: {where}. It is probably {' or '.join(names)}"
    return OtherEncoding(message, names[0])


def _no_text(path: str, head: bytes) -> JobFailed:
    """The refusal of a file of which only the first bytes are known."""
    return source_invalid(
        f"{shown_path(path)} is no text: it begins with the bytes {head[:_SHOWN_BYTES].hex(' ')}",
        "convert it to JSON lines, CSV or Parquet; where it is a text in another encoding, name that in "
        "source.encoding",
    )
