"""Names that are easily taken for each other: they differ in case, spaces, or what cannot be seen."""

import re
import unicodedata
from collections.abc import Callable, Collection
from decimal import Decimal

from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.utilities.text import OTHER_SPACES, UNSEEN, printable, some

EDGES = re.compile(rf"^[ {OTHER_SPACES}]+|[ {OTHER_SPACES}]+$")
INVISIBLE = re.compile(rf"[{UNSEEN}\u200c\u200d\ufe00-\ufe0f]")


def normalized(name: str) -> str:
    """What names have in common that differ only in case, in how accents are encoded, or in spaces around them."""
    return unicodedata.normalize("NFC", printable(EDGES.sub("", name))).casefold().strip()


def _without_invisible(name: str) -> str:
    return INVISIBLE.sub("", name)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _evenly_spaced(name: str) -> str:
    return " ".join(name.split())


def _as_number(name: str) -> str:
    return str(Decimal(name).as_integer_ratio()) if re.fullmatch(r"[-+]?\d{1,99}(\.\d{0,99})?", name) else name


KINDS: dict[str, Callable[[str], str]] = {  # in what names may differ -> what removes that difference, in this order
    "invisible characters": _without_invisible,
    "how accents are encoded": _composed,
    "spaces": _evenly_spaced,
    "case": str.casefold,
    "how a number is written": _as_number,
}


def log_alike(names: Collection[str], kept_apart: Collection[str], noun: str = "class") -> None:
    """Logs names that are easily taken for each other: in what they differ, and whether they stand for the same.

    Args:
        kept_apart: the names that stand for different things; one that is not among them stands for the one it is like.
        noun: what they are names of, "class" or "group".
    """
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(_without(name), []).append(name)
    remarks: dict[tuple[str, bool], list[str]] = {}
    for group in alike.values():
        if len(group) > 1:
            kinds = [kind for kind in KINDS if len({_without(name, but=kind) for name in group}) > 1]
            shown = map(printable if kinds == ["case"] else _told, group)
            are_one = len({*group} & {*kept_apart}) < 2
            differ_in = " and ".join(kinds) or "characters that look alike"
            remarks.setdefault((differ_in, are_one), []).append(" and ".join(shown))
    for (differ_in, are_one), texts in remarks.items():
        what = f"one {noun}" if are_one else f"different {noun}{'es' if noun == 'class' else 's'}"
        rank_zero_info(f"names that differ only in {differ_in} are {what} here: {some(texts)}")


def _without(name: str, but: str | None = None) -> str:
    """A name without the differences of all kinds but one."""
    for kind, remove in KINDS.items():
        name = name if kind == but else remove(name)
    return name


def _told(name: str) -> str:
    """A name in quotes, with escapes for what cannot be seen or told apart."""
    if _composed(name) != name:
        return ascii(name)
    return f"'{re.sub(rf'[{OTHER_SPACES}]', _escape, INVISIBLE.sub(_escape, printable(name)))}'"


def _escape(found: re.Match) -> str:
    return ascii(found[0])[1:-1]
