"""How many images of a class each split gets."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from transfer_learning.utilities.errors import ArgumentError

PerClassSize = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]


def counts_of_class(sizes: Mapping[str, int | float | None], available: int, class_name: str) -> dict[str, int]:
    """The number of images of a class in each split, of those that are available.

    Args:
        sizes: of each split, a count or a share; that of "train" may be None, what the others leave.

    Raises:
        ArgumentError: fewer images than splits, fewer than asked for, or a split would be empty.
    """
    given = {split: size for split, size in sizes.items() if size is not None}
    shares = all(isinstance(size, float) for size in given.values())
    rest = 1 - sum(given.values()) if shares else None
    filled: dict[str, Any] = {split: rest if size is None else size for split, size in sizes.items()}
    counts = {split: int(n * available + 1e-9) if isinstance(n, float) else n or 0 for split, n in filled.items()}
    asked_for = sum(counts[split] for split in given)
    if None in filled.values():
        counts["train"] = available - sum(counts.values())
    elif shares and abs(sum(filled.values()) - 1) < 1e-9:
        remainders = sorted(counts, key=lambda split: counts[split] - filled[split] * available)
        for split in remainders[: available - sum(counts.values())]:
            counts[split] += 1
    empty = next((split for split, count in counts.items() if count < 1), None)
    named = empty if empty and empty in given else max(given, key=counts.__getitem__)
    asked = ", ".join(f"{split}_per_class={size}" for split, size in given.items())
    images = f"{available} image{'' if available == 1 else 's'}"
    if available < len(sizes):
        reason = f"class '{class_name}' has {images}, but each of {len(sizes)} splits needs at least one"
        ways = "add images, or list the other classes (classes=[...])"
    elif asked_for > available:
        reason = f"class '{class_name}' has {images}, but {asked_for} are asked for ({asked})"
        ways = "ask for fewer, or for shares of each class, such as 0.2"
    elif empty:
        reason = f"class '{class_name}' with {images} leaves the {empty} split empty ({asked})"
        reason += "; it needs at least one image"
        ways = "add images, or ask for a count, such as 1" if empty in given else "ask for fewer"
    else:
        return counts
    raise ArgumentError(f"{named}_per_class", sizes[named], f"{reason}: {ways}.")
