"""Files that hold no text that is read: what they are, and the command that converts them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from shardline_common.job.spec import FilesSource
from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.files.compressed_members import MEMBERS
from shardline_producer.sources.files.detected_encoding import CONTROL
from shardline_producer.sources.files.file_errors import source_invalid
from shardline_producer.sources.files.file_format import Compression
from shardline_producer.sources.files.file_locations import is_remote
from shardline_producer.sources.files.file_names import is_named_text

_STEM = re.compile(r"(\.(jsonl|ndjson|json|csv|tsv|txt|gz|zst|xz|bz2|tar|tgz|zip))+$", re.IGNORECASE)
# The shortest file of each compression is decompressed by these.
_DECOMPRESS: dict[Compression, str] = {
    "gzip": "gzip -dc",
    "zstd": "zstd -dc",
    "xz": "xz -dc",
    "bzip2": "bzip2 -dc",
}
_ENDINGS: dict[Compression, str] = {"gzip": "gz", "zstd": "zst", "xz": "xz", "bzip2": "bz2"}
_TO_TEXT = "libreoffice --headless --convert-to txt:Text --outdir converted {file}"
_TO_CSV = "libreoffice --headless --convert-to csv --outdir converted {file}"
_TO_PDF = (
    "libreoffice --headless --convert-to pdf --outdir converted {file} "
    "&& pdftotext converted/{base}.pdf {stem}.txt"
)
_PANDOC = "pandoc -t plain -o {stem}.txt {file}"
_IMAGE = "tesseract {file} {stem}"
_TRANSCRIBE = "whisper {file} --output_format txt"
_NO_DOCUMENTS = "name the files with the documents"
_OTHER = "export it as JSON lines, CSV or Parquet, and name that file"


@dataclass(frozen=True, slots=True)
class _Foreign:
    """What a file is, and what to do: a command with {file} and {stem}, or a sentence."""

    name: str
    hint: str = _OTHER


# The place of some bytes, and the bytes. Letters decide only in a file that is no text.
_MAGICS: tuple[tuple[int, bytes, _Foreign], ...] = (
    (0, b"%PDF-", _Foreign("a PDF", "pdftotext {file} {stem}.txt")),
    (0, b"%!PS", _Foreign("PostScript", "ps2ascii {file} {stem}.txt")),
    (0, b"{\\rtf", _Foreign("RTF", _TO_TEXT)),
    (0, b"7z\xbc\xaf\x27\x1c", _Foreign("a 7z archive", "7z x -so {file} > {stem}.jsonl")),
    (0, b"Rar!\x1a\x07", _Foreign("a rar archive", "unrar p -inul {file} > {stem}.jsonl")),
    (0, b"\x04\x22\x4d\x18", _Foreign("lz4", "lz4 -dc {file} > {stem}.jsonl")),
    (0, b"\xff\x06\x00\x00sNaPpY", _Foreign("snappy", "snzip -dc {file} > {stem}.jsonl")),
    (0, b"LZIP\x01", _Foreign("lzip", "lzip -dc {file} > {stem}.jsonl")),
    (0, b"\x89LZO\x00", _Foreign("lzop", "lzop -dc {file} > {stem}.jsonl")),
    (0, b"\x1f\x9d", _Foreign("compressed by compress", "gzip -dc {file} > {stem}.jsonl")),
    (0, b"\x5d\x00\x00", _Foreign("lzma without a container", "xz --format=lzma -dc {file} > {stem}.jsonl")),
    (
        0,
        b"SQLite format 3\x00",
        _Foreign("a SQLite database", "sqlite3 -json {file} 'SELECT * FROM <table>' > {stem}.json"),
    ),
    (
        8,
        b"DUCK",
        _Foreign("a DuckDB database", "duckdb {file} \"COPY <table> TO '{stem}.jsonl' (FORMAT json)\""),
    ),
    (
        0,
        b"Obj\x01",
        _Foreign(
            "Avro",
            "duckdb -c \"INSTALL avro; LOAD avro; COPY (FROM read_avro('{file}')) "
            "TO '{stem}.jsonl' (FORMAT json)\"",
        ),
    ),
    (0, b"\x89HDF\r\n\x1a\n", _Foreign("HDF5")),
    (0, b"\x93NUMPY", _Foreign("a NumPy array")),
    (0, b"\x89PNG\r\n\x1a\n", _Foreign("an image (PNG)", _IMAGE)),
    (0, b"\xff\xd8\xff", _Foreign("an image (JPEG)", _IMAGE)),
    (0, b"GIF87a", _Foreign("an image (GIF)", _IMAGE)),
    (0, b"GIF89a", _Foreign("an image (GIF)", _IMAGE)),
    (0, b"II*\x00", _Foreign("an image (TIFF)", _IMAGE)),
    (0, b"MM\x00*", _Foreign("an image (TIFF)", _IMAGE)),
    (8, b"WEBP", _Foreign("an image (WebP)", _IMAGE)),
    (0, b"ID3", _Foreign("a sound (MP3)", _TRANSCRIBE)),
    (8, b"WAVE", _Foreign("a sound (WAV)", _TRANSCRIBE)),
    (0, b"OggS", _Foreign("a sound (Ogg)", _TRANSCRIBE)),
    (0, b"fLaC", _Foreign("a sound (FLAC)", _TRANSCRIBE)),
    (4, b"ftyp", _Foreign("a video or a sound (MP4)", _TRANSCRIBE)),
    (0, b"\x7fELF", _Foreign("a program (ELF)", _NO_DOCUMENTS)),
    (0, b"\xca\xfe\xba\xbe", _Foreign("a program", _NO_DOCUMENTS)),
    (0, b"MZ", _Foreign("a program (Windows)", _NO_DOCUMENTS)),
    (
        0,
        b"ORC",
        _Foreign(
            "ORC",
            'python -c "import pyarrow.orc as o, pyarrow.parquet as p; '
            "p.write_table(o.read_table('{file}'), '{stem}.parquet')\"",
        ),
    ),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95.{8})?[\]\(\}Cc\x8c)XKq\x93]", re.DOTALL)
_PICKLED = _Foreign(
    "a Python pickle",
    'python -c "import pandas as p; '
    "p.read_pickle('{file}').to_json('{stem}.jsonl', orient='records', lines=True)\", if you trust the file: "
    "to read it runs the code in it",
)
_LFS = b"version https://git-lfs.github.com/spec/"
# The size of a chunk, and behind its bytes the size of the next one.
_AWS_CHUNKED = re.compile(rb"([0-9a-fA-F]{1,8})(;chunk-signature=[0-9a-f]{64})?\r\n")
_AWS_NEXT = re.compile(rb"\r\n[0-9a-fA-F]{1,8}(;chunk-signature=[0-9a-f]{64})?\r\n")
_CHUNKED = _Foreign(
    "an object that holds the chunks of its upload (aws-chunked)",
    "upload the file again with `aws s3 cp`, or with a client that the store understands",
)
_HTML = _Foreign("HTML", _PANDOC)
_XML = _Foreign("XML", "xq -c '.<root>.<document>[]' {file} > {stem}.jsonl, with the names of its elements")
_UNTAR_ONE = "tar -xOf {file} > {stem}.jsonl"
_UNTAR = "tar -xf {file}, and name the files that were in it"
_TEXTS = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".md"}
_MARKUP = re.compile(
    rb"\s*(?:<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|\?xml|!doctype|rss|feed)\b",
    re.IGNORECASE | re.DOTALL,
)

_OFFICE: tuple[tuple[bytes, _Foreign], ...] = (
    (b"word/", _Foreign("a Word document (docx)", _TO_TEXT)),
    (b"xl/", _Foreign("an Excel workbook (xlsx)", _TO_CSV)),
    (b"ppt/", _Foreign("a presentation (pptx)", _TO_PDF)),
)
_MIME_TYPES: tuple[tuple[bytes, _Foreign], ...] = (
    (b"application/vnd.oasis.opendocument.text", _Foreign("an OpenDocument text (odt)", _TO_TEXT)),
    (b"application/vnd.oasis.opendocument.spreadsheet", _Foreign("an OpenDocument table (ods)", _TO_CSV)),
    (b"application/vnd.oasis.opendocument", _Foreign("an OpenDocument file", _TO_PDF)),
    (b"application/epub+zip", _Foreign("a book (epub)", _PANDOC)),
)
_ZIP_MEMBER, _ZIP_NAME = b"PK\x03\x04", 30
_EMPTY_ZIP = b"PK\x05\x06"
_WRITTEN = re.compile(r"{stem}((?:\.\w+)?)")
_TAR_BLOCK, _TAR_SUM = 512, slice(148, 156)


def refuse_foreign(path: str, compression: Compression, head: bytes, source: FilesSource) -> None:
    """Refuse a file that is no text that is read; decompressed, it begins with `head`.

    Raises:
        JobFailed: the message says what it is, the hint how to convert it (`source_invalid`).
    """
    for inner, members in MEMBERS.items():
        if compression != "none" and members.begins(head):
            raise source_invalid(
                f"{shown_path(path)} is compressed twice, by {inner} and then by {compression}",
                _command(f"{_DECOMPRESS[compression]} {{file}} > {{stem}}.{_ENDINGS[inner]}", path),
            )
    if (found := _foreign(path, head, source)) is None:
        return
    if compression == "none" or "tar -x" in found.hint:
        hint = _command(found.hint, path)
    else:
        unpacked = f"{_DECOMPRESS[compression]} {{file}} > {{stem}}.bin && "
        hint = _command(unpacked + found.hint.replace("{file}", "{stem}.bin"), path)
    raise source_invalid(f"{shown_path(path)} is {found.name}, which is not read", hint)


def _foreign(path: str, head: bytes, source: FilesSource) -> _Foreign | None:
    found = _by_magic(head) or _archive(head) or _text(head)
    # Markup is text too, for a job or a name that says so.
    is_text = source.format is not None or is_named_text(path)
    return found or (None if is_text else _markup(head))


def _by_magic(head: bytes) -> _Foreign | None:
    is_binary = CONTROL.search(head[:_TAR_BLOCK]) is not None
    for at, magic, found in _MAGICS:
        if head.startswith(magic, at) and (is_binary or not magic.isalnum()):
            return found
    return _PICKLED if _PICKLE.match(head) else None


def _archive(head: bytes) -> _Foreign | None:
    if head.startswith((_ZIP_MEMBER, _EMPTY_ZIP)):
        return _zipped(head)
    if head.startswith(_OLE):
        return _ole(head)
    if not _is_tar(head):
        return None
    name = head[:100].rstrip(b"\0").lower()
    return _Foreign("a tar archive", _UNTAR_ONE if name.endswith((b".jsonl", b".ndjson")) else _UNTAR)


def _text(head: bytes) -> _Foreign | None:
    if head.startswith(_LFS):
        return _Foreign("a pointer of Git LFS, not the file itself", "git lfs pull --include {file}")
    return _CHUNKED if _is_aws_chunked(head) else None


def _markup(head: bytes) -> _Foreign | None:
    if (found := _MARKUP.match(head)) is None:
        return None
    return _HTML if found[1].lower().endswith((b"html", b"head", b"body")) else _XML


def _zipped(head: bytes) -> _Foreign:
    names = _zip_names(head)
    if names[:1] == [b"mimetype"]:
        for kind, found in _MIME_TYPES:
            if kind in head[:200]:
                return found
    if b"[Content_Types].xml" in names:
        for folder, found in _OFFICE:
            if any(name.startswith(folder) for name in names):
                return found
    if any(name.endswith(b"/data.pkl") for name in names):
        return _Foreign("a PyTorch file")
    if names and all(name.endswith(b".npy") for name in names):
        return _Foreign("a file of NumPy arrays (npz)")
    # Names may be in any encoding.
    suffixes = [PurePosixPath(name.decode(errors="replace")).suffix for name in names]
    if len(names) == 1 and (suffix := suffixes[0]) in _TEXTS:
        return _Foreign("a zip archive", f"unzip -p {{file}} > {{stem}}{suffix}")
    return _Foreign("a zip archive", "unzip {file} -d {stem}, and name the files in it")


def _zip_names(head: bytes) -> list[bytes]:
    names, at = [], head.find(_ZIP_MEMBER)
    while at >= 0:
        length = int.from_bytes(head[at + 26 : at + 28], "little")
        names.append(head[at + _ZIP_NAME : at + _ZIP_NAME + length])
        at = head.find(_ZIP_MEMBER, at + _ZIP_NAME)
    return names


def _ole(head: bytes) -> _Foreign:
    for stream, name, hint in (
        ("WordDocument", "a Word document (doc)", _TO_TEXT),
        ("Workbook", "an Excel workbook (xls)", _TO_CSV),
        ("PowerPoint Document", "a presentation (ppt)", _TO_PDF),
    ):
        if stream.encode("utf-16-le") in head:
            return _Foreign(name, hint)
    # The names of its parts may stand behind the first bytes.
    return _Foreign("a file of Microsoft Office (doc, xls, ppt, msg)", _TO_PDF)


def _is_tar(head: bytes) -> bool:
    """Whether the first block of a tar archive has its checksum."""
    block = head[:_TAR_BLOCK]
    if len(block) < _TAR_BLOCK or not block[0]:
        return False
    digits = block[_TAR_SUM].strip(b" \0")
    wanted = sum(block) - sum(block[_TAR_SUM]) + 8 * ord(" ")
    return digits.isdigit() and digits.translate(None, b"89") == digits and int(digits, 8) == wanted


def _is_aws_chunked(head: bytes) -> bool:
    if (size := _AWS_CHUNKED.match(head)) is None:
        return False
    end = size.end() + int(size[1], 16)
    return size[2] is not None or _AWS_NEXT.match(head, end) is not None


def _command(hint: str, path: str) -> str:
    """The hint with the names of the file and of what it becomes."""
    name, fetch = path, ""
    if is_remote(path):
        name, fetch = PurePosixPath(path).name, f"aws s3 cp {shlex.quote(path)} . && "
    if "{file}" not in hint:
        return hint
    stem = _STEM.sub("", name)
    if stem in (name, ""):
        stem = str(PurePosixPath(name).with_suffix(""))
    # A shell empties the file that it writes before it starts the program that reads.
    while any(f"{stem}{suffix}" == name for suffix in _WRITTEN.findall(hint)):
        stem += "-1"
    base = shlex.quote(PurePosixPath(name).stem)
    if "'{file}'" in hint and shlex.quote(name).strip("'") != name:
        # A name that ends the quotes of the command.
        name = stem = "<file>"
    elif "'{file}'" not in hint:
        name, stem = shlex.quote(name), shlex.quote(stem)
    return fetch + hint.replace("{file}", name).replace("{stem}", stem).replace("{base}", base)
