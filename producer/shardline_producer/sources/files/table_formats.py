"""Files of tables: Parquet and Arrow, recognised by their first bytes."""

from collections.abc import Mapping
from importlib.util import find_spec

from shardline_common.job.spec import FilesSource
from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.files.file_errors import source_invalid
from shardline_producer.sources.files.file_format import Compression, Records

INSTALL = "pip install 'shardline[parquet]'"

_PARQUET, _ENCRYPTED, _ARROW, _FEATHER_1 = b"PAR1", b"PARE", b"ARROW1\0\0", b"FEA1"
# The continuation marker of an Arrow stream; the length of a message follows, a multiple of 8.
_CONTINUATION = b"\xff\xff\xff\xff"
_MARKED = 8
_CONVERT_FEATHER = (
    'convert it with an old pyarrow: python -c "import pyarrow.feather as f; f.write_feather('
    "f.read_table('{name}'), '{name}.arrow')\""
)
_DECOMPRESS = {"gzip": "gunzip -k", "zstd": "zstd -d", "xz": "unxz -k", "bzip2": "bunzip2 -k"}
_NAMES: Mapping[str, str] = {"parquet": "Parquet", "arrow": "Arrow", "arrow_stream": "Arrow"}


def detect_table(path: str, head: bytes, source: FilesSource) -> Records | None:
    """The form of a file of tables that begins with `head`; None: it is another file.

    Raises:
        JobFailed: it cannot be read, it is not of the form that the job names, or pyarrow is not installed
            (`source_invalid`).
    """
    if head.startswith(_FEATHER_1):
        raise source_invalid(
            f"{shown_path(path)} is a Feather file of version 1, which pyarrow no longer reads",
            _CONVERT_FEATHER.format(name=shown_path(path)),
        )
    if head.startswith(_ENCRYPTED):
        raise encrypted(path)
    found = _table(head)
    wanted = source.format
    if wanted is not None and wanted != ("arrow" if found == "arrow_stream" else found):
        # A table is never text, and text never a table: to read it so would end in dead letters alone.
        if found is not None:
            raise source_invalid(
                f"{shown_path(path)} is a file of {_NAMES[found]}, and source.format says {wanted}",
                "leave out source.format: each file is then read by its first bytes",
            )
        if wanted in _NAMES:
            raise source_invalid(
                f"{shown_path(path)} is no file of {_NAMES[wanted]}: it does not begin like one",
                "leave out source.format: each file is then read by its first bytes",
            )
    if found is not None:
        check_installed(path, found)
    return found


def refuse_compressed_table(path: str, compression: Compression, head: bytes) -> None:
    """Refuse a compressed file whose text begins with `head` when that is a table: it has no random access.

    Raises:
        JobFailed: it is one (`source_invalid`).
    """
    if compression != "none" and (found := _table(head)) is not None:
        raise source_invalid(
            f"{shown_path(path)} is a file of {_NAMES[found]} that was compressed once more by {compression}",
            f"decompress it: {_DECOMPRESS.get(compression, 'decompress')} '{shown_path(path)}' "
            f"({_NAMES[found]} compresses its columns itself)",
        )


def check_installed(path: str, records: Records) -> None:
    """Check that pyarrow is there to read a file of this form.

    Raises:
        JobFailed: it is not (`source_invalid`).
    """
    try:
        there = find_spec("pyarrow") is not None
    except ValueError:
        there = False
    if not there:
        raise source_invalid(
            f"{shown_path(path)} is a file of {_NAMES[records]}, and the package pyarrow, which reads it, is "
            "not installed",
            INSTALL,
        )


def encrypted(path: str) -> Exception:
    """The error for a Parquet file that is encrypted."""
    return source_invalid(
        f"{shown_path(path)} is an encrypted Parquet file", "write it without encryption, and name that file"
    )


def _table(head: bytes) -> Records | None:
    if head.startswith(_PARQUET):
        return "parquet"
    if head.startswith(_ARROW):
        return "arrow"
    size = int.from_bytes(head[4:_MARKED], "little", signed=True)
    if head.startswith(_CONTINUATION) and len(head) > _MARKED and size > 0 and size % _MARKED == 0:
        return "arrow_stream"
    return None
