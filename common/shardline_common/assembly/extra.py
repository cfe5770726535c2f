"""The packages of the extra `assembly`: large, and needed by assembled jobs alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from shardline_common.errors import UsageError


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
