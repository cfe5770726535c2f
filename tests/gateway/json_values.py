"""Strategies for filters that JSON can hold and stores mostly cannot."""

from hypothesis import strategies as st

# What JSON can hold: any text with halves of surrogate pairs, integers of any size, any nesting.
TEXTS = st.text(st.characters(codec=None) | st.characters(categories=["Cs"]), max_size=4)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=10)
RANGES = st.fixed_dictionaries({}, optional={"gte": SCALARS, "lte": SCALARS})
FILTERS = st.dictionaries(TEXTS | st.sampled_from(["domain", "pages"]), VALUES | RANGES, max_size=3)
