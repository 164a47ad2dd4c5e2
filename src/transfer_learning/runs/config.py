"""The config of a run as nested plain values: reading config.yaml, and comparing two configs."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from transfer_learning.utilities.errors import ArgumentError, UserError, first_line

TIMESTAMP, FLOAT = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads 1e-3 as a number and 2026-11-25 as a text, as OmegaConf does, but in C, since a sweep has many files."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    FLOAT, re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_config(path: Path) -> dict[str, Any]:
    """A run's config.yaml as nested plain values, unresolved. Raises UserError if it is damaged or something else."""
    try:
        config = yaml.load(path.read_bytes(), _Loader)
        if not isinstance(config, dict) or not isinstance(config.get("overrides"), list):
            raise ValueError("it has no list `overrides`")
        return {str(key): value for key, value in config.items()}
    except Exception as error:  # PyYAML raises many kinds of errors
        raise UserError(f"{path}: not the config of a run, or damaged ({first_line(error)}).") from error


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as one, with dots."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        nested = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any], given: Collection[str]) -> list[str]:
    """The keys, with dots, in which two configs differ, nested or flat.

    A key that the old config lacks was added to the program later. It only counts if it, or a group that it is in, is
    among the keys that the user has `given`.
    """
    before, now = flat(old), flat(new)
    differing = [key for key in sorted(before | now) if before.get(key, "absent") != now.get(key, "absent")]
    return [key for key in differing if not before or key in before or _with_groups(key) & set(given)]


def _with_groups(key: str) -> set[str]:
    """A key with dots, and the groups that it is in: a, a.b and a.b.c for a.b.c."""
    parts = key.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts) + 1)}


def check_only_epochs_differ(
    place: Path,
    now: Mapping[str, Any],
    given: Collection[str],
    may_change: Collection[str],
    epochs_key: str | None,
    may_extend: bool,
    before: Mapping[str, Any],
) -> bool:
    """Whether two flat configs differ in the number of epochs, an integer that may be smaller, or larger to extend.

    Raises UserError, with the differences, if they differ in anything else (see `RunFolder.claim`), and ArgumentError
    for another number of epochs that is none.
    """
    differing = [key for key in differing_keys(before, now, given) if key not in may_change]
    if epochs_key in differing and (type(now.get(epochs_key)) is not int or now[epochs_key] < 1):
        name, was = epochs_key.rpartition(".")[2], before.get(epochs_key, "absent")
        reason = f"expected a whole number, 1 or more (in {place} it was {was})"
        raise ArgumentError(name, now.get(epochs_key), f"{reason}.")
    numbers: list[Any] = [each.get(epochs_key or "") for each in (before, now)]
    are_epochs = differing == [epochs_key] and all(type(number) is int for number in numbers)
    if not differing or (are_epochs and (may_extend or numbers[1] < numbers[0])):
        return bool(differing)
    shown = "; ".join(f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}" for key in differing[:8])
    more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
    ways = "They are unchanged. Use the same config, or another folder; only more epochs extend a run."
    raise UserError(f"{place}: has results of another config: {shown}{more}. {ways}")
