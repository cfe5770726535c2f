"""Files that are no text that is read: refused by what they are, with the command that converts them."""

import bz2
import gzip
import io
import lzma
import pickle
import random
import sqlite3
import tarfile
import zipfile
from collections.abc import Mapping

import pytest

from shardline_common.errors import JobFailed
from shardline_common.job.spec import FilesSource
from shardline_producer.sources.files.formats import detect

ROWS = b'{"document_id": "a", "content": "x"}\n' * 20


def zipped(**members: bytes) -> bytes:
    """A zip archive; two underscores in a name are a slash, and one a dot."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return made.getvalue()


def tarred(name: str, kind: int = tarfile.USTAR_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=kind) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(ROWS)
        archive.addfile(member, io.BytesIO(ROWS))
    return made.getvalue()


def office(folder: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(f"{folder}/document.xml", "<w/>")
    return made.getvalue()


def sqlite() -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE laws (text TEXT)")
    return database.serialize()


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
CASES: Mapping[str, tuple[bytes, str, str]] = {
    "a.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF", "pdftotext a.pdf a.txt"),
    "a.jsonl": (b"%PDF-1.7\n", "a PDF", "pdftotext a.jsonl a.txt"),
    "a.gz": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF", "pdftotext a.gz a.txt"),
    "b.zip": (zipped(laws_jsonl=ROWS), "a zip archive", "unzip -p b.zip > b.jsonl"),
    "b2.zip": (
        zipped(laws_jsonl=ROWS).replace(b"laws", b"l\x84ws"),
        "a zip archive",
        "unzip -p b2.zip > b2.jsonl",
    ),
    "c.zip": (zipped(laws_jsonl=ROWS, more_jsonl=ROWS), "a zip archive", "unzip c.zip -d c"),
    "d.zip": (zipped(a_png=ROWS), "a zip archive", "unzip d.zip -d d"),
    "e.docx": (
        office("word"),
        "a Word document",
        "libreoffice --headless --convert-to txt:Text --outdir converted e.docx",
    ),
    "e.xlsx": (office("xl"), "an Excel workbook", "--convert-to csv --outdir converted e.xlsx"),
    "in/e.pptx": (office("ppt"), "a presentation", "in/e.pptx && pdftotext converted/e.pdf in/e.txt"),
    "f.odt": (
        zipped(mimetype=b"application/vnd.oasis.opendocument.text"),
        "OpenDocument text",
        "txt:Text --outdir converted f.odt",
    ),
    "f.ods": (
        zipped(mimetype=b"application/vnd.oasis.opendocument.spreadsheet"),
        "(ods)",
        "csv --outdir converted f.ods",
    ),
    "f.epub": (zipped(mimetype=b"application/epub+zip"), "a book", "pandoc -t plain -o f.txt f.epub"),
    "g.npz": (zipped(x_npy=b"1"), "NumPy", "export it"),
    "g.pt": (zipped(archive__data_pkl=b"1"), "PyTorch", "export it"),
    "h.doc": (
        OLE + "WordDocument".encode("utf-16-le"),
        "a Word document (doc)",
        "txt:Text --outdir converted h.doc",
    ),
    "h.xls": (
        OLE + "Workbook".encode("utf-16-le"),
        "an Excel workbook (xls)",
        "csv --outdir converted h.xls",
    ),
    "h.msg": (OLE, "Microsoft Office", "pdf --outdir converted h.msg"),
    "i.tar": (tarred("laws.jsonl"), "a tar archive", "tar -xOf i.tar > i.jsonl"),
    "i.tar.gz": (gzip.compress(tarred("x/laws.csv")), "a tar archive", "tar -xf i.tar.gz, and name"),
    "i.tgz": (
        gzip.compress(tarred("a.ndjson", tarfile.PAX_FORMAT)),
        "a tar archive",
        "tar -xOf i.tgz > i.jsonl",
    ),
    "i.txz": (lzma.compress(tarred("a.jsonl", tarfile.GNU_FORMAT)), "a tar archive", "tar -xOf i.txz"),
    "j.7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive", "7z x -so j.7z > j.jsonl"),
    "j.rar": (b"Rar!\x1a\x07\x01\0", "a rar archive", "unrar p -inul j.rar > j.jsonl"),
    "j.lz4": (b"\x04\x22\x4d\x18\x64", "lz4", "lz4 -dc j.lz4 > j.jsonl"),
    "j.Z": (b"\x1f\x9d\x90\x01", "compress", "gzip -dc j.Z > j.jsonl"),
    "j.lzma": (lzma.compress(ROWS, lzma.FORMAT_ALONE), "lzma", "xz --format=lzma -dc j.lzma > j.jsonl"),
    "k.sqlite": (sqlite(), "a SQLite database", "sqlite3 -json k.sqlite 'SELECT * FROM <table>' > k.json"),
    "k.avro": (b"Obj\x01\x04\x16avro.schema", "Avro", "read_avro('k.avro')"),
    "k.orc": (b"ORC\x08\x03\x10\x00", "ORC", "o.read_table('k.orc'), 'k.parquet')"),
    "k.pkl": (pickle.dumps([{"text": "x"}]), "a Python pickle", "p.read_pickle('k.pkl')"),
    "k2.pkl": (pickle.dumps({"text": "x"}, protocol=2), "a Python pickle", "p.read_pickle('k2.pkl')"),
    "k.h5": (b"\x89HDF\r\n\x1a\n\0", "HDF5", "export it"),
    "l.png": (b"\x89PNG\r\n\x1a\n\0", "an image (PNG)", "tesseract l.png l"),
    "l.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "an image (JPEG)", "tesseract l.jpg l"),
    "l.webp": (b"RIFF\x10\0\0\0WEBPVP8 ", "an image (WebP)", "tesseract l.webp l"),
    "l.mp3": (b"ID3\x04\0\0\0", "a sound (MP3)", "whisper l.mp3"),
    "m": (b"\x7fELF\x02\x01\x01\0", "a program (ELF)", "name the files"),
    "n.html": (b"<!-- x -->\n<!DOCTYPE html>\n<html></html>", "HTML", "pandoc -t plain -o n.txt n.html"),
    "n.jsonl": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML", "xq -c"),
    "o.rtf": (b"{\\rtf1\\ansi Text}", "RTF", "txt:Text --outdir converted o.rtf"),
    "p.jsonl": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
        "Git LFS",
        "git lfs pull --include p",
    ),
    "q.jsonl": (b"2d4;chunk-signature=" + b"a" * 64 + b"\r\n" + ROWS, "aws-chunked", "upload the file again"),
    "q2.jsonl": (
        b"%x\r\n" % len(ROWS) + ROWS + b"\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n",
        "aws-chunked",
        "upload",
    ),
    "r.jsonl.gz": (
        gzip.compress(gzip.compress(ROWS)),
        "compressed twice, by gzip and",
        "gzip -dc r.jsonl.gz > r.gz",
    ),
    "r.gz": (gzip.compress(gzip.compress(ROWS)), "compressed twice", "gzip -dc r.gz > r-1.gz"),
    "s.pdf.bz2": (
        bz2.compress(b"%PDF-1.4\n\0"),
        "a PDF",
        "bzip2 -dc s.pdf.bz2 > s.pdf.bin && pdftotext s.pdf.bin s.pdf.txt",
    ),
    "a b.pdf": (b"%PDF-1.4\n", "a PDF", "pdftotext 'a b.pdf' 'a b.txt'".replace("'a b.txt'", "'a b'.txt")),
    "it's.avro": (b"Obj\x01\x04", "Avro", "read_avro('<file>')"),
    "t.jsonl": (zipped(laws_jsonl=ROWS), "a zip archive", "unzip -p t.jsonl > t-1.jsonl"),
    "t": (zipped(a_png=ROWS), "a zip archive", "unzip t -d t-1"),
    "t.2.jsonl": (b"Rar!\x1a\x07\x01\0", "a rar archive", "unrar p -inul t.2.jsonl > t.2-1.jsonl"),
    "s3://b/in/a.zip": (
        zipped(x_jsonl=ROWS),
        "a zip archive",
        "aws s3 cp s3://b/in/a.zip . && unzip -p a.zip > a.jsonl",
    ),
}


def source(**changes: object) -> FilesSource:
    return FilesSource.model_validate({"type": "files", "paths": ["a"], **changes})


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("named", [{}, {"encoding": "utf-8"}], ids=["", "encoding"])
def test_a_file_of_another_kind_is_refused_with_what_to_do(name: str, named: dict[str, str]) -> None:
    data, what, how = CASES[name]
    with pytest.raises(JobFailed) as failed:
        detect(name, data, source(**named))
    assert failed.value.code == "source_invalid"
    assert what in str(failed.value), str(failed.value)
    assert how in str(failed.value.hint), str(failed.value.hint)


@pytest.mark.parametrize(
    "data",
    [bytes(500), random.Random(1).randbytes(5000), bytes(range(256)) * 9, b"\x93\x00\x01" * 99],
    ids=range(4),
)
def test_a_binary_file_is_refused_with_its_first_bytes(data: bytes) -> None:
    with pytest.raises(JobFailed, match=r"a\.bin") as failed:
        detect("a.bin", data, source())
    assert failed.value.code == "source_invalid"
    assert data[:4].hex(" ") in str(failed.value)


TEXTS: list[bytes] = [
    b"MZ,ORC,ID3\n1,2,3\n",
    b"ORC text\n",
    b"123\r\nabc\r\n",
    b"BZh is no bzip2\n",
    b"0123ftypDUCK\n",
    b'{"document_id": "a", "content": "%PDF-1.7 <html> PK\\u0003\\u0004"}\n',
    b'{"document_id": "a", "content": "x"}\n\x00\x00\n' + ROWS,
    b"",
    b"\n\n",
    "\u00ff\u00d8\u00ff\n".encode(),
]


@pytest.mark.parametrize("data", TEXTS, ids=range(len(TEXTS)))
def test_a_text_that_looks_like_another_kind_is_a_text(data: bytes) -> None:
    assert detect("a.jsonl", data, source(format="jsonl")).compression == "none"


def test_a_form_that_the_job_or_the_name_says_is_believed_for_markup() -> None:
    assert detect("a.html", b"<!DOCTYPE html>\n", source(format="jsonl"))
    assert detect("a.html", b"<!DOCTYPE html>\n", source(format="text")).records == "text"
    assert detect("a.md", b"<?xml version='1.0'?>\n", source()).records == "text"
