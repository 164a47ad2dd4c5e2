"""The files and lines that close a run: curves.png, epochs.csv, metrics.json and a summary."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from transfer_learning.reporting.metric_names import SPLITS, label
from transfer_learning.utilities.files import atomic_write, write_csv, write_text


def write_results(folder: str | Path, metrics: Mapping, epochs: Sequence[Mapping]) -> None:
    """Writes `curves.png`, `epochs.csv`, and last `metrics.json`, which marks a finished run; each atomically.

    Args:
        metrics: plain values, as `engine.training.train` returns them.
        epochs: the rows of `callbacks.history.History`.
    """
    with atomic_write(Path(folder, "curves.png")) as file:
        curves(epochs, metrics.get("monitor")).savefig(file, format="png", dpi=120)
    columns = list(dict.fromkeys(key for row in epochs for key in row))
    write_csv(Path(folder, "epochs.csv"), [columns, *([row.get(key) for key in columns] for row in epochs)])
    write_text(Path(folder, "metrics.json"), json.dumps(metrics, indent=2) + "\n")


def curves(epochs: Sequence[Mapping], monitor: str | None = None) -> Figure:
    """Accuracy, loss and the monitored metric over epochs, training beside validation, one panel each."""
    names = list(dict.fromkeys(["acc", "loss", *([monitor.rpartition("/")[2]] if monitor else [])]))
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names)), names):
        for split in ("train", "val"):
            known = [row for row in epochs if f"{split}/{name}" in row]
            values = [row[f"{split}/{name}"] for row in known]
            marker = "." if len(known) < 40 else None
            axes.plot([row["epoch"] for row in known], values, label=SPLITS[split], marker=marker)
        title = label(name)
        axes.set(title=title[:1].upper() + title[1:], xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def summary(folder: str | Path, metrics: Mapping) -> str:
    """The last lines of a run's output."""
    best = f"in epoch {metrics['epoch_best']} of {metrics['epochs']}"
    lines = [f"best validation accuracy {metrics['val/acc_best']:.4f} {best}"]
    if metrics["monitor"] != "val/acc":
        lines = [f"best {label(metrics['monitor'])} {metrics['monitor_best']:.4f} {best}"]
        lines += [f"validation accuracy of that epoch {metrics['val/acc_best']:.4f}"]
    if metrics["test/acc"] is not None:
        interval = f"(95 % interval {metrics['test/acc_low']:.4f} to {metrics['test/acc_high']:.4f})"
        tested = f"{metrics['test/acc']:.4f} on {metrics['images_test']} images"
        lines += [f"test accuracy of that epoch {tested} {interval}"]
        monitored = f"test/{metrics['monitor'].rpartition('/')[2]}"
        if monitored != "test/acc" and monitored in metrics:
            lines += [f"{label(monitored)} of that epoch {metrics[monitored]:.4f}"]
    start = f"the first step began {metrics['seconds_to_first_step']:.1f} s after the start"
    lines += [f"{metrics['seconds']:.0f} s on {metrics['device']}, precision {metrics['precision']}; {start}"]
    has_events = any(Path(folder).glob("events.out.tfevents*"))
    shown = f"tensorboard --logdir {shlex.quote(str(folder))}" if has_events else str(Path(folder, "curves.png"))
    return "\n".join([*lines, f"curves: {shown}"])
