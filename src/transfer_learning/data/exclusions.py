"""Images that the user leaves out: a CSV file such as the `audit.csv` that an audit writes."""

import csv
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.delimiter import delimiter_of
from transfer_learning.data.images import Images
from transfer_learning.utilities.errors import ArgumentError, first_line
from transfer_learning.utilities.validation import PathArgument

COLUMNS = ("exclude", "sha256")
YES, NO = ("x", "1", "yes", "true"), ("", "0", "no", "false")


def read_exclusions(path: PathArgument) -> set[str]:
    """The `sha256` of each row whose `exclude` is x, 1, yes or true, in any case. Other columns are not read.

    Columns may be separated by commas, semicolons or tabs, as spreadsheets write them.

    Raises:
        ArgumentError: no such file, not a table, a column is missing, or `exclude` has another value (`exclude`).
    """
    try:
        with open(Path(path).expanduser(), newline="", encoding="utf-8-sig", errors="replace") as file:
            delimiter = delimiter_of(file.readline(), COLUMNS)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, restval="", skipinitialspace=True)
            columns, rows = reader.fieldnames or [], list(reader)
    except (OSError, csv.Error) as error:
        reason = f"not readable as a table ({first_line(error)}); expected the audit.csv of an audit."
        raise ArgumentError("exclude", str(path), reason) from error
    if missing := [name for name in COLUMNS if name not in columns]:
        reason = f"it has no column {' and no column '.join(missing)}; expected the audit.csv of an audit."
        raise ArgumentError("exclude", str(path), reason)
    for number, row in enumerate(rows, 2):  # as a spreadsheet counts
        if row["exclude"].strip().lower() not in YES + NO:
            reason = f"row {number} has {row['exclude']!r} in the column exclude; expected {', '.join(YES)} to leave an"
            reason = f"{reason} image out, or nothing, {', '.join(NO[1:])} to keep it."
            raise ArgumentError("exclude", str(path), reason)
    return {row["sha256"].strip() for row in rows if row["exclude"].strip().lower() in YES}


def excluded_images(images: Images, path: PathArgument | None) -> dict[int, tuple[str, str]]:
    """The images that a file of exclusions leaves out: index -> (the reason, ""); without a file none.

    An image is known by its bytes, so copies of an excluded file are excluded too. Logs how many excluded images are
    not among `images`. Raises ArgumentError as `read_exclusions` does.
    """
    excluded = set() if path is None else read_exclusions(path)
    if unknown := len(excluded.difference(images.digests)):
        rank_zero_info(f"{path}: {unknown} of its {len(excluded)} excluded images are not in this data set")
    found = [index for index, digest in enumerate(images.digests) if digest in excluded]
    return dict.fromkeys(found, (f"excluded by {path}", ""))
