"""Images that a table lists: a row for each image, with its file, its class and, if known, its split and group."""

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath

from transfer_learning.data.alike import log_alike
from transfer_learning.data.delimiter import delimiter_of
from transfer_learning.data.digests import FileDigests
from transfer_learning.data.formats import NOT_AN_IMAGE, is_image_name, missing_plugin
from transfer_learning.data.images import Images, check_classes, images_of_files, too_few_classes
from transfer_learning.data.listing import list_files, no_folder
from transfer_learning.data.splits import split_named
from transfer_learning.utilities.errors import ArgumentError, UserError, first_line
from transfer_learning.utilities.text import printable, some
from transfer_learning.utilities.validation import PathArgument, validated

Row = dict[str, str]


@validated
class Table:
    """The images in the rows of a CSV or TSV file, which is UTF-8 text and has a header.

    Args:
        table: the file. Its columns are separated by tabs, semicolons or commas: the header tells.
        file_column: the column of the files' paths relative to `root`, or of their names, with or without suffix.
        label_column: the column of the classes.
        root: the folder of the images; None is that of the table.
        split_column: the column of the splits: train, val (or validation) and test.
        group_column: the column of the groups, such as patients; an image without one is a group of its own.
        classes: the classes to take, in this order; None takes all, in alphabetical order.
    """

    def __init__(
        self,
        table: PathArgument,
        file_column: str,
        label_column: str,
        root: PathArgument | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        classes: Sequence[str | int] | None = None,
    ):
        self.table, self.root = Path(table).expanduser(), Path(root or Path(table).parent).expanduser()
        self.columns = {"file": file_column, "label": label_column, "split": split_column, "group": group_column}
        self.classes = check_classes(classes)

    def list_images(self, file_digests: FileDigests) -> Images:
        """Raises ArgumentError: a file, folder or column is missing, a line cannot be read, a name fits several files,
        a split is unknown, or there are fewer than two classes.
        """
        if not os.path.isdir(self.root):
            raise ArgumentError("root", str(self.root), f"{no_folder(self.root)}; expected that of the images.")
        listed, found = list_files(self.root)
        left_out = {reason: list(names) for reason, names in found.items()}
        rows = self._rows_of_files(listed, left_out)
        wanted = list(dict.fromkeys(self.classes or (row["label"] for row in rows.values())))
        others = sorted(map(printable, {row["label"] for row in rows.values()} - set(wanted)))
        for file in [file for file, row in rows.items() if row["label"] not in wanted]:
            left_out.setdefault(f"of other classes: {some(others)}", []).append(printable(str(file)))
            del rows[file]
        log_alike(wanted, wanted)
        groups = {row["group"] for row in rows.values() if row.get("group")}
        log_alike(groups, groups, "group")
        try:
            images = images_of_files(
                [self.root / file for file in rows],
                [row["label"] for row in rows.values()],
                self.classes,
                file_digests,
                splits=[split_named(row.get("split", "")) for row in rows.values()],
                groups=[row["group"] or str(file) for file, row in rows.items()] if self.columns["group"] else None,
                left_out=left_out,
            )
        except UserError as error:
            raise ArgumentError("table", str(self.table), str(error)) from error
        if reason := too_few_classes(images, self.classes):
            argument, value = ("classes", self.classes) if self.classes else ("table", str(self.table))
            raise ArgumentError(argument, value, reason)
        return images

    def _rows_of_files(self, files: Sequence[Path], left_out: dict[str, list[str]]) -> dict[Path, Row]:
        """For each file its row, in the order of the files. Adds to `left_out` what has no row, class or file."""
        find, of_file, missing = FileNames(files, self.root), dict[Path, list[Row]](), dict[str, str]()

        def leave_out(reason: str, name: str) -> None:
            left_out.setdefault(reason, []).append(printable(name))

        for line, name, row in self._rows():
            place = f"{name or 'a row without a file'} in line {line}"
            if (split := row.get("split")) and not split_named(split):
                expected = f"{place} has the split {split!r}; expected train, val or test."
                raise ArgumentError("split_column", self.columns["split"], expected)
            found = find(name) if name else []
            if len(found) > 1:
                fitting = f"{place} may be each of {some([str(file) for file in found])}"
                fitting += ": add its folder or suffix, or name a folder of images that has one of them (root)."
                raise ArgumentError("file_column", self.columns["file"], fitting)
            if not found:
                missing[place] = name
            else:
                of_file.setdefault(found[0], []).append(row)
        folded = FileNames([_folded(file) for file in files if missing], _folded(self.root.absolute()))
        for place, name in missing.items():
            is_there = folded(name.casefold())
            where = f"in {self.root} only in another case of letters" if is_there else f"not in {self.root}"
            leave_out(f"in the table, but {where}", place)
        rows = {}
        for file in files:
            known = of_file.get(file, [])
            if not known and not is_image_name(file):
                leave_out(NOT_AN_IMAGE, str(file))
            elif not known:
                leave_out("without a row in the table", str(file))
            elif any(row != known[0] for row in known):
                leave_out("with rows that differ", str(file))
            elif not known[0]["label"]:
                leave_out("without a class in the table", str(file))
            elif reason := missing_plugin(file):
                leave_out(reason, str(file))
            else:
                rows[file] = known[0]
        return rows

    def _rows(self) -> Iterator[tuple[int, str, Row]]:
        """For each row its line, its file, and its "label", "split" and "group", as far as there are such columns."""
        try:
            text = self.table.read_text(encoding="utf-8-sig")
        except FileNotFoundError as error:
            raise ArgumentError("table", str(self.table), "no such file.") from error
        except (OSError, UnicodeDecodeError) as error:
            reason = f"expected a table that is saved as UTF-8 text ({first_line(error)})"
            raise ArgumentError("table", str(self.table), f"{reason}.") from error
        columns = {key: column for key, column in self.columns.items() if column is not None}
        delimiter = delimiter_of(text.partition("\n")[0], set(columns.values()))
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="", skipinitialspace=True)
        try:
            reader.fieldnames = known = [name.strip() for name in reader.fieldnames or ()]
            for key, column in columns.items():
                number = known.count(column)
                if number != 1:
                    found = f"{number} such columns" if number else "no such column"
                    expected = f"it has {some(known, 20) or 'no header'}"
                    raise ArgumentError(f"{key}_column", column, f"{found} in {self.table}; {expected}.")
            for row in reader:
                if any(cell.strip() for cell in row.get(None, ())):  # more than delimiters at the end of the line
                    reason = f"line {reader.line_num} has more cells than the header"
                    way = f"put cells that contain {delimiter!r} in quotes."
                    raise ArgumentError("table", str(self.table), f"{reason}; {way}")
                cells = {key: row[column].strip() for key, column in columns.items()}
                if any("\n" in cell for cell in cells.values()):
                    reason = f"a cell that ends in line {reader.line_num} has a line break; is a quote missing above?"
                    raise ArgumentError("table", str(self.table), reason)
                yield reader.line_num, cells.pop("file"), cells
        except csv.Error as error:
            reason = f"line {reader.line_num} cannot be read ({error}); is a quote missing there or above?"
            raise ArgumentError("table", str(self.table), reason) from error


class FileNames:
    """Finds files by what a table calls them: their path or the end of it, with or without suffix.

    Letters with accents are the same in all encodings of Unicode: archives made on macOS have others than tables.

    Args:
        files: relative to `root`.
        root: a path may begin with it, or with the end of it, if what follows is the whole path of a file.
    """

    def __init__(self, files: Sequence[Path], root: Path):
        self.roots = [_nfc(root.absolute()).parts[n:] for n in range(len(root.absolute().parts))]
        self.whole, self.ends = dict[str, list[Path]](), dict[str, list[Path]]()
        for file in files:
            for form in {file, file.with_suffix("")} if is_image_name(file) else {file}:
                parts = _nfc(form).parts
                self.whole.setdefault("/".join(parts), []).append(file)
                for start in range(1, len(parts)):
                    self.ends.setdefault("/".join(parts[start:]), []).append(file)

    def __call__(self, name: str) -> list[Path]:
        """The files that are called so; several if it is ambiguous.

        The whole path comes before other ways to name a file, and with its suffix before without.
        """
        called = PurePosixPath(name.replace("\\", "/"))
        parts = _nfc(called).parts
        cut = ["/".join(parts[len(root) :]) for root in self.roots if parts[: len(root)] == root]
        other = [file for path in cut for file in self.whole.get(path, [])] + self.ends.get("/".join(parts), [])
        found = self.whole.get("/".join(parts)) or list(dict.fromkeys(other))
        return [file for file in found if _is_end(called, file) or _is_end(file, called)] or found


def _nfc(path: PurePath) -> PurePosixPath:
    return PurePosixPath(unicodedata.normalize("NFC", path.as_posix()))


def _folded(path: Path) -> Path:
    return Path(str(path).casefold())


def _is_end(end: PurePath, path: PurePath) -> bool:
    return path.parts[-len(end.parts) :] == end.parts
