"""Accuracy against speed and size, of runs that have measured them: a table and two charts."""

from collections.abc import Sequence
from statistics import mean, median, stdev

from transfer_learning.reporting.charts import TradeOff, trade_off_chart
from transfer_learning.reporting.comparison import Comparisons, pareto_front
from transfer_learning.reporting.intervals import wilson_interval
from transfer_learning.reporting.metric_names import SPLITS
from transfer_learning.runs.results import MEASURES, Keys, Run, repetitions

AXES = {"images_per_second": "images/s", "megabytes": "MB"}  # keys of metrics.json and headings
NEEDED = (*AXES, "seconds_features", "device", "precision")
FEWER_IS_BETTER = {"megabytes"}


def trade_off(
    runs: Sequence[Run], settings: Sequence[str], keys: Keys, split: str, comparisons: Comparisons
) -> tuple[list[list[str]], list[str], list[str]]:
    """Of runs with images whose metrics.json has all keys in `NEEDED`, repetitions of a run together.

    Accuracies and seconds of the fit are means of repetitions, speed and size medians, seconds of features the longest.

    Args:
        runs: they have an accuracy on `split`.
        settings: the keys of the settings that vary.
        keys: how settings are shown, and which ones make repetitions.
        split: "val" or "test".
        comparisons: those of `runs`, in this order.

    Returns:
        The table: a header, and a row for each group of repetitions, the most accurate on `split` first; two SVG
        elements, accuracy on `split` against speed and against size; devices and precisions of the measurements.
    """
    place = {run: index for index, run in enumerate(runs)}
    measured = [run for run in runs if run.images and all(run.job.metrics.get(key) is not None for key in NEEDED)]
    groups = sorted(repetitions(measured, keys), key=lambda group: -mean(run.accuracy or 0 for run in group))
    images = [comparisons.total_images({place[run]: run.images for run in group}) for group in groups]
    points = {axis: _points(groups, images, axis) for axis in AXES}
    tested = any(run.job.metrics.get(MEASURES["test"]) is not None for run in measured)
    splits = [each for each in MEASURES if each != "test" or tested]
    shown = list(dict.fromkeys([*(key for key in settings if key not in keys.replicates), *keys.shown]))
    table = [
        ["row", *shown, "n", *(f"{SPLITS[each]} accuracy ± standard deviation (95 % interval)" for each in splits)]
    ]
    table[0] += [*AXES.values(), "features + fit, s", "Pareto front"]
    for row, group in enumerate(groups):
        # Repetitions share the test images. How many validation images folds have together is known of "val" alone.
        sizes = {"test": group[0].job.metrics.get("images_test"), split: images[row]}
        features = max(run.job.metrics["seconds_features"] for run in group)
        seconds = features + mean(run.job.metrics["seconds"] for run in group)
        front = [heading for axis, heading in AXES.items() if points[axis][row].on_front]
        table.append([
            str(row + 1),
            *(", ".join(sorted({run.text(key, keys) for run in group})) for key in shown),
            str(len(group)),
            *(_accuracy([run.job.metrics.get(MEASURES[each]) for run in group], sizes.get(each)) for each in splits),
            *(_digits(points[axis][row].cost) for axis in AXES),
            _digits(seconds),
            ", ".join(front),
        ])  # fmt: skip
    charts = [trade_off_chart(AXES[axis], f"{SPLITS[split]} accuracy", points[axis]) for axis in AXES if groups]
    where = {f"{run.job.metrics['device']}, precision {run.job.metrics['precision']}" for run in measured}
    return table, charts, sorted(where)


def _points(groups: Sequence[Sequence[Run]], images: Sequence[int], axis: str) -> list[TradeOff]:
    accuracies = [mean(run.accuracy or 0 for run in group) for group in groups]
    costs = [median(run.job.metrics[axis] for run in group) for group in groups]
    sign = -1 if axis in FEWER_IS_BETTER else 1
    front = pareto_front([(accuracy, sign * cost) for accuracy, cost in zip(accuracies, costs)])
    bounds = [wilson_interval(round(accuracy * total), total) for accuracy, total in zip(accuracies, images)]
    return [TradeOff(*each) for each in zip(costs, accuracies, bounds, front)]


def _accuracy(values: Sequence[float | None], images: int | None) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = f"{mean(known):.3f}"
    if len(known) > 1:
        text += f" ± {stdev(known):.3f}"
    if images:
        text += " ({:.3f}–{:.3f})".format(*wilson_interval(round(mean(known) * images), images))
    return text


def _digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
