"""The attachments of a CouchDB document: which has the text, whether all of it came, and its text. Pure."""

import codecs
import zlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from hashlib import md5
from typing import Any

from shardline_common.http.client import HttpResponse
from shardline_common.job.messages import MAX_ORIGINAL_BYTES
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.uds3.body_limit import too_large
from shardline_producer.sources.uds3.store_ports import InvalidBody

_BYTE_TYPES = ("application/octet-stream", "binary/octet-stream")
_PDF = b"%PDF-"
_MD5 = "md5-"
_GZIP = ("gzip", "x-gzip")
_GZIP_OR_ZLIB_BITS = zlib.MAX_WBITS | 32


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment of a document, by its stub. `charset` is that of its content type, else UTF-8.

    `size` is the number of its bytes, `digest` names their hash; None: the document does not say it.
    `encoding`: the server keeps it compressed, and `digest` is that of the compressed bytes; "": it does not.
    """

    name: str
    type: str
    charset: str
    size: int | None = None
    digest: str | None = None
    encoding: str = ""

    @property
    def is_text(self) -> bool:
        """Whether its type is text."""
        return self.type.startswith("text/")

    @property
    def is_bytes(self) -> bool:
        """Whether its type is the general type of bytes."""
        return self.type in _BYTE_TYPES


def text_attachment(document: Mapping[str, Any]) -> Attachment | InvalidBody | None:
    """The attachment with the text: the first of type text, else the first of type bytes, by name.

    Returns NO_TEXT if all attachments have other types, None if there is no attachment.
    """
    stubs = document.get("_attachments") or {}
    attachments = [_attachment(name, stub) for name, stub in sorted(stubs.items())]
    chosen = next((item for item in attachments if item.is_text), None)
    chosen = chosen or next((item for item in attachments if item.is_bytes), None)
    return chosen or (InvalidBody(DeadLetterReason.NO_TEXT) if attachments else None)


def _attachment(name: str, stub: Mapping[str, Any]) -> Attachment:
    content_type = str(stub.get("content_type") or _BYTE_TYPES[0])
    header = Message()
    header["Content-Type"] = content_type
    charset = header.get_content_charset() or "utf-8"
    try:
        # utf-8-sig drops a byte order mark, which is not part of the text.
        charset = "utf-8-sig" if codecs.lookup(charset).name == "utf-8" else charset
    except LookupError:
        charset = "utf-8-sig"
    length, digest = stub.get("length"), stub.get("digest")
    return Attachment(
        name,
        content_type.partition(";")[0].strip().lower(),
        charset,
        length if isinstance(length, int) else None,
        digest if isinstance(digest, str) else None,
        str(stub.get("encoding") or "").lower(),
    )


def attachment_fault(attachment: Attachment, max_bytes: int, response: HttpResponse) -> str | None:
    """Why the body of a response is not the whole attachment; None when it is, or is over the limit.

    Its length, and the hash of its bytes, must be those of the stub. CouchDB keeps text compressed, and
    hashes the compressed bytes, which it sends as they are to a client that accepts them.
    """
    name = f"the attachment '{attachment.name}'"
    if attachment.size is not None and attachment.size > max_bytes:
        return None
    data = content_of(response, max_bytes)
    if data is None:
        return f"{name} cannot be decompressed to its end"
    if attachment.size is not None and len(data) != attachment.size:
        return f"it sent {len(data)} of {attachment.size} bytes of {name}"
    digest = attachment.digest or ""
    if not digest.startswith(_MD5) or digest in (_md5(data), _md5(response.body)):
        return None
    if attachment.encoding and response.encoding not in _GZIP:
        # A proxy has decompressed it: nobody has the bytes of the hash. Its length is compared.
        return None
    return f"the bytes of {name} have another hash than its document says"


def _md5(data: bytes) -> str:
    return _MD5 + b64encode(md5(data, usedforsecurity=False).digest()).decode()


def content_of(response: HttpResponse, max_bytes: int) -> bytes | None:
    """The bytes of an attachment, decompressed; None if they end within the compressed ones.

    At most one byte more than `max_bytes` is decompressed: a small response may hold a text of any length.
    """
    if response.encoding not in _GZIP:
        return response.body
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB_BITS)
    try:
        data = decoder.decompress(response.body, max_bytes + 1)
    except zlib.error:
        return None
    return data if decoder.eof or len(data) > max_bytes else None


def decode_attachment(attachment: Attachment, data: bytes, max_bytes: int) -> str | InvalidBody:
    """The text of an attachment's bytes. Bytes without a type are text only if they are UTF-8."""
    start = data[:MAX_ORIGINAL_BYTES]
    if len(data) > max_bytes:
        return too_large(start)
    if data.startswith(_PDF):
        return InvalidBody(DeadLetterReason.NO_TEXT, start)
    try:
        return data.decode(attachment.charset)
    except UnicodeDecodeError:
        is_text = attachment.is_text
        return InvalidBody(DeadLetterReason.INVALID_UTF8 if is_text else DeadLetterReason.NO_TEXT, start)
