"""Compare runs on one page and on the terminal: settings, results, curves, and which differences are significant.

PATH is the folder of a run or of a sweep, or one above them. The page is one file that needs no network. Runs are
compared on validation images; --split test compares them on test images.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transfer_learning.cli.files import check_new, check_suffix
from transfer_learning.utilities.text import printable

EXAMPLES = (
    "outputs/sweeps/first outputs/runs/RUN --out comparison.html",
    "outputs/runs --split test --overwrite",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", type="path", help="a run, a sweep, or a folder above them")
    parser.add_argument("--out", metavar="FILE", type="path", default="report.html", help="the page (report.html)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.add_argument("--split", choices=["val", "test"], default="val", help="images to compare on (val)")


def run(arguments: argparse.Namespace) -> int:
    check_suffix(arguments.out, [".html"])
    out = check_new(arguments.out, arguments.overwrite)
    print(write([Path(path) for path in arguments.paths], out, arguments.split))
    return 0


def write(paths: Sequence[Path], out: Path, split: str = "val") -> str:
    """Writes the page of the runs at or below paths, and returns what the terminal shows. Raises UserError, OSError."""
    from transfer_learning.cli.project import MAY_CHANGE, REPLICATES
    from transfer_learning.runs.comparison_report import write_comparison_report
    from transfer_learning.runs.results import Keys

    keys = Keys(
        replicates=REPLICATES,
        ignored=("repeats", "sweep", "name", "recipe", "logger", "reference", "overrides", "hydra", *MAY_CHANGE),
        names={"model": "choices.model", "optimizer": "choices.optimizer"},
        reference="reference",
        train_shares=("data.train_share",),
        shown=("model.backbone", "data.image_size"),
    )
    text = f"{write_comparison_report(paths, out, split, keys)}\n\npage: {out}"
    return "\n".join(map(printable, text.split("\n")))
