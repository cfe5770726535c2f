"""Turns document stores into training data: exactly once, reproducible byte by byte, proven.

```python
import shardline

result = await shardline.run({"name": "laws", "source": {"type": "files", "paths": ["laws.jsonl"]}})
print(result.dataset, result.rows, result.digest)
```

`shardline.sync` has the same functions for code without an event loop, `shardline.errors` the errors that
they raise, `shardline.clara` Clara's API. Names are imported when they are first used: `import shardline`
reads no setting and configures no logging.
"""

from importlib import import_module

from shardline_common import __version__

# Type checkers treat this name as true. To import it from `typing` would take most of this import's time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from shardline import errors, sync
    from shardline.api.explain import explain
    from shardline.api.features import features
    from shardline.api.inputs import Job
    from shardline.api.load import LoadedRows, load
    from shardline.api.operations import cancel, preview, retry, run, status, submit, verify
    from shardline.api.results import (
        ExplainRecord,
        ExplainResult,
        JobStatus,
        PreviewDocument,
        PreviewResult,
        Progress,
        Row,
        RowCounts,
        RowFeatures,
        RunResult,
        VerifyProgress,
        VerifyResult,
    )
    from shardline.api.rows import RowStream, stream
    from shardline_common.job.spec import (
        CsvOptions,
        Dedup,
        FieldMapping,
        FilesSource,
        FilterUse,
        Format,
        Near,
        Output,
        Pii,
        Quality,
        Query,
        Range,
        Sample,
        SeededOrder,
        Shards,
        Splits,
        ThemisSource,
        Uds3Source,
    )

__all__ = [
    "CsvOptions",
    "Dedup",
    "ExplainRecord",
    "ExplainResult",
    "FieldMapping",
    "FilesSource",
    "FilterUse",
    "Format",
    "Job",
    "JobStatus",
    "LoadedRows",
    "Near",
    "Output",
    "Pii",
    "PreviewDocument",
    "PreviewResult",
    "Progress",
    "Quality",
    "Query",
    "Range",
    "Row",
    "RowCounts",
    "RowFeatures",
    "RowStream",
    "RunResult",
    "Sample",
    "SeededOrder",
    "Shards",
    "Splits",
    "ThemisSource",
    "Uds3Source",
    "VerifyProgress",
    "VerifyResult",
    "__version__",
    "cancel",
    "errors",
    "explain",
    "features",
    "load",
    "preview",
    "retry",
    "run",
    "status",
    "stream",
    "submit",
    "sync",
    "verify",
]

_MODULES = {
    "shardline.api.explain": ("explain",),
    "shardline.api.features": ("features",),
    "shardline.api.inputs": ("Job",),
    "shardline.api.load": ("LoadedRows", "load"),
    "shardline.api.operations": ("cancel", "preview", "retry", "run", "status", "submit", "verify"),
    "shardline.api.results": (
        "ExplainRecord",
        "ExplainResult",
        "JobStatus",
        "PreviewDocument",
        "PreviewResult",
        "Progress",
        "Row",
        "RowCounts",
        "RowFeatures",
        "RunResult",
        "VerifyProgress",
        "VerifyResult",
    ),
    "shardline.api.rows": ("RowStream", "stream"),
    "shardline_common.job.spec": (
        "CsvOptions",
        "Dedup",
        "FieldMapping",
        "FilesSource",
        "FilterUse",
        "Format",
        "Near",
        "Output",
        "Pii",
        "Quality",
        "Query",
        "Range",
        "Sample",
        "SeededOrder",
        "Shards",
        "Splits",
        "ThemisSource",
        "Uds3Source",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


# A type checker uses the imports above. With this function it would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in ("errors", "sync"):
            return import_module(f"shardline.{name}")
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'shardline' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
