"""The error tree. Every error Shardline raises on purpose is one of these.

```
ShardlineError                 something the user can act on: message says what, hint says what to do
├── UsageError                 the command, job or setting is wrong (exit 2)
│   ├── JobInvalid             a job message breaks the schema
│   ├── JobConflict            the id belongs to another job
│   └── JobUnknown             no job of this id was ever accepted
├── ServiceUnavailable         a service cannot be reached or refuses (exit 3)
│   ├── BrokerUnavailable
│   │   ├── Fenced             a newer producer took the job over
│   │   ├── TopicMissing       the topic is not there (any more)
│   │   └── OffsetOutOfRange   the log does not hold that offset
│   ├── StoreUnavailable
│   └── SourceUnavailable      what a job reads from is away
├── ObjectExists               a create-only put found the key taken
├── ObjectMissing              no object has this key
└── JobFailed                  the job cannot go on (exit 1); `code` is one of FailureCode
    └── DatasetBroken          `verify` found a break
```
"""

from enum import StrEnum


class FailureCode(StrEnum):
    """Why an attempt ended as failed; written into the outcome record and shown by `status`."""

    SOURCE_CHANGED = "source_changed"
    SOURCE_INVALID = "source_invalid"
    SOURCE_UNREACHABLE = "source_unreachable"
    TOPIC_LOST = "topic_lost"
    TOPIC_UNSUITABLE = "topic_unsuitable"
    TOO_MANY_DEAD_LETTERS = "too_many_dead_letters"
    NOT_REPRODUCIBLE = "not_reproducible"
    SEQUENCE_GAP = "sequence_gap"
    CONSERVATION = "conservation"
    SPOOL = "spool"
    BROKER_REFUSED = "broker_refused"
    INTERNAL = "internal"


class ShardlineError(Exception):
    """An error with a sentence for the user and, where there is one, a cure."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(ShardlineError):
    """The command, job or setting is wrong."""


class JobInvalid(UsageError):
    """A job message breaks the schema."""


class JobConflict(UsageError):
    """The job id was accepted before with another body."""


class JobUnknown(UsageError):
    """No job of this id was ever accepted."""


class ServiceUnavailable(ShardlineError):
    """A service cannot be reached, or answers that it cannot serve now."""


class BrokerUnavailable(ServiceUnavailable):
    """Kafka cannot be reached or failed a request that may be tried again."""


class Fenced(BrokerUnavailable):
    """Another producer with the same transactional id started later; this one must stop."""


class TopicMissing(BrokerUnavailable):
    """The topic is not there (any more)."""


class OffsetOutOfRange(BrokerUnavailable):
    """The log starts behind, or ends before, the offset asked for, in each of `partitions`."""

    def __init__(self, message: str, *, partitions: tuple[int, ...]) -> None:
        super().__init__(message, hint="seek to the start of the log; sequences tell what is new")
        self.partitions = partitions


class StoreUnavailable(ServiceUnavailable):
    """The object store cannot be reached or failed a request that may be tried again."""


class SourceUnavailable(ServiceUnavailable):
    """The store that a job reads from cannot be reached."""


class ObjectExists(ShardlineError):
    """A create-only put found the key taken."""


class ObjectMissing(ShardlineError):
    """No object has this key."""


class JobFailed(ShardlineError):
    """The attempt cannot go on; `code` goes into its outcome record."""

    def __init__(self, code: FailureCode, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DatasetBroken(JobFailed):
    """`verify` found that the dataset does not prove itself."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(FailureCode.CONSERVATION, message, hint=hint)
