"""Overrides, KEY=VALUE, as they are typed on the command line."""

import re
import shlex
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString


def keys_of(overrides: Iterable[str]) -> set[str]:
    """The keys and groups that overrides set."""
    return {override.partition("=")[0].lstrip("+~") for override in overrides}


def as_typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(as_typed, value))}]" if isinstance(value, (list, tuple)) else str(value)


def hydra_quoted(text: str) -> str:
    """A text in the quotes of Hydra's grammar."""
    return QuotedString(text, Quote.single).with_quotes()


def as_override(key: str, value: str) -> str:
    """KEY=VALUE as it is typed in a shell, with the quotes that Hydra's grammar asks for inside those of the shell."""
    is_plain = re.fullmatch(r"[\w./+@-]+", value, re.ASCII)  # Hydra's grammar has no other letters
    return in_shell(f"{key}={value if is_plain else hydra_quoted(value)}")


def in_shell(text: str) -> str:
    """An override as it is typed in a shell, in double quotes if it has Hydra's single ones."""
    return shlex.quote(text) if re.search(r'["$`\\!]', text) or "'" not in text else f'"{text}"'
