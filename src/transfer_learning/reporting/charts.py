"""Charts of several runs as SVG elements, to be placed in an HTML page."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

from transfer_learning.reporting.intervals import wilson_interval
from transfer_learning.reporting.metric_names import label

TEXT = "#010203"  # in the SVG it becomes the page's text colour, light or dark
# Okabe and Ito's colours, which colour-blind people can tell apart, without yellow, which is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", TEXT)
DASHES = ((), (5, 2), (1, 1.5), (5, 1.5, 1, 1.5), (9, 2), (2, 2))  # lengths of strokes and gaps in line widths
CURVES = ("train/acc", "val/acc", "train/loss", "val/loss")
SETTINGS: dict = {"svg.fonttype": "none", "svg.hashsalt": "report", "text.parse_math": False}
SETTINGS |= {"font.size": 10, "lines.linewidth": 1.4}
SETTINGS |= dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), TEXT)


class Style(NamedTuple):
    """How a line is drawn: colour (#RRGGBB), and lengths of strokes and gaps in line widths."""

    colour: str
    dashes: tuple[float, ...]

    @property
    def stroke(self) -> str:
        """The colour in an HTML page."""
        return "currentColor" if self.colour == TEXT else self.colour

    def scaled(self, width: float) -> str:
        """The strokes and gaps of an SVG line of a width."""
        return " ".join(f"{length * width:g}" for length in self.dashes) or "none"

    def on(self, axes: Axes, x: Sequence[float], y: Sequence[float], **settings) -> None:
        """Draws a line."""
        axes.plot(x, y, color=self.colour, linestyle=(0, self.dashes) if self.dashes else "-", **settings)


def style(index: int) -> Style:
    """The style of a run; 42 runs have different ones."""
    return Style(COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)])


@matplotlib.rc_context(SETTINGS)
def curve_charts(histories: Sequence[Sequence[Mapping[str, float]]]) -> list[str]:
    """Accuracy and loss over epochs, of training and validation: four SVG elements, each with one line a run.

    Args:
        histories: for each run the rows of its epochs.csv, or none. The ids of run 0's lines begin with `run0-`.
    """
    charts, width = [], 1.4 if len(histories) <= 10 else 0.9
    for name in CURVES:
        sibling = [f"{split}/{name.rpartition('/')[2]}" for split in ("train", "val")]
        known = np.array([row[key] for rows in histories for row in rows for key in sibling if key in row])
        figure, axes = _figure(label(name), "epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for index, rows in enumerate(histories):
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            if points:
                marker = "." if len(points) == 1 else None
                style(index).on(axes, *zip(*points), gid=f"run{index}-{name}", marker=marker, linewidth=width)
        if known.size:  # the same axis for training and validation
            wide = name.endswith("loss") and known.min() > 0 and known.max() > 20 * np.median(known)
            margin = 0.04 * (known.max() - known.min()) or 0.05
            limits = (known.min() / 1.1, known.max() * 1.1) if wide else (known.min() - margin, known.max() + margin)
            axes.set(yscale="log" if wide else "linear", ylim=limits)
        charts.append(_svg(figure))
    return charts


@matplotlib.rc_context(SETTINGS)
def dependence_chart(
    setting: str, measure: str, lines: Mapping[str, Sequence[tuple[float, Sequence[float], int]]]
) -> str:
    """Accuracy against one number, a line a model, as an SVG element; a log axis if the numbers span a factor of 10.

    Args:
        setting, measure: labels of the axes.
        lines: for each line its points, ascending: the number, the accuracies of the runs, the number of images. The
            bar of a point is the 95 % interval (Wilson) of the runs' mean accuracy on that number of images.
    """
    figure, axes = _figure("", setting, measure, width=6)
    for index, (name, points) in enumerate(lines.items()):
        numbers, means = [number for number, _, _ in points], [float(np.mean(values)) for _, values, _ in points]
        bounds = np.array([wilson_interval(round(mean * total), total) for mean, (_, _, total) in zip(means, points)])
        chosen = style(index)
        chosen.on(axes, numbers, means, marker="o", markersize=4, label=name)
        bars = np.abs(bounds.T - means)
        axes.errorbar(numbers, means, bars, fmt="none", ecolor=chosen.colour, elinewidth=1, capsize=3)
        for number, values, _ in points:
            axes.plot([number] * len(values), values, ".", color=chosen.colour, markersize=3, alpha=0.6)
    ticks = sorted({number for points in lines.values() for number, _, _ in points})
    if ticks[0] > 0 and ticks[-1] >= 10 * ticks[0]:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    columns = 2 if max(map(len, lines)) <= 28 else 1  # longer names would be cut off at the sides
    figure.set_figheight(4 + 0.2 * max(0, math.ceil(len(lines) / columns) - 4))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    return _svg(figure)


class TradeOff(NamedTuple):
    """A model's accuracy, and what it is drawn against."""

    cost: float  # > 0: speed or size
    accuracy: float
    interval: tuple[float, float]
    on_front: bool  # of the Pareto front


@matplotlib.rc_context(SETTINGS)
def trade_off_chart(cost: str, measure: str, points: Sequence[TradeOff]) -> str:
    """Accuracy against speed or size, a point with its interval and its number (1, 2 ...) for each model, as an SVG
    element; a log axis. Points of the Pareto front are filled, and a line joins them.

    Args:
        cost, measure: labels of the axes.
    """
    figure, axes = _figure("", cost, measure)
    front = sorted((point.cost, point.accuracy) for point in points if point.on_front)
    axes.plot(*zip(*front), color=COLOURS[1])
    for point in points:
        colour, face = (COLOURS[1], COLOURS[1]) if point.on_front else (COLOURS[0], "none")
        bars = np.abs(np.array(point.interval) - point.accuracy)[:, None]
        axes.errorbar(point.cost, point.accuracy, bars, fmt="o", color=colour, mfc=face, elinewidth=1, capsize=3)
    low, high = (choose(point.cost for point in points) for choose in (min, max))
    axes.set(xscale="log", xlim=(low / 1.5, high * 1.5))
    digits = (1, 2, 5) if high >= 5 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
    ticks = [digit * 10.0**power for power in range(-3, 8) for digit in digits]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    _number_points(figure, axes, [(point.cost, point.accuracy) for point in points])
    return _svg(figure)


def _number_points(figure: Figure, axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Writes 1, 2 ... beside points: at the first of some places where it covers no other number and no point."""
    figure.draw_without_rendering()  # now it is known where points are
    taken = [Bbox([place - 4, place + 4]) for place in axes.transData.transform(points)]
    for number, point in enumerate(points, 1):
        for side, height in product((5, -5), (4, -12, 15, -23)):
            align = "left" if side > 0 else "right"
            text = axes.annotate(f"{number}", point, (side, height), textcoords="offset points", ha=align, fontsize=9)
            box = text.get_window_extent()
            if not box.count_overlaps(taken):
                break
            text.remove()
        else:
            axes.add_artist(text)
        taken.append(box)


def _figure(title: str, x: str, y: str = "", width: float = 5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 3.4 if width == 5 else 4), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.patch.set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Figure) -> str:
    """An SVG element for an HTML page: without header and metadata, and without ids that several charts would share."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| id="[\w.]+_\d+"', "", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"([^>]*?) width="[^"]*"', r"\1\2", text, count=1)
    return text.replace(TEXT, "currentColor")
