"""The errors that Shardline raises on purpose. `hint` is one thing to do about the error, or None.

```
ShardlineError                 base of all
├── UsageError                 the call, job or setting is wrong
│   ├── JobInvalid             a job does not fit the schema
│   ├── JobConflict            the id belongs to another job
│   └── JobUnknown             no job with this id was accepted
├── ServiceUnavailable         a service cannot be reached or refuses
│   ├── BrokerUnavailable      Kafka; BrokerRefused and others are special cases
│   ├── StoreUnavailable       the store of datasets; StoreRefused is a special case
│   ├── SourceUnavailable      the store that a job reads from
│   └── SpoolError             the spool folder cannot be written
├── ObjectExists               a create-only put found an object under the key
├── ObjectMissing              no object has this key
└── JobFailed                  the job cannot continue; `code` is a FailureCode
    └── DatasetBroken          `verify` found a fault
```
"""

from shardline_common.errors import (
    BrokerRefused,
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
    StoreRefused,
    StoreUnavailable,
    TopicMissing,
    UsageError,
)

__all__ = [
    "BrokerRefused",
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
    "StoreRefused",
    "StoreUnavailable",
    "TopicMissing",
    "UsageError",
]
