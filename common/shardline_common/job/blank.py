"""Which texts are blank: those of separators, control and format characters only."""

import re

# General categories Z*, Cc and Cf of Unicode 15.1. The table is frozen: with that of the running Python, the
# same documents would give other rows under another version of it.
UNICODE = "15.1.0"
INVISIBLE = (
    (0x0000, 0x0020),
    (0x007F, 0x00A0),
    (0x00AD, 0x00AD),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x1680, 0x1680),
    (0x180E, 0x180E),
    (0x2000, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x2064),
    (0x2066, 0x206F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0001, 0xE0001),
    (0xE0020, 0xE007F),
)
_VISIBLE = re.compile("[^" + "".join(f"{chr(first)}-{chr(last)}" for first, last in INVISIBLE) + "]")


def is_blank(text: str) -> bool:
    """Whether a text has no visible character."""
    # Most texts begin with a visible character of ASCII.
    return not "!" <= text[:1] <= "~" and _VISIBLE.search(text) is None
