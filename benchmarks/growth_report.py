"""The table and the plot of growth.py's measurements.

python benchmarks/growth_report.py RESULTS OUT

Reads the JSON files in the folder RESULTS, and writes growth.md and growth.png to the folder OUT.
"""

import argparse
import ast
import json
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from transfer_learning.runs.leaderboard import markdown
from transfer_learning.utilities.files import atomic_write, write_text

OF_TRAIN = ("second start", "head epoch", "end of run")  # stages of one process, which has one largest memory
FIRST_START = ("digest", "decode", "features", "second start")
UNITS = {"seconds": "Seconds", "MB": "Largest memory in MB"}
TICKS = {"seconds": (1, 2, 5), "MB": (1, 1.5, 2, 3, 5, 7)}  # multiples of powers of ten
Pair = tuple[int, int]  # images, classes
Results = Mapping[Pair, Mapping[str, Mapping[str, float]]]  # of each combination and stage "seconds" and "MB"


def stages(results: Results, unit: str) -> list[str]:
    """The rows of a table: the stages in their order."""
    measured = list(next(iter(results.values())))
    return [*measured, "first start"] if unit == "seconds" else [each for each in measured if each not in OF_TRAIN[::2]]


def value(results: Results, pair: Pair, stage: str, unit: str) -> float:
    """That of a stage, or of a first start: its sum."""
    return sum(results[pair][each][unit] for each in (FIRST_START if stage == "first start" else [stage]))


def exponent(before: float, after: float, growth: float) -> float:
    """By which power a quantity grows while another one grows by a factor: 1 is linear."""
    return round(math.log(after / before) / math.log(growth), 2) + 0.0  # never -0.0


def table(results: Results, pairs: Sequence[Pair], unit: str) -> str:
    """A row a stage, a column a combination; in brackets the power of the growth since the column before."""
    rows = [["", *(f"{images:,} images, {classes:,} classes" for images, classes in pairs)]]
    for stage in stages(results, unit):
        values = [value(results, pair, stage, unit) for pair in pairs]
        texts = [f"{each:.2g}" if each < 10 else f"{each:,.0f}" for each in values]
        for n, (before, after) in enumerate(pairwise(pairs), 1):
            factor = after[0] / before[0] if before[0] != after[0] else after[1] / before[1]
            texts[n] += f" ({exponent(values[n - 1], values[n], factor):.2f})"
        rows.append([stage, *texts])
    return markdown(rows)


def plot(results: Results, panels: Mapping[str, Sequence[Pair]]) -> Figure:
    """Seconds above megabytes, a column for each series of combinations, a line for each stage with its name beside."""
    figure = Figure(figsize=(6.5 * len(panels), 11), layout="constrained")
    grid = figure.subplots(len(UNITS), len(panels), squeeze=False, sharey="row")
    colours = {stage: f"C{n}" for n, stage in enumerate(stages(results, "seconds"))} | {"first start": "k"}
    ends: dict[Axes, dict[str, float]] = {}
    for (title, pairs), column in zip(panels.items(), grid.T):
        which = int(pairs[0][0] == pairs[-1][0])  # what grows: images or classes
        x = [pair[which] for pair in pairs]
        for axes, unit in zip(column, UNITS):
            for stage in stages(results, unit):
                y = [value(results, pair, stage, unit) for pair in pairs]
                axes.loglog(x, y, marker="o", color=colours[stage], linewidth=3 if stage == "first start" else 1.5)
                ends.setdefault(axes, {})[stage] = y[-1]
            axes.set(title=title, xlabel=("images", "classes")[which], ylabel=UNITS[unit])
            axes.set_xlim(x[0] * 0.8, x[-1] * 1.25)
            axes.yaxis.set_major_locator(LogLocator(subs=TICKS[unit]))
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.minorticks_off()
            axes.set_xticks(x, [f"{each:,}" for each in x])
            axes.tick_params(labelleft=True)
            axes.grid(alpha=0.3)
    for axes, names in ends.items():  # when the axes of a row have their common limits
        label_ends(axes, names, colours)
    return figure


def label_ends(axes: Axes, ends: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Writes names of lines right of the axes, each as high as its line ends if there is room: name -> y."""
    low, high = map(math.log, axes.get_ylim())
    lowest = -math.inf
    for name, y in sorted(ends.items(), key=lambda end: end[1]):
        end = (math.log(y) - low) / (high - low)  # as a share of the axes
        lowest = max(end, lowest + 0.04)
        place = dict(xycoords="axes fraction", textcoords="axes fraction", va="center", color=colours[name])
        line = dict(arrowstyle="-", color=colours[name], linewidth=0.5)
        axes.annotate(name, (1, end), xytext=(1.04, lowest), arrowprops=line, annotation_clip=False, **place)


def write(results: Results, places: Sequence[str], out: Path) -> None:
    """Writes growth.png and growth.md. `places` are what was measured where, in words."""
    sizes, classes = (sorted({pair[which] for pair in results}) for which in (0, 1))
    middle = sizes[len(sizes) // 2]
    by_size = {count: [(size, count) for size in sizes if (size, count) in results] for count in classes}
    few, many = f"{classes[0]:,} classes", f"{classes[-1]:,} classes"
    by_classes = [(middle, count) for count in classes]
    series = {few: by_size[classes[0]], f"{middle:,} images": by_classes, many: by_size[classes[-1]]}
    series = {title: pairs for title, pairs in series.items() if len(pairs) > 1}
    about = ast.get_docstring(ast.parse(Path(__file__).with_name("growth.py").read_text(encoding="utf-8")))
    parts = [f"# Growth\n\n![Seconds and memory of each stage](growth.png)\n\n```text\n{about}\n```\n"]
    parts += [f"{each}.\n" for each in places]
    parts += [
        "In brackets: the exponent of the growth since the column before; 1 is linear. The memory of `head epoch` is"
    ]
    parts += ["that of the whole process, which `second start` and `end of run` are parts of.\n"]
    for title, pairs in series.items():
        parts += [f"## {title}\n", *(f"{UNITS[unit]}:\n\n{table(results, pairs, unit)}" for unit in UNITS)]
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "growth.png") as file:
        plot(results, series).savefig(file, format="png", dpi=80)
    write_text(out / "growth.md", "\n".join(parts))


def main(folder: str, out: str) -> None:
    found = [json.loads(file.read_bytes()) for file in Path(folder).glob("*-images-*-classes.json")]
    if not found:
        sys.exit(f"{folder}: no measurements of growth.py there")
    found = sorted(found, key=lambda each: (each["images"], each["classes"]))
    places = dict.fromkeys("; ".join(f"{key}: {text}" for key, text in each["place"].items()) for each in found)
    write({(each["images"], each["classes"]): each["stages"] for each in found}, list(places), Path(out))
    print(Path(out, "growth.md"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="RESULTS")
    parser.add_argument("out", metavar="OUT")
    main(**vars(parser.parse_args()))
