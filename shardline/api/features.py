"""The schema of a finished dataset for readers that would guess one from the first rows."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from shardline.api.inputs import settings_of
from shardline.api.results import RowFeatures
from shardline.services.finished import read_manifest_at
from shardline_common.errors import UsageError
from shardline_common.job.columns import Columns


async def features(
    uri: str | os.PathLike[str], *, settings: Mapping[str, object] | None = None
) -> RowFeatures:
    """Return a finished dataset's `datasets.Features`, whose `.arrow_schema` Arrow and polars take.

    Args:
        uri: the dataset's folder: a directory, or `s3://bucket/prefix/…`.
        settings: settings by name, used before the environment, .env and shardline.toml.

    Raises:
        UsageError: there is no finished dataset, a setting is wrong, or the package datasets is missing.
        JobFailed: the manifest is damaged.
        ServiceUnavailable: the store cannot be reached.
    """
    try:
        # Imported when used: it takes seconds, and few programs need it.
        datasets = import_module("datasets")
    except ImportError:
        raise UsageError(
            "features need the package datasets", hint="install it: pip install datasets"
        ) from None
    manifest = await read_manifest_at(os.fspath(uri), settings_of(settings))
    row: dict[str, Any] = {}
    for path, dtype in Columns.from_json(manifest.rows_schema.columns).features():
        group, _, name = path.partition(".")
        if name:
            row.setdefault(group, {})[name] = datasets.Value(dtype)
        else:
            row[path] = datasets.Value(dtype)
    found: RowFeatures = datasets.Features(row)
    return found
