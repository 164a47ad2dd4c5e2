"""Names in messages."""

from collections.abc import Sequence


def printable(name: str) -> str:
    """File systems accept names that are not Unicode; printing and writing them needs an escaped form."""
    return name.encode(errors="backslashreplace").decode()


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list, and how many more there are: "a, b, c and 12 more"."""
    shown = names if len(names) <= limit else names[:limit]
    return ", ".join(shown) + (f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else "")
