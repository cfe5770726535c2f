"""The deletion of all objects below a prefix of a bucket, and of their versions.

In a bucket with versioning a delete puts a delete marker over the object, and its bytes stay. Object lock
refuses the delete of a version, never that marker: a dataset is invisible at once, and still stored.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shardline_common.errors import StoreRefused, StoreUnavailable
from shardline_common.ports.store import KeptVersions
from shardline_common.storage.s3_checks import keeps_versions

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client as Client

    from shardline_common.storage.s3 import S3Client

_BATCH = 1000
# How many of the versions that stay are named, with the end of their lock.
_NAMED = 3
_NO_VERSIONS = {"NotImplemented", "MethodNotAllowed", "501", "405"}
# Of an entry in the answer: the store may delete it at the next try.
_BUSY = {"InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted", "RequestTimeout"}


async def purge(client: "S3Client", bucket: str, prefix: str, *, versions: bool) -> KeptVersions | None:
    """Delete as `ports.store.ObjectStore.purge`, with keys of the bucket."""
    deleted, markers, silent = await _delete_objects(client, bucket, prefix)
    if versions:
        return await _VersionPurge(client, bucket, prefix).run()
    if markers:
        return KeptVersions(markers)
    if not deleted:
        return None
    # The answers named no marker. Some stores put one without naming it, or do not name what they deleted.
    keeps = await keeps_versions(client, bucket)
    if keeps:
        return KeptVersions(deleted)
    return KeptVersions(silent, certain=False) if silent and keeps is None else None


async def _delete_objects(client: "S3Client", bucket: str, prefix: str) -> tuple[int, int, int]:
    """Delete objects. Returns how many, for how many a marker was put, and how many no answer names."""
    count = markers = silent = 0
    batch: list[dict[str, str]] = []

    async def flush() -> None:
        nonlocal count, markers, silent
        answer = await client.delete_entries(bucket, batch)
        for error in answer.get("Errors", []):
            raise client.undeleted(bucket, error)
        deleted = answer.get("Deleted", [])
        markers += sum(bool(entry.get("DeleteMarker")) for entry in deleted)
        silent += max(0, len(batch) - len(deleted))
        count += len(batch)
        batch.clear()

    async for info in client.list_bucket(bucket, prefix):
        batch.append({"Key": info.key})
        if len(batch) == _BATCH:
            await flush()
    if batch:
        await flush()
    return count, markers, silent


_Version = tuple[str, str]
"""The key and the id of a version or of a delete marker."""


@dataclass(slots=True)
class _VersionPurge:
    """Removes versions first, then the markers of keys that have no version left.

    A marker that was removed before its locked version would make the object visible again.
    """

    client: "S3Client"
    bucket: str
    prefix: str
    kept: set[_Version] = field(default_factory=set)
    named: list[str] = field(default_factory=list)
    refused: str = ""

    async def run(self) -> KeptVersions | None:
        try:
            await self._remove_all("Versions", set())
            await self._remove_all("DeleteMarkers", {key for key, _ in self.kept})
        except StoreRefused as error:
            # The objects are deleted. A right that is missing does not hold up the job's deletion.
            return KeptVersions(len(self.kept), certain=False, refused=str(error))
        if not self.kept:
            return None
        return KeptVersions(len(self.kept), named=tuple(self.named), refused=self.refused)

    async def _remove_all(self, kind: str, but: set[str]) -> None:
        """Remove what the store lists and does not refuse, except that of the keys `but`.

        A store may lose its place in the list when the version at the marker is removed, as moto does. So the
        list is read again until it has nothing more to remove.
        """
        before: set[_Version] = set()
        while True:
            removed: set[_Version] = set()
            async for page in self._pages(kind):
                found = [one for one in page if one not in self.kept and one[0] not in but]
                if again := before.intersection(found):
                    raise StoreUnavailable(
                        f"s3://{self.bucket}/{min(again)[0]} was removed, and the store still lists it",
                        hint="see the store's log",
                    )
                gone = await self._remove(found)
                # Those of the first page are enough to see that a list does not change.
                removed = removed or gone
            if not removed:
                return
            before = removed

    async def _pages(self, kind: str) -> AsyncIterator[list[_Version]]:
        marker: dict[str, Any] = {}
        while True:
            page = await self._page(marker)
            if page is None:
                return
            yield [(one["Key"], one["VersionId"]) for one in page.get(kind, [])]
            if not page.get("IsTruncated"):
                return
            names = [name for name in ("KeyMarker", "VersionIdMarker") if page.get(f"Next{name}")]
            following = {name: page[f"Next{name}"] for name in names}
            if not following or following == marker:
                where = f"s3://{self.bucket}/{self.prefix}"
                raise StoreUnavailable(
                    f"the list of versions below {where} does not say where it goes on",
                    hint="see the store's log",
                )
            marker = following

    async def _page(self, marker: dict[str, Any]) -> Any:
        async def ask(s3: "Client") -> Any:
            try:
                return await s3.list_object_versions(
                    Bucket=self.bucket, Prefix=self.prefix, MaxKeys=_BATCH, **marker
                )
            except ClientError as error:
                if error.response["Error"].get("Code") in _NO_VERSIONS:
                    return None
                raise

        return await self.client.call(self.bucket, f"list the versions of {self.prefix}", ask)

    async def _remove(self, found: Sequence[_Version]) -> set[_Version]:
        """Remove versions. Returns those that the store has not refused."""
        if not found:
            return set()
        entries = [{"Key": key, "VersionId": version} for key, version in found]
        answer = await self.client.delete_entries(self.bucket, entries)
        gone = {(entry["Key"], entry.get("VersionId", "")) for entry in answer.get("Deleted", [])}
        refused: set[_Version] = set()
        for error in answer.get("Errors", []):
            if error.get("Code") in _BUSY:
                raise self.client.undeleted(self.bucket, error)
            key, version = error.get("Key", ""), error.get("VersionId", "")
            # moto does not name the version: any of the key that it does not name as deleted.
            ones = {one for one in found if one[0] == key and (one[1] == version or not version)} - gone
            for one in sorted(ones - refused):
                await self._name(one, error)
            refused |= ones
        self.kept |= refused
        return set(found) - refused

    async def _name(self, one: _Version, error: dict[str, str]) -> None:
        if len(self.named) == _NAMED:
            return
        until, message = await self._locked(*one), error.get("Message", "")
        if until is None and "object lock" in message.lower():
            # versitygw applies the bucket's default retention without telling its end.
            until = "until an end that the store does not tell"
        if until is None:
            self.refused = self.refused or f"{error.get('Code')}: {message}".strip(": ")
        else:
            self.named.append(f"{one[0]} {until}")

    async def _locked(self, key: str, version: str) -> str | None:
        """Until when a version is locked, as words; None when the store does not say that it is."""

        async def ask(s3: "Client") -> str | None:
            try:
                head = await s3.head_object(Bucket=self.bucket, Key=key, VersionId=version)
            except ClientError:
                # No right to read the version or its lock.
                return None
            if head.get("ObjectLockLegalHoldStatus") == "ON":
                return "until its legal hold is released"
            until = head.get("ObjectLockRetainUntilDate")
            return None if until is None or until <= datetime.now(UTC) else f"until {_iso(until)}"

        return await self.client.call(self.bucket, f"ask for the lock of {key}", ask)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds")
