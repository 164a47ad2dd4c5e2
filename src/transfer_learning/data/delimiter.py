"""The delimiter of a table: CSV and TSV files, and what spreadsheets write."""

import csv
from collections.abc import Collection


def delimiter_of(header: str, columns: Collection[str]) -> str:
    """The character that separates the columns of a header: one with which it has these columns, or is frequent."""

    def fits(delimiter: str) -> tuple[int, int]:
        rows = csv.reader([header], delimiter=delimiter, skipinitialspace=True)
        names = {name.strip() for row in rows for name in row}
        return len(names.intersection(columns)), header.count(delimiter)

    return max("\t;,|", key=fits)
