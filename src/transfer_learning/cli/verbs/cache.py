"""List the arrays in the cache, decoded images and features, or remove some.

An array that a process is using is never removed. Runs compute again what they miss.
"""

import argparse
import math
import time
from pathlib import Path

EXAMPLES = ("", "--remove 30")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", metavar="DAYS", help="remove what was not used for so many days; `all` removes all")
    parser.add_argument("--folder", type="path", help="the folder of the cache (outputs/cache of this project)")


def run(options: argparse.Namespace) -> int:
    from tabulate import tabulate

    from transfer_learning.cli.project import PROJECT, check_installation
    from transfer_learning.data.cache import list_arrays, remove_unused
    from transfer_learning.utilities.errors import UserError

    if not options.folder:
        check_installation()
    folder = Path(options.folder or PROJECT / "outputs" / "cache")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --folder names another cache, data.cache_dir of the runs.")
    oldest = oldest_to_keep(options.remove)
    rows, removed = [], 0
    for array in list_arrays(folder):
        state = ""
        if array.last_used <= oldest:
            state = "in use, kept"
            if remove_unused(array.path):
                state = "removed"
                removed += array.size
        age = f"{(time.time() - array.last_used) / 86400:.1f}"
        rows.append([array.path.name, array.rows, f"{array.size / 1e6:,.1f}", age, array.about, state])
    header = ["array", "images or views", "MB", "days since use", "holds", "state" if options.remove else ""]
    print(tabulate(rows, header, disable_numparse=True, colalign=("left", "right", "right", "right")))
    total = sum(array.size for array in list_arrays(folder))
    print(f"\n{folder}: {total / 1e6:,.1f} MB" + (f", {removed / 1e6:,.1f} MB removed" if options.remove else ""))
    return 0


def oldest_to_keep(remove: str | None) -> float:
    """The time, in seconds since the epoch, up to which arrays are removed. Raises UserError for another text."""
    from transfer_learning.utilities.errors import UserError

    if remove is None:
        return -math.inf
    try:
        days = 0.0 if remove == "all" else float(remove)
    except ValueError:
        days = math.nan
    if not days >= 0:  # also for NaN
        raise UserError(f"--remove {remove}: expected a number of days, such as 30, or all.")
    return time.time() - days * 86400
