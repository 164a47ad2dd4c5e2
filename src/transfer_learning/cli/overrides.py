"""Overrides, KEY=VALUE, as they are typed on the command line."""

import os
import re
import shlex
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

PATHS_OF_DATA = [f"data.{key}" for key in ("root", "table", "exclude", "download_to", "cache_dir")]
NAMES_AND_PATHS = ["sweep", "hydra.run.dir", "hydra.sweep.dir", "model.weights", *PATHS_OF_DATA]
# What Hydra would take for a number or a truth value, such as 2024_05 for 202405; digits alone stay as they are.
NO_TEXT = re.compile(r"(?!\d+$)[-+]?[\d_.]+(e[-+]?[\d_]+)?|[-+]?inf|nan|true|false", re.IGNORECASE)
# A text in quotes; or one without brackets, commas and quotes, and without spaces around it.
PART = r"""'[^'\\]*'|"[^"\\]*"|[^][(){},='"\s](?:[^][(){},='"]*[^][(){},='"\s])?"""
# One part, several with commas between them, or a list of them in brackets.
PARTS = re.compile(rf"(?P<open>\[\s*)?(?:{PART})(?:\s*,\s*(?:{PART}))*(?(open)\s*\])")
ESCAPED = re.compile(r"\\[][(){}:=,\s\\]")  # by a backslash, in Hydra's grammar


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


def quoted(argument: str) -> str:
    """KEY=VALUE with the quotes that Hydra's grammar asks for.

    Around a regular expression, a path that begins with ~/, letters other than a to z, and a name or a path that Hydra
    would read as a number. The home folder takes the place of ~ in the keys that Hydra itself reads.
    """
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-") or key in ("resume", "rerun"):  # Hydra does not read these values
        return argument
    is_pattern = key == "data.group_pattern" and value != "null" and value[:1] not in ("'", '"')
    is_home = re.match("~[/\\\\]", value) and "," not in value
    if is_pattern or is_home:
        return f"{key}={hydra_quoted(os.path.expanduser(value) if key.startswith('hydra.') else value)}"
    if PARTS.fullmatch(value) and not ESCAPED.search(value):
        value = re.sub(PART, lambda part: _quoted_part(key, part[0]), value)
    return f"{key}={value}"


def _quoted_part(key: str, part: str) -> str:
    is_name = key.lstrip("+") in NAMES_AND_PATHS and NO_TEXT.fullmatch(part)
    return hydra_quoted(part) if part[0] not in "'\"" and (is_name or not part.isascii()) else part


def as_override(key: str, value: str) -> str:
    """KEY=VALUE as it is typed in a shell, with the quotes that Hydra's grammar asks for inside those of the shell."""
    is_plain = re.fullmatch(r"[\w./+@-]+", value, re.ASCII)  # Hydra's grammar has no other letters
    return in_shell(f"{key}={value if is_plain else hydra_quoted(value)}")


def in_shell(text: str) -> str:
    """An override as it is typed in a shell, in double quotes if it has Hydra's single ones."""
    return shlex.quote(text) if re.search(r'["$`\\!]', text) or "'" not in text else f'"{text}"'
