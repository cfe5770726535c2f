"""Encodings of files: marked ones are read, others are refused by name, and read when the job names them."""

import codecs
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardline_common.errors import JobFailed
from shardline_common.job.spec import FilesSource, parse_job
from shardline_producer.sources.files import encodings
from shardline_producer.sources.files.encodings import CodecDecoder
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.formats import detect
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import Document, SourceItem
from tests.make import job, memory_pages
from tests.source_items import dead_letter_reasons, item_ids

GERMAN = "Die Behörde prüft den Plan für die Straße gemäß § 34"
TEXTS = {
    "cp1252": GERMAN,
    "iso8859-1": GERMAN,
    "cp1251": "Федеральный закон о градостроительной деятельности принят Думой",  # noqa: RUF001 - as written
    "koi8-r": "Федеральный закон о градостроительной деятельности принят Думой",  # noqa: RUF001 - as written
    "shift_jis": "建築基準法に基づく申請書の提出について、担当者は確認してください。",
    "euc_jp": "建築基準法に基づく申請書の提出について、担当者は確認してください。",
    "iso2022_jp": "建築基準法に基づく申請書の提出について、担当者は確認してください。",
    "gb18030": "根据建筑法的规定，申请人应当向主管部门提交申请书，并附有关材料。",  # noqa: RUF001 - as written
    "big5": "根據建築法的規定，申請人應當向主管機關提交申請書，並附相關資料。",  # noqa: RUF001 - as written
    "euc_kr": "건축법에 따라 신청인은 관계 기관에 신청서를 제출하여야 한다.",
    "utf-16-le": GERMAN + "根据 🏛",
    "utf-16-be": GERMAN + "根据 🏛",
    "utf-32-le": GERMAN,
    "utf-32-be": GERMAN,
}
MARKED = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


def lines(text: str, count: int = 5) -> str:
    rows = [f'{{"document_id": "d{number}", "content": "{text}"}}\n' for number in range(count)]
    return "".join(rows)


def source(folder: Path, data: bytes, **changes: Any) -> FileDocuments:
    (folder / "a.jsonl").write_bytes(data)
    spec = job(source={"type": "files", "paths": ["a.jsonl"], **changes})
    return FileDocuments(spec, LocalFiles(folder), None, memory_pages())


async def read(found: FileDocuments) -> list[SourceItem]:
    frozen = await found.freeze()
    return [item async for batch in found.read(frozen, None) for item in batch]


async def texts(found: FileDocuments) -> set[str]:
    items = await read(found)
    assert item_ids(items) == [f"d{number}" for number in range(5)]
    return {item.content.text for item in items if isinstance(item.content, Document)}


@pytest.mark.parametrize("encoding", MARKED)
async def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    text = GERMAN + " 根据 🏛"
    data = MARKED[encoding] + lines(text).encode(encoding)
    assert await texts(source(tmp_path, data)) == {text}
    # The mark is that of the file; the job's encoding is that of files without one.
    assert await texts(source(tmp_path, data, encoding="cp1252")) == {text}


@pytest.mark.parametrize("encoding", TEXTS)
async def test_another_encoding_is_refused_by_name_and_read_when_it_is_named(
    tmp_path: Path, encoding: str
) -> None:
    data = lines(TEXTS[encoding]).encode(encoding)
    named = "cp1252" if encoding == "iso8859-1" else encoding
    with pytest.raises(JobFailed, match=f"is not UTF-8.*probably {named.replace('-', '[-_]')}") as failed:
        await read(source(tmp_path, data))
    assert failed.value.code == "source_invalid"
    hint = str(failed.value.hint)
    field = orjson.loads("{" + hint[hint.index('"encoding"') : hint.index(" in source")] + "}")
    assert await texts(source(tmp_path, data, **field)) == {TEXTS[encoding]}
    assert await texts(source(tmp_path, data, encoding=encoding.upper())) == {TEXTS[encoding]}


@pytest.mark.parametrize(
    ("encoding", "text", "named"),
    [
        (
            "cp1252",
            "L\u2019\u00e9t\u00e9 dernier, le conseil a \u00e9tudi\u00e9 la requ\u00eate \u00e0 Paris",
            "cp1252",
        ),
        ("cp1250", "Ustawa z dnia 7 lipca okre\u015bla zasady dzia\u0142alno\u015bci", "cp1250"),
        (
            "cp1250",
            "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148 \u00fap\u011bl \u00f3dy",
            "cp1250",
        ),
        ("cp850", "Die Beh\u00f6rde pr\u00fcft f\u00fcr die Stra\u00dfe", "cp850"),
        (
            "mac_roman",
            "L\u2019\u00e9t\u00e9 dernier, le conseil a \u00e9tudi\u00e9 la requ\u00eate",
            "mac-roman",
        ),
        ("cp037", "Die Behoerde", "cp037"),
        ("iso2022_kr", "\uac74\ucd95\ubc95\uc5d0 \ub530\ub77c", "iso2022_kr"),
        ("koi8_t", "\u049b\u04b3\u04b7 " * 9, ""),
    ],
)
def test_the_likely_encoding_is_the_first_that_is_named(encoding: str, text: str, named: str) -> None:
    files = job(source={"type": "files", "paths": ["a"]}).source
    assert isinstance(files, FilesSource)
    with pytest.raises(JobFailed, match="is not UTF-8") as failed:
        detect("a", lines(text, 20).encode(encoding), files)
    assert f'"encoding": "{named}' in str(failed.value.hint)


@pytest.mark.parametrize("named", ["uid", "document_id"])
async def test_the_refusal_names_the_encoding_and_the_fields_that_are_missing_in_it(
    tmp_path: Path, named: str
) -> None:
    rows = [f"{number};{GERMAN}, und {GERMAN}" for number in range(20)]
    (tmp_path / "a.csv").write_bytes("\n".join([f"{named};content", *rows]).encode("cp1252"))
    spec = job(source={"type": "files", "paths": ["a.csv"]}, quality={"min_score": 0.9})
    source = FileDocuments(spec, LocalFiles(tmp_path), None, memory_pages())
    with pytest.raises(JobFailed, match="probably cp1252") as failed:
        await source.freeze()
    hint = failed.value.hint or ""
    assert '"encoding": "cp1252"' in hint
    assert ('"fields": {"id": "uid"}' in hint) == (named == "uid")
    assert ('"quality": {"min_score": 0.0}' in hint) == (named == "uid")


async def test_a_file_in_utf_8_stays_so_beside_others(tmp_path: Path) -> None:
    """The encoding that a job names is that of the files that are not UTF-8."""
    for encoding in ("cp1252", "koi8-r", "tis-620", "mac_roman", "cp1252"):
        assert await texts(source(tmp_path, lines("\u00e4").encode(), encoding=encoding)) == {"\u00e4"}
    assert await texts(source(tmp_path, lines(GERMAN).encode(), encoding="gb18030")) == {GERMAN}
    # A character of GBK that is valid UTF-8: by chance, as long as there are few.
    few = lines("\u9686").encode("gbk")
    assert few.decode()
    assert await texts(source(tmp_path, few, encoding="gbk")) == {"\u9686"}


async def test_utf_16_without_a_mark_has_the_byte_order_that_it_shows(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        assert await texts(source(tmp_path, lines("x").encode(encoding), encoding="utf-16")) == {"x"}
    with pytest.raises(JobFailed, match="no byte order mark") as failed:
        await read(source(tmp_path, lines("x").encode(), encoding="UTF_16"))
    assert "utf-16-be" in str(failed.value.hint)


@pytest.mark.parametrize(
    ("good", "bad"), [(200, 1), (90, 10), (2, 1), (5, 2)], ids=["1 of 201", "10 of 100", "1 of 3", "2 of 7"]
)
async def test_a_few_lines_of_another_encoding_are_dead_letters(tmp_path: Path, good: int, bad: int) -> None:
    data = lines(GERMAN, good).encode() + lines(GERMAN, bad).encode("latin-1")
    items = await read(source(tmp_path, data))
    assert len(items) == good + bad
    assert list(dead_letter_reasons(items).values()) == ["invalid_utf8"] * bad


async def test_a_byte_of_damage_in_each_line_or_in_a_long_one_is_no_encoding(tmp_path: Path) -> None:
    """More than the half of the lines are damaged, and their other characters are those of UTF-8."""
    line = lines(GERMAN, 1).encode()
    damaged = line.replace(b"Plan", b"Pl\xe4n")
    items = await read(source(tmp_path, line + damaged * 20))
    assert list(dead_letter_reasons(items).values()) == ["invalid_utf8"] * 20
    # Without another character than ASCII, one byte in thousands is damage too.
    items = await read(source(tmp_path, lines("x" * 5000, 1).encode().replace(b"xx", b"x\xe4", 1)))
    assert list(dead_letter_reasons(items).values()) == ["invalid_utf8"]


async def test_a_named_utf_8_refuses_nothing(tmp_path: Path) -> None:
    items = await read(source(tmp_path, lines(GERMAN).encode("latin-1"), encoding="utf8"))
    assert set(dead_letter_reasons(items).values()) == {"invalid_utf8"}


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("damage", ["lone high", "lone low", "cut unit", "cut pair"])
async def test_half_a_character_of_utf_16_is_one_dead_letter(tmp_path: Path, order: str, damage: str) -> None:
    encoding = f"utf-16-{order}"
    high, low = "\ud83c".encode(encoding, "surrogatepass"), "\udfdb".encode(encoding, "surrogatepass")
    first, last = (lines("x", 1).encode(encoding) for _ in range(2))
    middle = lines("@", 1).encode(encoding)
    at = "@".encode(encoding)
    if damage.startswith("lone"):
        data = first + middle.replace(at, high if "high" in damage else low) + last
    else:
        data = first + last + middle[: middle.index(at)] + (high + low)[: 1 if "unit" in damage else 3]
    items = await read(source(tmp_path, MARKED[encoding] + data))
    assert item_ids(items).count("d0") == 2
    assert list(dead_letter_reasons(items).values()) == ["invalid_utf8"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "shift_jis"])
async def test_a_read_continues_behind_any_document(tmp_path: Path, encoding: str) -> None:
    text = "根据 🏛" if encoding.startswith("utf") else "建築基準法"
    data = MARKED.get(encoding, b"") + lines(text).encode(encoding)
    found = source(tmp_path, data, encoding=encoding)
    frozen, items = await found.freeze(), await read(found)
    assert found.progress(frozen, items[-1].position) == pytest.approx(1.0, abs=0.02)
    for index, item in enumerate(items):
        rest = [one async for batch in found.read(frozen, item.position) for one in batch]
        assert rest == items[index + 1 :]


CODECS = [
    "utf-16-le",
    "utf-16-be",
    "utf-32-le",
    "shift_jis",
    "euc_jp",
    "gb18030",
    "big5",
    "iso2022_jp",
    "cp1252",
    "utf-7",
    "hz",
]


@pytest.mark.parametrize("encoding", CODECS)
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4))
@example(b"\x3c\xd8\xdb\xdf\x3c\xd8", [1, 2, 3])
def test_how_a_text_is_cut_decides_nothing(encoding: str, data: bytes, cuts: list[int]) -> None:
    """Also across blocks, which are as small as here only in this test."""
    block, encodings._BLOCK = encodings._BLOCK, 7
    try:
        whole = CodecDecoder(encoding)
        wanted = whole.feed(data) + whole.finish()
        parts, edges = CodecDecoder(encoding), [0, *sorted(cuts), len(data)]
        pieces = [parts.feed(data[start:end]) for start, end in pairwise(edges)]
        assert b"".join(pieces) + parts.finish() == wanted
    finally:
        encodings._BLOCK = block


NAMES = [
    "latin1",
    "ISO-8859-15",
    "windows-1252",
    "Shift-JIS",
    "UTF-16LE",
    "utf-8-sig",
    "koi8-u",
    "macroman",
    "cp037",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_job_may_name_any_encoding_of_texts(name: str) -> None:
    assert job(source={"type": "files", "paths": ["a"], "encoding": name})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cp-1252", "did you mean `cp1252`?"),
        ("utf-61", "did you mean `utf"),
        *(
            (name, "no encoding of texts")
            for name in ("zip", "rot13", "idna", "unicode_escape", "undefined", "..")
        ),
    ],
)
def test_a_codec_that_is_no_encoding_is_refused_at_once(name: str, said: str) -> None:
    body = {"job_id": "j", "name": "n", "source": {"type": "files", "paths": ["a"], "encoding": name}}
    with pytest.raises(Exception, match=r"source\.encoding|source.files.encoding") as failed:
        parse_job(orjson.dumps(body))
    assert said in str(failed.value)
