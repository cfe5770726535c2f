"""The errors that Shardline raises on purpose; each has a `hint` when there is something to do about it.

```
ShardlineError                 base of all
├── UsageError                 the call, job or setting is wrong
│   ├── JobInvalid             a job breaks the schema
│   ├── JobConflict            the id belongs to another job
│   └── JobUnknown             no job of this id was ever accepted
├── ServiceUnavailable         a service cannot be reached or refuses
│   ├── BrokerUnavailable      Kafka; Fenced, TopicMissing and OffsetOutOfRange are special cases
│   ├── StoreUnavailable       the store of datasets
│   ├── SourceUnavailable      the store that a job reads from
│   └── SpoolError             the spool folder cannot be written
├── ObjectExists               a create-only put found the key taken
├── ObjectMissing              no object has this key
└── JobFailed                  the job cannot continue; `code` is a FailureCode
    └── DatasetBroken          a dataset does not prove itself
```
"""

from shardline_common.errors import (
    BrokerUnavailable,
    DatasetBroken,
    FailureCode,
    Fenced,
    JobConflict,
    JobFailed,
    JobInvalid,
    JobUnknown,
    ObjectExists,
    ObjectMissing,
    OffsetOutOfRange,
    ServiceUnavailable,
    ShardlineError,
    SourceUnavailable,
    SpoolError,
    StoreUnavailable,
    TopicMissing,
    UsageError,
)

__all__ = [
    "BrokerUnavailable",
    "DatasetBroken",
    "FailureCode",
    "Fenced",
    "JobConflict",
    "JobFailed",
    "JobInvalid",
    "JobUnknown",
    "ObjectExists",
    "ObjectMissing",
    "OffsetOutOfRange",
    "ServiceUnavailable",
    "ShardlineError",
    "SourceUnavailable",
    "SpoolError",
    "StoreUnavailable",
    "TopicMissing",
    "UsageError",
]
