"""What a job may name when it is submitted through the gateway. Pure.

A job runs with the rights of the producer, and its rows are shown to those who may read datasets. So a user
could read through a job what the producer may read and the user may not. The command line has no such rule:
who may write to dataset.jobs is trusted.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from shardline.gateway.problems import Problem
from shardline.gateway.users import Permission, User
from shardline_common.errors import UsageError
from shardline_common.job.filters import filter_addresses
from shardline_common.job.names import Layout
from shardline_common.job.spec import FilesSource, JobSpec, ThemisSource, Uds3Source
from shardline_common.settings.load import Settings

_S3 = "s3://"
_WILDCARD = re.compile(r"[*?\[]")
_MAX_SHOWN = 200
_ELSEWHERE = "'{}' is in no bucket and prefix that jobs of the gateway may read (GATEWAY_S3_SOURCES)"
# A bucket, and behind it a key without the empty and the dot segments that a proxy could resolve.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")
# The fields of a job that name nothing to read besides the source, the datasets of `dedup.against` and the
# files of filters, which are checked. A later field is refused until somebody has decided what it may name.
_FIELDS = frozenset(
    {
        *("version", "job_id", "name", "source", "query", "quality", "format", "output", "dedup", "sample"),
        *("pii", "partitions", "slices", "max_document_bytes", "dead_letter_originals"),
        *("submitted_by", "purpose", "labels"),
    }
)


@dataclass(frozen=True, slots=True)
class S3Prefix:
    """A bucket and a prefix of keys, which ends with a slash or is empty."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the prefix of `s3://bucket` or `s3://bucket/prefix`. Raise ValueError for anything else."""
        bucket, _, key = text.removeprefix(_S3).partition("/")
        if not text.startswith(_S3) or not _BUCKET.fullmatch(bucket):
            raise ValueError("write s3://bucket or s3://bucket/prefix")
        prefix = key.strip("/")
        if prefix and (not _plain(prefix) or _WILDCARD.search(prefix)):
            raise ValueError("the prefix has wildcards, or segments that are empty or dots")
        return cls(bucket, f"{prefix}/" if prefix else "")

    def covers(self, bucket: str, key: str) -> bool:
        """Whether every key that the pattern matches lies below the prefix."""
        return bucket == self.bucket and _WILDCARD.split(key, maxsplit=1)[0].startswith(self.prefix)

    def touches(self, bucket: str, key: str) -> bool:
        """Whether the pattern may match a key below the prefix."""
        literal = _WILDCARD.split(key, maxsplit=1)[0]
        return bucket == self.bucket and (
            literal.startswith(self.prefix) or (literal != key and self.prefix.startswith(literal))
        )


def _plain(key: str) -> bool:
    return all(segment not in ("", ".", "..") for segment in key.split("/")) and key.isprintable()


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """The S3 prefixes that jobs may read, and the place of the datasets, which are read by other rules."""

    sources: tuple[S3Prefix, ...] = ()
    datasets: S3Prefix | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make the policy from the settings.

        Raises:
            UsageError: an entry of GATEWAY_S3_SOURCES is wrong.
        """
        sources = []
        for entry in filter(None, (entry.strip() for entry in settings.gateway_s3_sources.split(","))):
            try:
                sources.append(S3Prefix.parse(entry))
            except ValueError as error:
                raise UsageError(
                    f"GATEWAY_S3_SOURCES: {entry[:100]!r}: {error}",
                    hint="list buckets and prefixes as in s3://laws, s3://archive/2026/",
                ) from None
        own = None
        if settings.s3_bucket is not None:
            prefix = settings.s3_prefix.strip("/")
            own = S3Prefix(settings.s3_bucket, f"{prefix}/" if prefix else "")
        return cls(tuple(sources), own)

    def check(self, spec: JobSpec, user: User, known: Callable[[], Iterable[JobSpec]]) -> None:
        """Check what a job reads.

        Args:
            spec: the job.
            user: the user who submits it.
            known: returns the jobs whose datasets the gateway knows.

        Raises:
            Problem: 403, the job names what it or the user may not read.
            BrokerUnavailable: the jobs are not known now.
        """
        fields = type(spec).model_fields
        for name in fields.keys() - _FIELDS:
            if getattr(spec, name) != fields[name].get_default(call_default_factory=True):
                raise _refused(f"the field '{name}' cannot be set through the gateway")
        for address in spec.dedup.against if spec.dedup is not None else ():
            self._check_against(address, user, known)
        for path in filter_addresses(spec):
            self._check_path(path, user, known)
        source = spec.source
        if isinstance(source, Uds3Source | ThemisSource):
            # Where the store is, the settings of the producer say.
            return
        if not isinstance(source, FilesSource):
            raise _refused(f"the source '{spec.source.type}' cannot be read through the gateway")
        for path in source.paths:
            self._check_path(path, user, known)

    def _check_against(self, address: str, user: User, known: Callable[[], Iterable[JobSpec]]) -> None:
        """Check the address of a dataset whose texts are compared with those of the job."""
        shown = _shown(address)
        bucket, _, key = address.removeprefix(_S3).partition("/")
        key = key.removesuffix("/")
        if not address.startswith(_S3) or not _plain(key) or _WILDCARD.search(address):
            raise _refused(f"'{shown}' is not s3://bucket/prefix/NAME/ID, the address of a dataset")
        datasets = self.datasets
        if datasets is not None and datasets.touches(bucket, key):
            root = key.removeprefix(datasets.prefix) + "/"
            found = [spec for spec in known() if Layout.of(spec).root == root]
            if not found:
                raise _refused(f"'{shown}' is no dataset that the gateway knows")
            _check_reader(shown, user, found)
        elif not any(place.covers(bucket, f"{key}/") for place in self.sources):
            raise _refused(_ELSEWHERE.format(shown))

    def _check_path(self, path: str, user: User, known: Callable[[], Iterable[JobSpec]]) -> None:
        shown = _shown(path)
        bucket, _, key = path.removeprefix(_S3).partition("/")
        if not path.startswith(_S3):
            raise _refused(f"'{shown}' is not s3://bucket/key: a job of the gateway reads no local files")
        if not _plain(key):
            raise _refused(f"'{shown}' has segments that are empty, dots or not printable")
        datasets = self.datasets
        if datasets is not None and datasets.touches(bucket, key):
            own = key[len(datasets.prefix) :].split("/") if datasets.covers(bucket, key) else None
            if own is None or _is_bookkeeping(own):
                raise _refused(f"'{shown}' may match what Shardline keeps beside its datasets")
            if found := [spec for spec in known() if _may_match(own, spec)]:
                _check_dataset(shown, own, user, found)
                return
        if not any(place.covers(bucket, key) for place in self.sources):
            raise _refused(_ELSEWHERE.format(shown))


def _check_dataset(shown: str, pattern: Sequence[str], user: User, found: Sequence[JobSpec]) -> None:
    """Check a path that may match objects of these datasets."""
    _check_reader(shown, user, found)
    if len(pattern) < 4 or pattern[2] != "data" or _WILDCARD.search("".join(pattern[:3])):  # noqa: PLR2004
        raise _refused(f"'{shown}' may match more than the rows of one dataset: name NAME/ID/data/…")


def _check_reader(shown: str, user: User, found: Sequence[JobSpec]) -> None:
    if not user.has(Permission.READ):
        raise _refused(f"'{shown}' is in the dataset '{found[0].job_id}', which {user.name} may not read")


def _shown(address: str) -> str:
    return address[:_MAX_SHOWN] if address.isprintable() else repr(address[:_MAX_SHOWN])


def _is_bookkeeping(pattern: Sequence[str]) -> bool:
    # Acceptance records, exports and rankings are below names that begin with an underscore.
    first = pattern[0]
    literal = _WILDCARD.split(first, maxsplit=1)[0]
    return literal.startswith("_") or (not literal and first != literal)


def _may_match(pattern: Sequence[str], spec: JobSpec) -> bool:
    """Whether a pattern may match objects of a dataset: a wildcard matches no slash."""
    root = Layout.of(spec).root.rstrip("/").split("/")
    return len(pattern) > len(root) and all(map(fnmatchcase, root, pattern))


def _refused(reason: str) -> Problem:
    return Problem(403, f"{reason}; submit such a job with `shardline submit`")
