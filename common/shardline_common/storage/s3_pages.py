"""Answers that are not those of an S3 store: pages of proxies, of logins, and of servers of other protocols.

The client takes an HTML page for an empty list, and for a delete or a put that succeeded.
"""

import re
from typing import Any

from shardline_common.storage.s3_faults import NotS3Answer

# The name under which a foreign page is kept in a parsed error response.
FOREIGN = "ForeignPage"
# The name under which the id of a request is kept that stands in the body alone; the parser drops that one.
BODY_REQUEST_ID = "BodyRequestId"
# AWS's name, then those of rclone, S3Mock and moto.
_ROOTS = {
    "ListObjectsV2": {"ListBucketResult"},
    "ListObjectVersions": {"ListVersionsResult", "ListBucketVersionsResult", "ListBucketResult"},
    "GetBucketVersioning": {"VersioningConfiguration", "GetBucketVersioningResponse"},
    "DeleteObjects": {"DeleteResult"},
}
_MAY_BE_EMPTY = {"GetBucketVersioning", "ListObjectVersions"}
_ERRORS = {"Error", "ErrorResponse"}
_ROOT = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*<([\w:.-]+)", re.DOTALL)
_REQUEST_ID = re.compile(rb"<RequestId>([^<]{1,200})</RequestId>")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.DOTALL | re.IGNORECASE)
_TAGS = re.compile(r"<(script|style).*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_MULTIPLE_CHOICES = 300


def check_answer(
    operation_model: Any, response_dict: Any, customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Look at an answer before the client parses it; a handler of its event `before-parse`.

    Raises:
        NotS3Answer: the status is one of success, and the body or the headers are not those of S3.
    """
    body, status = response_dict.get("body"), response_dict["status_code"]
    name = operation_model.name
    if status >= _MULTIPLE_CHOICES:
        if isinstance(body, bytes) and body.strip():
            if _root(body) not in _ERRORS:
                customized_response_dict[FOREIGN] = page_text(body)
            elif found := _REQUEST_ID.search(body):
                customized_response_dict[BODY_REQUEST_ID] = found.group(1).decode(errors="replace")
        return
    if name in _ROOTS and isinstance(body, bytes) and _root(body) not in _ROOTS[name]:
        if not body.strip() and name in _MAY_BE_EMPTY:
            return
        raise NotS3Answer(f"status {status}: {page_text(body) or 'the body is empty'}")
    if name == "PutObject" and body and not response_dict["headers"].get("etag"):
        raise NotS3Answer(f"status {status} without an ETag: {page_text(body)}")


def page_text(body: bytes) -> str:
    """What a page says: its title, else its text."""
    text = body[: 1 << 14].decode(errors="replace")
    title = _TITLE.search(text)
    return " ".join((title.group(1) if title else _TAGS.sub(" ", text)).split())


def _root(body: bytes) -> str:
    found = _ROOT.match(body)
    return found.group(1).decode().rpartition(":")[2] if found else ""
