"""The error tree. Every error that Shardline raises on purpose is one of these.

```
ShardlineError                 an error that a user can act on: a message, and a hint for what to do
├── UsageError                 the command, job or setting is wrong (exit 2)
│   ├── JobInvalid             a job message does not fit the schema
│   ├── JobConflict            the job id belongs to another job
│   └── JobUnknown             no job has this id
├── ServiceUnavailable         a service cannot be reached or refuses (exit 3)
│   ├── BrokerUnavailable
│   │   ├── BrokerRefused      Kafka answers and refuses, until a setting or a right is changed
│   │   ├── Fenced             a newer producer of the job has started
│   │   ├── TopicMissing       the topic does not exist
│   │   └── OffsetOutOfRange   the log does not hold that offset
│   ├── StoreUnavailable
│   │   └── StoreRefused       no such bucket, no rights: a retry alone changes nothing
│   ├── SourceUnavailable      the store that a job reads from
│   └── SpoolError             the spool folder cannot be written
├── ObjectExists               a create-only put found an object under the key
├── ObjectMissing              no object has this key
└── JobFailed                  the attempt cannot continue (exit 1); `code` is one of FailureCode
    └── DatasetBroken          `verify` found a fault
```
"""

from enum import StrEnum


class FailureCode(StrEnum):
    """Why an attempt failed; written into its outcome record and shown by `status`."""

    SOURCE_CHANGED = "source_changed"
    SOURCE_INVALID = "source_invalid"
    SOURCE_UNREACHABLE = "source_unreachable"
    TOPIC_LOST = "topic_lost"
    TOPIC_UNSUITABLE = "topic_unsuitable"
    TOO_MANY_DEAD_LETTERS = "too_many_dead_letters"
    ALL_DEAD = "all_dead"
    NOT_REPRODUCIBLE = "not_reproducible"
    OUTPUT_NOT_EMPTY = "output_not_empty"
    OBJECT_LOST = "object_lost"
    DATASET_DAMAGED = "dataset_damaged"
    SEQUENCE_GAP = "sequence_gap"
    CONSERVATION = "conservation"
    SPOOL = "spool"
    BROKER_REFUSED = "broker_refused"
    STORE_INCONSISTENT = "store_inconsistent"
    EXTRA_MISSING = "extra_missing"
    DUPLICATE_IDS = "duplicate_ids"
    TOO_FEW_ROWS = "too_few_rows"
    FILTER_FAILED = "filter_failed"
    INTERNAL = "internal"


class ShardlineError(Exception):
    """An error with a sentence for the user, and in `hint` one thing to do about it (or None)."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def leaf_of(error: BaseException) -> BaseException:
    """The first error in a group, at any depth; the error itself when it is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def explain(error: ShardlineError) -> str:
    """The message of an error with its hint, as one line."""
    return f"{error}; {error.hint}" if error.hint else str(error)


class UsageError(ShardlineError):
    """The command, job or setting is wrong."""


class JobInvalid(UsageError):
    """A job message does not fit the schema."""


class JobConflict(UsageError):
    """The job id belongs to another job, which is untouched. `fields` are the paths of those that differ."""

    def __init__(self, message: str, *, hint: str | None = None, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.fields = fields


class JobUnknown(UsageError):
    """No job has this id."""


class ServiceUnavailable(ShardlineError):
    """A service cannot be reached, or cannot serve now. The call may be repeated.

    `cause` is the same text for all failures of one cause, whatever was requested: the log has one line of
    each in 30 seconds. By default it is the message.
    """

    def __init__(self, message: str, *, hint: str | None = None, cause: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause or message


class BrokerUnavailable(ServiceUnavailable):
    """Kafka cannot be reached, or failed a request that may be repeated."""


class BrokerRefused(BrokerUnavailable):
    """Kafka answers and refuses, and goes on to refuse until somebody changes a setting or a right.

    `forbidden`: the client lacks a right.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, forbidden: bool = False, cause: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, cause=cause)
        self.forbidden = forbidden


class Fenced(BrokerUnavailable):
    """A newer producer with the same transactional id has started; this one must stop."""


class TopicMissing(BrokerUnavailable):
    """The topic does not exist, or was deleted."""


class OffsetOutOfRange(BrokerUnavailable):
    """The log of each of `partitions` starts behind the requested offset, or ends before it."""

    def __init__(self, message: str, *, partitions: tuple[int, ...]) -> None:
        super().__init__(message, hint="seek to the start of the log; the sequences show what is new")
        self.partitions = partitions


class StoreUnavailable(ServiceUnavailable):
    """The object store cannot be reached, or failed a request that may be repeated."""


class StoreRefused(StoreUnavailable):
    """The object store refuses: no such bucket, no rights. It serves again when somebody has mended that.

    A dataset's store is waited for, because its jobs are worth more than the wait. A source is not.
    """


class SourceUnavailable(ServiceUnavailable):
    """The store that a job reads from cannot be reached, or keeps changing while it is listed.

    `lasting`: the code of the job's failure when the error lasts longer than a job waits.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        cause: str | None = None,
        lasting: FailureCode = FailureCode.SOURCE_UNREACHABLE,
    ) -> None:
        super().__init__(message, hint=hint, cause=cause)
        self.lasting = lasting


class SpoolError(ServiceUnavailable):
    """The spool folder cannot be written: its disk is full, or it was removed."""


class ObjectExists(ShardlineError):
    """A create-only put found an object under its key."""


class ObjectMissing(ShardlineError):
    """No object has this key."""


class JobFailed(ShardlineError):
    """The attempt cannot continue; `code` goes into its outcome record."""

    def __init__(self, code: FailureCode, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DatasetBroken(JobFailed):
    """`verify` found a fault in the dataset."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(FailureCode.CONSERVATION, message, hint=hint)
