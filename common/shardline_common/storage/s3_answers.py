"""What S3 answers to a read: each answer is compared with the object that was asked for, or refused."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

from shardline_common.ports.store import ObjectInfo

_OK, _PARTIAL = 200, 206
_MAX_MESSAGE = 500
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)")
_MD5 = re.compile(r"[0-9a-f]{32}")


class WrongAnswer(Exception):
    """An answer that is not what was asked for. The request is repeated.

    `changed`: the object itself may be another one than the one asked for.
    """

    def __init__(self, message: str, *, changed: bool = False) -> None:
        # Headers and keys of an answer may be long.
        super().__init__(message[:_MAX_MESSAGE])
        self.changed = changed


@dataclass(slots=True)
class Reading:
    """An object that is read to its end or to before `end`, and how far the read has come.

    `size` is the number of its bytes and `etag` its version; None and "" are not known yet, and are taken
    from the first answer. `offset` is the next byte to read. `frozen`: a plan holds size and ETag.
    `body_end` is the byte behind the last one of the accepted answer.
    """

    bucket: str
    key: str
    what: str
    offset: int = 0
    size: int | None = None
    etag: str = ""
    frozen: bool = False
    needs_length: bool = False
    end: int | None = None
    body_end: int = 0

    @property
    def first(self) -> int:
        """The first byte to ask for.

        At the end it is the last byte, which shows that the object is still the same. A store answers 416 to
        a range behind it, and does not say which object it has.
        """
        if self.size is None or self.offset < self.size:
            return self.offset
        return max(0, self.size - 1)

    @property
    def goal(self) -> int:
        """The byte behind the last one to read. Call it when the size is known."""
        size = self.size or 0
        return size if self.end is None else min(size, self.end)

    def unpacked(self, length: int) -> str:
        """What a length over that of the same version may mean, as the end of a sentence."""
        is_longer = self.size is not None and length > self.size
        return " (was it unpacked on its way? its ETag is the same)" if self.etag and is_longer else ""

    @property
    def parameters(self) -> dict[str, str]:
        """The condition and the range of the next request."""
        found = {"IfMatch": self.etag} if self.etag else {}
        if self.end is not None:
            found["Range"] = f"bytes={self.first}-{self.end - 1}"
        elif self.first or self.needs_length:
            found["Range"] = f"bytes={self.first}-"
        return found

    def accept(self, response: Mapping[str, Any]) -> int:
        """Check the headers of an answer. Returns how many of its first bytes are before `offset`.

        Raises:
            WrongAnswer: it is no object, another object, or another part of it.
        """
        status = response["ResponseMetadata"]["HTTPStatusCode"]
        headers = response["ResponseMetadata"]["HTTPHeaders"]
        etag = response.get("ETag") or ""
        self._check_etag(etag, status)
        sent = response.get("ContentLength")
        behind = 0
        if status == _PARTIAL:
            start, behind, length = self._partial(response.get("ContentRange") or "", sent)
        elif status == _OK:
            # A store may ignore the range, and send the whole object.
            start, length = 0, sent
        else:
            raise WrongAnswer(f"the answer has the status {status}: it is not the object")
        encoding = _encoding(headers)
        # The encoding may be that of the object itself. Its length is then that of the stored bytes.
        if sent is None and encoding:
            raise WrongAnswer(f"the answer was compressed on its way ({encoding}), and has no length")
        if length is None and self.size is None:
            self.needs_length = True
            raise WrongAnswer("the answer does not say how long the object is")
        if length is not None and self.size is not None and length != self.size:
            how = f" (it has the Content-Encoding {encoding})" if encoding else ""
            how, why = f"{length} bytes{how}", self.unpacked(length)
            raise WrongAnswer(
                f"the answer is of an object of {how}, it has {self.size}{why}",
                changed=length > self.size and not encoding,
            )
        self.etag, self.size = self.etag or etag, length if self.size is None else self.size
        if behind > self.goal:
            raise WrongAnswer(f"the answer goes on to byte {behind}, {self.goal} is where it must end")
        self.body_end = self.size or 0 if status == _OK else self.goal
        return self.offset - start

    def _check_etag(self, found: str, status: int) -> None:
        # Stores and proxies answer 200 with an error in the body. Such an answer has no ETag.
        if not found and (self.etag or not self.frozen):
            raise WrongAnswer(f"the answer has the status {status} and no ETag: it is not the object")
        if self.etag and plain_etag(found) != plain_etag(self.etag):
            raise WrongAnswer(f"the answer has the ETag {found}, not {self.etag}", changed=True)

    def _partial(self, content_range: str, sent: int | None) -> tuple[int, int, int | None]:
        """The first byte of a part of the object, the byte behind it, and the object's length if known."""
        match = _RANGE.fullmatch(content_range)
        if match is None:
            raise WrongAnswer(f"a part of the object came with the Content-Range {content_range!r}")
        start, length = int(match[1]), int(match[2]) + 1 - int(match[1])
        if start != self.first:
            raise WrongAnswer(f"the answer starts at byte {start}, byte {self.first} was asked for")
        if sent not in (None, length):
            raise WrongAnswer(
                f"{sent} bytes were sent as the {length} of the Content-Range {content_range!r}"
            )
        return start, start + length, None if match[3] == "*" else int(match[3])

    def is_at_end(self, headers: Mapping[str, str]) -> bool:
        """Whether the answer 416 means that no byte is left.

        Raises:
            WrongAnswer: there must be one.
        """
        match = _UNSATISFIED.fullmatch(headers.get("content-range", ""))
        length = int(match[1]) if match else None
        if self.size is not None or (length is not None and length > self.first):
            message = f"the answer says that byte {self.first} is behind the end of the object"
            raise WrongAnswer(message, changed=self.size is not None)
        return True


def _encoding(headers: Mapping[str, str]) -> str:
    """The Content-Encoding, or "" where the body has none. Raises WrongAnswer for a compressed transfer."""
    transfer = headers.get("transfer-encoding", "").lower().replace(" ", "")
    if transfer not in ("", "chunked", "identity"):
        raise WrongAnswer(f"the answer has the Transfer-Encoding {transfer}")
    content = headers.get("content-encoding", "").lower()
    return "" if content in ("identity", "aws-chunked") else content


def plain_etag(etag: str) -> str:
    """An ETag without quotes. A proxy that compresses marks it as weak."""
    return etag.removeprefix("W/").strip('"')


def has_md5(etag: str, headers: Mapping[str, str], body: bytes) -> bool | None:
    """Whether the MD5 of a body is the ETag of its object; None where the ETag is no MD5.

    It is one of objects that were put whole, unencrypted or with keys of the store itself. Parts add a
    number to it.
    """
    expected = plain_etag(etag).lower()
    encryption = headers.get("x-amz-server-side-encryption", "AES256")
    customer = any(name.startswith("x-amz-server-side-encryption-customer") for name in headers)
    if _MD5.fullmatch(expected) is None or encryption != "AES256" or customer:
        return None
    return md5(body, usedforsecurity=False).hexdigest() == expected


@dataclass(slots=True)
class Listing:
    """A listing that is read page by page, and how far it has come.

    `ordered`: the keys of one folder must rise in byte order; stores order folders among files differently,
    and some have no order at all. `behind` is the last key, `token` names the next page. `idle` are the
    tokens since the last key, `first_keys` the first keys of the pages so far.
    """

    bucket: str
    prefix: str
    behind: str
    ordered: bool = False
    token: str = ""
    ended: bool = False
    idle: frozenset[str] = frozenset()
    first_keys: set[str] = field(default_factory=set)

    @property
    def parameters(self) -> dict[str, str]:
        """What names the next page."""
        return {"ContinuationToken": self.token} if self.token else {"StartAfter": self.behind}

    def accept(self, page: Mapping[str, Any]) -> list[ObjectInfo]:
        """Check a page, and go on behind it. Returns its objects.

        Raises:
            WrongAnswer: it is no page or a part of one, was read before, or does not name the next one.
        """
        if "IsTruncated" not in page:
            raise WrongAnswer("the answer is no list of objects")
        try:
            found = [
                ObjectInfo(item["Key"], item["Size"], item.get("ETag", ""))
                for item in page.get("Contents", [])
            ]
        except KeyError as error:
            raise WrongAnswer(f"the list names an object without its {error.args[0]}") from None
        # Some stores leave the count out, or do not compute it.
        count = page.get("KeyCount", 0)
        if count and count != len(found):
            raise WrongAnswer(f"the list has {len(found)} objects, and says that it has {count}")
        self._check_keys(found)
        token = self._next(page, found) if page["IsTruncated"] else ""
        self.first_keys.update(info.key for info in found[:1])
        self.ended = not page["IsTruncated"]
        self.idle = frozenset() if found else self.idle | {token}
        self.token, self.behind = token, found[-1].key if found else self.behind
        return found

    def _next(self, page: Mapping[str, Any], found: Sequence[ObjectInfo]) -> str:
        token = str(page.get("NextContinuationToken") or "")
        if not token and not found:
            raise WrongAnswer("the list goes on, and does not say where")
        if token and (token == self.token or token in self.idle):
            raise WrongAnswer("the list goes on at a page that was read before")
        return token

    def _check_keys(self, found: Sequence[ObjectInfo]) -> None:
        before = self.behind
        for key in [info.key for info in found]:
            if not key.startswith(self.prefix):
                raise WrongAnswer(f"the list has {key!r}, which is not below {self.prefix!r}")
            same_folder = before and before.rpartition("/")[0] == key.rpartition("/")[0]
            if self.ordered and same_folder and before.encode() >= key.encode():
                raise WrongAnswer(f"the list has {key!r} behind {before!r}: twice, or out of order")
            before = key
        if found and found[0].key in self.first_keys:
            raise WrongAnswer(f"the list has a page that was read before: it begins with {found[0].key!r}")
