"""What a finished run leaves: metrics.json, curves.png and a short summary."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from transfer_learning.atomic import replacing


def wilson_interval(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion (Wilson 1927): low and high, in [0, 1]."""
    share = correct / total
    centre = share + z**2 / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return (centre - half) / scale, (centre + half) / scale


def write_report(folder: str | Path, metrics: Mapping, epochs: Sequence[Mapping]) -> None:
    """Writes `folder/curves.png`, and last `folder/metrics.json`, which marks a finished run; each complete or not at all.

    Args:
        metrics: plain values, as `training.train` returns them.
        epochs: the rows of `History`.
    """
    with replacing(Path(folder, "curves.png")) as file:
        curves(epochs).savefig(file, format="png", dpi=120)
    with replacing(Path(folder, "metrics.json")) as file:
        file.write(json.dumps(metrics, indent=2).encode() + b"\n")


def curves(epochs: Sequence[Mapping]) -> Figure:
    """The tutorial's two panels: accuracy and loss over epochs, training beside validation."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, key, title in zip(figure.subplots(1, 2), ("acc", "loss"), ("Accuracy", "Loss")):
        for part, label in (("train", "training"), ("val", "validation")):
            known = [row for row in epochs if f"{part}/{key}" in row]
            axes.plot(
                [row["epoch"] for row in known],
                [row[f"{part}/{key}"] for row in known],
                label=label,
                marker="." if len(known) < 40 else None,
            )
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def summary(folder: str | Path, metrics: Mapping) -> str:
    """The lines that close a run."""
    return "\n".join(
        [
            f"best validation accuracy {metrics['val/acc_best']:.4f} in epoch {metrics['epoch_best']} of {metrics['epochs']}",
            f"test accuracy of that epoch {metrics['test/acc']:.4f} on {metrics['images_test']} images "
            f"(95 % interval {metrics['test/acc_low']:.4f} to {metrics['test/acc_high']:.4f})",
            f"{metrics['seconds']:.0f} s on {metrics['device']}, precision {metrics['precision']}; "
            f"the first step began {metrics['seconds_to_first_step']:.1f} s after the start",
            f"curves: tensorboard --logdir {shlex.quote(str(folder))}",
        ]
    )
