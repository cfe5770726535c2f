"""The packages of the extra `assembly`: large, and needed by assembled jobs alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from shardline_common.errors import FailureCode, JobFailed, UsageError

PACKAGES = ("duckdb", "numpy", "pyarrow")


@contextmanager
def assembly_extra() -> Iterator[None]:
    """Translates the ImportError of a package of the extra.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"an assembled dataset needs the package {error.name}, which is not installed",
            hint="install Shardline with its extra `assembly`",
        ) from None


def missing_packages() -> list[str]:
    """The packages of the extra that are not installed. None of them is imported."""
    return [name for name in PACKAGES if find_spec(name) is None]


def require_extra_on_worker() -> None:
    """Check that this worker can work on assembled jobs.

    Raises:
        JobFailed: a package is not installed (`extra_missing`). A UsageError would end the worker and all its
            jobs, and every worker after it.
    """
    if missing := missing_packages():
        raise JobFailed(
            FailureCode.EXTRA_MISSING,
            f"an assembled dataset needs {' and '.join(missing)} on every worker, one has not",
            hint="install Shardline with its extra `assembly` on all workers, then retry the job",
        )
