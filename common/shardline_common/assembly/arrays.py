"""Arrow arrays to NumPy arrays and back, without `pa.array` and `to_numpy`.

Both import pandas wherever it is installed, which takes a process 0.8 CPU-seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

# NumPy and pyarrow come with the extra `assembly`, so they are imported where they are called.
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    Numbers: TypeAlias = np.ndarray[Any, Any]


def numbers_of(array: Any) -> Numbers:
    """The values of an Arrow array of integers, in its memory.

    Raises:
        ValueError: a value is null.
    """
    import numpy as np

    if array.null_count:
        raise ValueError(f"{array.null_count} of {len(array)} numbers are null")
    if not len(array):
        return np.empty(0, str(array.type))
    values = np.frombuffer(array.buffers()[1], str(array.type))
    return values[array.offset : array.offset + len(array)]


def arrow_numbers(values: Numbers, of_type: Any, is_null: Numbers | None = None) -> Any:
    """An Arrow array of numbers, or of bytes of one length, whose items have the width of the type."""
    import numpy as np
    import pyarrow as pa

    items = np.ascontiguousarray(values)
    if items.itemsize * 8 != of_type.bit_width:
        raise ValueError(f"items of {items.itemsize} bytes are no {of_type}")
    valid = None if is_null is None or not is_null.any() else pa.py_buffer(_bits(~is_null))
    return pa.Array.from_buffers(of_type, len(items), [valid, pa.py_buffer(items.view("u1"))])


def arrow_flags(values: Numbers) -> Any:
    """An Arrow array of booleans."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(_bits(values))])


def arrow_texts(values: Sequence[bytes | None], of_type: Any) -> Any:
    """An Arrow array of texts, given in UTF-8, or of bytes of any length."""
    import numpy as np
    import pyarrow as pa

    ends = np.zeros(len(values) + 1, "int32")
    np.cumsum(np.fromiter((len(value or b"") for value in values), "int64", len(values)), out=ends[1:])
    data = b"".join([value for value in values if value is not None])
    is_null = np.fromiter((value is None for value in values), bool, len(values))
    valid = pa.py_buffer(_bits(~is_null)) if is_null.any() else None
    return pa.Array.from_buffers(of_type, len(values), [valid, pa.py_buffer(ends), pa.py_buffer(data)])


def arrow_chosen(values: Iterable[str | None], places: Numbers) -> Any:
    """An Arrow array of texts: of each of `places`, the value there. For few values that come often."""
    import pyarrow as pa
    from pyarrow.compute import take

    texts = [None if value is None else value.encode() for value in values]
    return take(arrow_texts(texts, pa.string()), arrow_numbers(places.astype("int64"), pa.int64()))


def _bits(flags: Numbers) -> Numbers:
    import numpy as np

    return np.packbits(flags, bitorder="little")
