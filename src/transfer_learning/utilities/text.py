"""Names in messages."""

import re
from collections.abc import Sequence

# Control characters, marks of direction, line separators, and what takes no room (not joiners and variation selectors,
# which Persian, Hindi and emojis need)
UNSEEN = r"\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
HALVES = r"\ud800-\udfff"  # of characters: bytes that are not Unicode
OTHER_SPACES = r"\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"  # than the usual one
UNPRINTABLE = re.compile(rf"[{UNSEEN}{HALVES}]|^[{OTHER_SPACES}]+|[{OTHER_SPACES}]+$")


def printable(name: str) -> str:
    """A name without what a terminal or a table cannot show as it is.

    File systems accept names that are not Unicode, and control characters, which may move the cursor or hide the rest
    of a line: they, line separators, marks that turn the direction of writing, characters that take no room, and spaces
    other than the usual one at the ends become escapes such as `\\x1b`.
    """
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], name)


def shortened(name: str, size: int) -> str:
    """The beginning of a name that takes at most `size` bytes in UTF-8, as file systems count."""
    return printable(name).encode()[:size].decode(errors="ignore")


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list, and how many more there are: "a, b, c and 12 more"."""
    shown = names if len(names) <= limit else names[:limit]
    return ", ".join(shown) + (f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else "")
