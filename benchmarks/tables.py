"""Tables of measurements in docs/, made from the folders of runs.

python benchmarks/tables.py [NAME FOLDER ...]

Adds the finished runs at or below each FOLDER to docs/measurements/NAME.csv, a row a run, and then renders every such
file as a table in docs/measurements.md, below the text of docs/measurements/NAME.md if there is one. A run replaces the
row that has its settings, commit and machine; the other rows stay, even if their folders are gone.
"""

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from transfer_learning.reporting.intervals import wilson_interval
from transfer_learning.runs.leaderboard import markdown, read_job
from transfer_learning.runs.results import find_runs
from transfer_learning.utilities.files import write_csv, write_text

DOCS = Path(__file__).resolve().parents[1] / "docs"
UNSHOWN = re.compile(r"(hydra\.|sweep=|data\.cache_dir=|logger=)")  # settings that change no result
REPEATED = re.compile(r"(seed|data\.fold)=")  # runs that differ in these alone share a row of the table
MEASURES = {  # keys of metrics.json, heading and format ("": three digits)
    "val/acc_best": ("validation accuracy", ".3f"), "test/acc": ("test accuracy", ".3f"), "epochs": ("epochs", ""),
    "images_per_second": ("images/s", ""), "megabytes": ("MB", ""), "seconds_features": ("features, s", ""),
    "seconds": ("fit, s", ""), "seconds_to_first_step": ("start to first step, s", ""),
}  # fmt: skip
IMAGES = {"val/acc_best": "images_val", "test/acc": "images_test"}  # how many an accuracy is of
INTERVALS = {"val/acc_best": "validation, 95 % interval", "test/acc": "test, 95 % interval"}
RECORDED = (*MEASURES, "images_train", *IMAGES.values(), "epoch_best", "precision", "device")
ONCE = ("seconds_features", "seconds_to_first_step")  # stored features are computed by the first of repeated runs
PLACE = ("commit", "machine", "torch", "precision")
INTRODUCTION = """Made by `python benchmarks/tables.py` from the folders of runs. Files in `measurements/` have a row
for each run. Of repeated runs the tables show the mean and, in brackets, the range. Features are computed once
and then reused: the columns `features` and `start to first step` show the slowest run, which computed them. The
interval (Wilson, 95 %) is that of the mean, for another sample of as many images; it does not cover other seeds."""
Row = dict[str, str]  # of a CSV file


def row(folder: Path) -> Row | None:
    """The row of a run, or None if it has not finished. Of a path in its settings only the last part is kept."""
    job, config = read_job(folder, finished_stays=True)
    if job.state != "finished":
        return None
    attempt = json.loads((folder / "provenance.json").read_bytes())[-1]
    overrides = [
        re.sub(r"""(?<==)["']?[/.~].*/""", "…/", each) for each in config["overrides"] if not UNSHOWN.match(each)
    ]
    found = {
        "settings": " ".join(each for each in overrides if not REPEATED.match(each)),
        "repetition": " ".join(each for each in overrides if REPEATED.match(each)),
        "commit": commit_of(attempt),
        "machine": f"{attempt['machine']['processor']}, threads: {attempt['threads']}",
        "torch": attempt["packages"]["torch"],
        "started": attempt["started"],
    }
    found |= {key: "" if job.metrics.get(key) is None else str(job.metrics[key]) for key in RECORDED}
    return found | {INTERVALS[key]: interval([found], key) for key in IMAGES}


def commit_of(attempt: Mapping[str, Any]) -> str:
    """Ten digits of the commit that an entry of provenance.json names, and whether its files were changed."""
    return (attempt["git_commit"] or "")[:10] + " with changes" * bool(attempt["git_dirty"])


def interval(rows: Sequence[Row], key: str) -> str:
    """That of the mean accuracy of rows, for as many images as one of them has; "" if one has no accuracy."""
    if not all(each[key] for each in rows):
        return ""
    images = int(rows[0][IMAGES[key]])
    return "{:.3f}–{:.3f}".format(*wilson_interval(round(mean(float(each[key]) for each in rows) * images), images))


def number(value: float, form: str) -> str:
    return format(value, form) if form else f"{float(f'{value:.3g}'):g}"


def read(path: Path) -> list[Row]:
    """The rows of a CSV file; none if there is no file."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []


def update(path: Path, folders: Sequence[Path]) -> int:
    """Adds the finished runs at or below the folders to a CSV file; returns how many they are."""
    added = [found for folder in find_runs(folders) if (found := row(folder))]
    rows = {tuple(each[key] for key in ("settings", "repetition", *PLACE[:2])): each for each in [*read(path), *added]}
    columns = list(dict.fromkeys(key for each in [*added, *rows.values()] for key in each))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, [columns, *([each.get(key) for key in columns] for _, each in sorted(rows.items()))])
    return len(added)


def table(rows: Sequence[Row]) -> str:
    """A line with what all rows share, and a table of the rest with a row for each group of repetitions, best first."""
    groups: dict[tuple, list[Row]] = {}
    for each in rows:
        groups.setdefault((each["settings"], *(each[key] for key in PLACE)), []).append(each)
    common = [word for word in rows[0]["settings"].split() if all(word in each["settings"].split() for each in rows)]
    varying = [key for key in PLACE if len({each[key] for each in rows}) > 1]
    lines: list[Row] = []
    for group in sorted(groups.values(), key=lambda group: -mean(float(each["val/acc_best"]) for each in group)):
        settings = " ".join(word for word in group[0]["settings"].split() if word not in common)
        line = {"added to the command": f"`{settings}`" * bool(settings), **{key: group[0][key] for key in varying}}
        line["repeated"] = ", ".join(filter(None, (each["repetition"] for each in group)))
        for key, (heading, form) in MEASURES.items():
            values = [float(each[key]) for each in group if each.get(key)]
            if key in ONCE and values:
                values = [longest] if (longest := max(values)) > 0.01 else []  # without frozen layers about 0
            texts = [number(choose(values), form) for choose in (mean, min, max) if values]
            line[heading] = f"{texts[0]} ({texts[1]}–{texts[2]})" if len(set(values)) > 1 else "".join(texts[:1])
            line |= {INTERVALS[key]: interval(group, key)} if key in IMAGES else {}
        lines.append(line)
    shown = [heading for heading in lines[0] if any(line[heading] for line in lines)]
    shared = ", ".join(f"{key} {rows[0][key]}" for key in PLACE if key not in varying and rows[0][key])
    made = markdown([shown, *([line[heading] for heading in shown] for line in lines)])
    return f"`{' '.join(['python train.py', *common])}`; {shared}\n\n{made}"


def render(docs: Path) -> None:
    """Writes measurements.md from the files of measurements/."""
    parts = ["# Measurements\n", f"{INTRODUCTION}\n"]
    for path in sorted((docs / "measurements").glob("*.csv")):
        text = path.with_suffix(".md")
        parts += [f"## {path.stem.replace('_', ' ')}\n", *([text.read_text(encoding="utf-8")] if text.exists() else [])]
        parts += [table(read(path))]
    write_text(docs / "measurements.md", "\n".join(parts))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(update(DOCS / "measurements" / f"{sys.argv[1]}.csv", [Path(each) for each in sys.argv[2:]]), "runs")
    render(DOCS)
