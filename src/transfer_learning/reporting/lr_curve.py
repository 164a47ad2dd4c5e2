"""The loss over a rising learning rate: a suggestion, and the files that show it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from transfer_learning.utilities.files import atomic_write, write_text

WIDTH = 0.3  # of the smoothing, in decades of the learning rate: a Gaussian's standard deviation
BEGIN = 0.25  # the share of the steps whose learning rates are taken as too small to change the loss


@dataclass(frozen=True)
class LearningRateCurve:
    """Learning rates, which rise exponentially, and the loss of each step's images before the step; both (N,)."""

    rates: Sequence[float]
    losses: Sequence[float]

    @property
    def first_losses(self) -> np.ndarray:
        """The losses of the first steps, which tell the noise."""
        return np.array(self.losses[: max(2, int(BEGIN * len(self.losses)))])

    @cached_property
    def smoothed(self) -> np.ndarray:
        """The losses up to the first that is not finite, each averaged with its neighbours: a Gaussian of `WIDTH`."""
        finite = np.isfinite(self.losses)
        count = len(finite) if finite.all() else int(finite.argmin())
        place = np.log10(self.rates[:count])
        weights = np.exp(-0.5 * ((place[:, None] - place) / WIDTH) ** 2)
        return weights @ np.array(self.losses[:count]) / weights.sum(axis=1)

    @cached_property
    def suggestion(self) -> float | None:
        """The learning rate at which the smoothed loss falls most per decade, before its minimum.

        None if the loss does not fall clearly: by less than the standard deviation of single steps' losses.
        """
        losses, lowest = self.smoothed, int(self.smoothed.argmin())
        noise = max(self.first_losses.std(), 1e-6)
        if lowest == 0 or self.first_losses.mean() - losses[lowest] <= noise:
            return None
        falls = np.gradient(losses, np.log10(self.rates[: len(losses)]))[: lowest + 1]
        return float(self.rates[int(falls.argmin())])

    def __str__(self) -> str:
        searched = f"{len(self.rates)} steps at learning rates from {self.rates[0]:.1e} to {self.rates[-1]:.1e}"
        if self.suggestion is None:
            return f"no suggestion: the loss does not fall clearly in {searched}"
        return f"suggested learning rate {self.suggestion:.1e}, where the loss falls most ({searched})"


def write_lr_curve(folder: str | Path, curve: LearningRateCurve) -> None:
    """Writes `lr_find.png`, and `lr_find.json` with `suggestion`, `rates` and `losses`; each atomically.

    In the file, null is no suggestion, and a loss that was not finite.
    """
    with atomic_write(Path(folder, "lr_find.png")) as file:
        lr_figure(curve).savefig(file, format="png", dpi=120)
    losses = [loss if np.isfinite(loss) else None for loss in curve.losses]
    content = {"suggestion": curve.suggestion, "rates": list(curve.rates), "losses": losses}
    write_text(Path(folder, "lr_find.json"), json.dumps(content) + "\n")


def lr_figure(curve: LearningRateCurve) -> Figure:
    """The loss over the learning rate, on a logarithmic axis, with the suggestion."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes, smoothed = figure.subplots(), curve.smoothed
    axes.plot(curve.rates, curve.losses, ".", color="0.7", label="one step")
    axes.plot(curve.rates[: len(smoothed)], smoothed, label="smoothed")
    if curve.suggestion is not None:
        height = smoothed[list(curve.rates).index(curve.suggestion)]
        axes.plot(curve.suggestion, height, "o", color="tab:red", label=f"suggestion {curve.suggestion:.1e}")
    shown = [*curve.first_losses, smoothed.min()]  # not up to where the loss explodes
    margin = 0.1 * (max(shown) - min(shown)) + 1e-6
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", title="Learning-rate finder")
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
