"""Names in messages."""

import re
from collections.abc import Sequence

# Control characters, marks of direction and line separators, and halves of a character (bytes that are not Unicode)
UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


def printable(name: str) -> str:
    """A name without what a terminal or a table cannot show as it is.

    File systems accept names that are not Unicode, and control characters, which may move the cursor or hide the rest
    of a line: they, line separators and marks that turn the direction of writing become escapes such as `\\x1b`.
    """
    return re.sub(UNPRINTABLE, lambda found: ascii(found[0])[1:-1], name)


def shortened(name: str, size: int) -> str:
    """The beginning of a name that takes at most `size` bytes in UTF-8, as file systems count."""
    return printable(name).encode()[:size].decode(errors="ignore")


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list, and how many more there are: "a, b, c and 12 more"."""
    shown = names if len(names) <= limit else names[:limit]
    return ", ".join(shown) + (f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else "")
