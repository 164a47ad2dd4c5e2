"""The report that compares runs, on one page and on the terminal: results, comparisons in pairs, curves, pictures."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from markupsafe import Markup
from tabulate import tabulate

from transfer_learning.reporting.charts import curve_charts, dependence_chart, style
from transfer_learning.reporting.comparison import Comparisons
from transfer_learning.reporting.intervals import wilson_interval
from transfer_learning.reporting.metric_names import SPLITS, label
from transfer_learning.reporting.page import confusion_rows, embedded, write_page
from transfer_learning.runs.results import Keys, Run, differing_settings, find_runs, read_run, repetitions
from transfer_learning.runs.trade_off import trade_off
from transfer_learning.utilities.cores import usable_cores

PICTURES = {"mistakes": "Mistakes", "gradcam": "Grad-CAM: where the network looks", "reliability": "Reliability"}
PUBLISHED = {  # the published results that a config may name: heading and format
    "val/acc_best": ("best validation accuracy", ".4f"),
    "val/acc_last": ("validation accuracy, last epoch", ".4f"),
    "train/acc_last": ("training accuracy, last epoch", ".4f"),
    "val/loss_lowest": ("lowest validation loss", ".3f"),
    "seconds_per_epoch": ("seconds per epoch", ".3g"),
    "images_val": ("validation images", "g"),
}
Table = list[list[str]]  # the header, and a row a run, or a row a group or pair of runs


def write_comparison_report(paths: Sequence[Path], out: Path, split: str, keys: Keys) -> str:
    """Writes the page of the runs at or below paths to `out`, and returns what the terminal shows of it.

    The runs are compared on the images of `split`, "val" or "test". Raises UserError if there is no run, and OSError.
    """
    everything = [read_run(path, split) for path in find_runs(paths)]
    runs = sorted((run for run in everything if run.accuracy is not None), key=lambda run: -(run.accuracy or 0))
    left_out = [(str(run.path), _reason(run)) for run in everything if run.accuracy is None]
    settings = differing_settings(runs, keys)
    found = Comparisons([run.predictions for run in runs])
    speeds, speed_charts, devices = trade_off(runs, settings, keys, split, found)
    shown = {
        "speeds": speeds,
        "runs": _run_table(runs, settings, keys, split, found),
        "repetitions": _repetition_table(runs, settings, keys, split),
        "published": _published_table(runs, settings, keys),
    }
    with ThreadPoolExecutor(usable_cores()) as pool:
        details = list(pool.map(partial(_details, split=split, settings=settings, keys=keys), runs))
    dependences = _dependences(runs, settings, keys, split, found)
    content = {
        "tables": {**shown, "pairs": _pair_table(found)},
        "split": SPLITS[split],
        "tested": split == "val" and any(run.job.metrics.get("test/acc") is not None for run in runs),
        "paths": [str(path) for path in paths],
        "left_out": left_out,
        "styles": [style(number) for number in range(len(runs))],
        "verdicts": [found.verdict(number) for number in range(len(runs))],
        "details": details,
        "sources": sorted({str(run.config.get(f"{keys.reference}.source", "")) for run in runs} - {""}),
        "curves": [Markup(chart) for chart in curve_charts([run.epochs for run in runs])],
        "speed_charts": [Markup(chart) for chart in speed_charts],
        "devices": devices,
        "dependences": [(Markup(chart), notes) for chart, notes in dependences],
    }
    write_page(out, content, "comparison_report.html.jinja")
    texts = [_for_terminal(*table) for table in shown.values() if table[1:]]
    texts += ["\n".join(notes) for _, notes in dependences if notes]
    texts += ["\n".join(f"run {number}: {run.path}" for number, run in enumerate(runs, 1))]
    texts += ["\n".join(_note_lines([(str(run.path), note) for run in runs for note in run.missing] + left_out))]
    return "\n\n".join(texts).strip()


def _note_lines(notes: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each note, with the first path that has it, and how many more have."""
    lines = []
    for note in dict.fromkeys(note for _, note in notes):
        first, *others = [path for path, each in notes if each == note]
        more = f" and {len(others)} more" if others else ""
        lines.append(f"{first}{more}: {note}")
    return lines


def _for_terminal(header: list[str], *rows: list[str]) -> str:
    widths = [max(16, *map(len, name.split())) for name in header]
    return tabulate(rows, header, disable_numparse=True, maxheadercolwidths=widths)


def _run_table(runs: Sequence[Run], settings: list[str], keys: Keys, split: str, found: Comparisons) -> Table:
    monitors = sorted({run.job.metrics["monitor"] for run in runs} - {"val/acc"})
    has_several_sets = max((number or 0 for number in found.sets), default=0) > 0
    header = ["run", *settings, f"{SPLITS[split]} accuracy (95 % interval)"]
    header += [f"best {label(key)}" for key in monitors]
    if has_several_sets:
        header.append("images")
    header += ["comparison", "difference from best (95 % interval)", "p (Holm)"]
    table = [[*header, "best epoch", "epochs", "s per epoch", "s"]]
    for number, run in enumerate(runs):
        metrics, accuracy, images = run.job.metrics, run.accuracy or 0.0, found.sets[number]
        result = f"{accuracy:.3f}"
        if run.images:
            result += " ({:.3f}–{:.3f})".format(*wilson_interval(round(accuracy * run.images), run.images))
        row = [str(number + 1), *(run.text(key, keys) for key in settings), result]
        row += [_number(metrics["monitor_best"], ".4f") if metrics["monitor"] == key else "" for key in monitors]
        if has_several_sets:
            row.append("" if images is None else f"set {images + 1}")
        pair, p = found.with_best.get(number, (None, None))
        row += [found.verdict(number), _interval(*pair[:3]) if pair else "", _p(p)]
        row += [_number(metrics.get(key), "g") for key in ("epoch_best", "epochs")]
        row += [_number(metrics.get(key), ".1f") for key in ("seconds_per_epoch", "seconds")]
        table.append(row)
    return table


def _repetition_table(runs: Sequence[Run], settings: list[str], keys: Keys, split: str) -> Table:
    """Without rows if no run is repeated with another seed or fold."""
    table = [[*settings, "n", f"{SPLITS[split]} accuracy, mean ± standard deviation", "s per epoch, mean"]]
    groups = repetitions(runs, keys)
    if len(groups) == len(runs):
        return table
    for members in groups:
        accuracies = [run.accuracy or 0.0 for run in members]
        seconds = [run.job.metrics["seconds_per_epoch"] for run in members if run.job.metrics.get("seconds_per_epoch")]
        values = [sorted({run.text(key, keys) for run in members}) for key in settings]
        spread = f" ± {stdev(accuracies):.3f}" if len(members) > 1 else ""
        result = f"{mean(accuracies):.3f}{spread}", _number(mean(seconds) if seconds else None, ".1f")
        table.append([*map(", ".join, values), _repeated(members, keys), *result])
    return table


def _repeated(members: Sequence[Run], keys: Keys) -> str:
    """How often a run is repeated: 5 folds × 3 seeds."""
    numbers = {key.rpartition(".")[2]: len({run.text(key, keys) for run in members}) for key in keys.replicates}
    text = " × ".join(f"{number} {name}s" for name, number in numbers.items() if number > 1)
    if prod(numbers.values()) == len(members) > 1:
        return text
    return f"{len(members)} ({text})" if text else str(len(members))


def _published_table(runs: Sequence[Run], settings: list[str], keys: Keys) -> Table:
    """Published results beside those of the runs whose config names some; other runs have no row."""
    prefix = f"{keys.reference}."
    published = [{key: run.config[prefix + key] for key in PUBLISHED if prefix + key in run.config} for run in runs]
    names = [key for key in PUBLISHED if any(key in each for each in published)]
    table = [["run", *settings, *(text for key in names for text in (PUBLISHED[key][0], "published"))]]
    for number, (run, theirs) in enumerate(zip(runs, published)):
        if theirs:
            losses = [row["val/loss"] for row in run.epochs if "val/loss" in row]
            ours = {**run.job.metrics, "val/loss_lowest": min(losses, default=None)}
            results = [_number(each.get(key), PUBLISHED[key][1]) for key in names for each in (ours, theirs)]
            table.append([str(number + 1), *(run.text(key, keys) for key in settings), *results])
    return table


def _pair_table(found: Comparisons) -> Table:
    table = [["A", "B", "A − B (95 % interval)", "only A correct", "only B correct", "p", "p (Holm)"]]
    for (a, b), pair in found.pairs.items():
        counts = str(pair.only_a), str(pair.only_b)
        table.append([str(a + 1), str(b + 1), _interval(*pair[:3]), *counts, _p(pair.p), _p(found.corrected[a, b])])
    return table


def _dependences(
    runs: Sequence[Run], settings: list[str], keys: Keys, split: str, found: Comparisons
) -> list[tuple[str, list[str]]]:
    """A chart for each setting that has three numbers or more, and notes on it. Runs without images are left out."""
    charts = []
    for key in (each for each in settings if each not in keys.replicates):
        values = {number: run.setting(key, keys) for number, run in enumerate(runs) if run.images}
        others = [each for each in settings if each != key and each not in keys.replicates]
        if all(type(value) in (int, float) for value in values.values()) and len(set(values.values())) > 2:
            lines: dict[str, dict[float, list[int]]] = {}
            for number, value in values.items():
                title = _title(runs[number], others, keys) or "all runs"
                lines.setdefault(title, {}).setdefault(value, []).append(number)
            sizes: dict[int, int] = {number: runs[number].job.metrics.get("images_train", 0) for number in values}
            counts = sizes if key in keys.train_shares and all(sizes.values()) else None
            points = {name: _points(line, runs, found, counts) for name, line in sorted(lines.items())}
            chart = dependence_chart("training images" if counts else key, f"{SPLITS[split]} accuracy", points)
            charts.append((chart, _last_steps(lines, points, found) if counts else []))
    return charts


def _points(
    line: Mapping[float, list[int]], runs: Sequence[Run], found: Comparisons, counts: Mapping[int, int] | None
) -> list[tuple[float, list[float], int]]:
    """For each value of a setting, or its mean count: the runs' accuracies, and the number of images of all of them."""
    points = []
    for value, numbers in sorted(line.items()):
        images = found.total_images({number: runs[number].images for number in numbers})
        x = round(mean(counts[number] for number in numbers)) if counts else value
        points.append((x, [runs[number].accuracy or 0.0 for number in numbers], images))
    return points


def _last_steps(lines: Mapping[str, Mapping[float, list[int]]], points: Mapping, found: Comparisons) -> list[str]:
    """For each line, what the last step to more training images has gained."""
    notes = []
    for name in points:
        steps = [numbers for _, numbers in sorted(lines[name].items())]
        if len(steps) > 1 and (gain := found.mean_difference(steps[-1], steps[-2])):
            (before, *_), (after, *_) = points[name][-2:]
            line = f" ({name})" if len(points) > 1 else ""
            notes.append(f"From {before} to {after} training images{line}, accuracy changes by {_interval(*gain)}")
    return notes


def _details(run: Run, split: str, settings: list[str], keys: Keys) -> Mapping[str, Any]:
    """What is folded away for each run: where it is, what is missing, confusion matrix and pictures."""
    pictures, missing = [], list(run.missing)
    matrix = confusion_rows(run.predictions) if run.predictions else None
    for name, caption in (PICTURES if matrix else {"confusion": "Confusion matrix", **PICTURES}).items():
        try:
            pictures.append((caption, embedded(run.path / f"{name}-{split}.png")))
        except OSError as error:
            missing.append(f"{name}-{split}.png: {'none' if isinstance(error, FileNotFoundError) else error}")
    return {
        "title": _title(run, settings, keys),
        "path": str(run.path),
        "command": " ".join(f"{key}={value}" for key, value in run.job.settings.items()),
        "missing": missing,
        "matrix": matrix,
        "classes": run.predictions.class_names if run.predictions else [],
        "pictures": pictures,
    }


def _title(run: Run, settings: Sequence[str], keys: Keys) -> str:
    return ", ".join(f"{key}={run.text(key, keys)}" for key in settings)


def _reason(run: Run) -> str:
    return ": ".join(filter(None, [run.job.state, run.job.reason or "; ".join(run.missing)]))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")


def _p(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else _number(value, ".3f")
