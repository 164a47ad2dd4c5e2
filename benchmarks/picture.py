"""Draws docs/results.png: the curves of the five systems, and predictions with their Grad-CAM on drawings.

python benchmarks/picture.py RUN

The curves are those of docs/results.json. RUN is a run of `experiment=quickstart`; its model has not seen the drawings.
"""

import argparse
import json
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from tables import DOCS

from transfer_learning import load
from transfer_learning.callbacks.evaluation import grad_cam_overlays
from transfer_learning.data.images import unlabelled
from transfer_learning.data.preprocessing import decode
from transfer_learning.data.sources.cartoons import cartoon
from transfer_learning.utilities.files import atomic_write

DRAWINGS = 8
COLOURS = {"1": "tab:gray", "2": "tab:olive", "3": "tab:green", "4": "tab:blue", "5": "tab:red"}


def draw(results: Mapping, drawings: Sequence[np.ndarray], maps: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Curves above; below them `drawings` and `maps`, (H, W, 3) uint8 each, with a title for each pair."""
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2.1, 1])
    draw_curves(above.subplots(), results)
    about = "New drawings, classified by experiment=quickstart; below, Grad-CAM: bright regions support the class"
    below.suptitle(about, size=10)
    for axes, images in zip(below.subplots(2, len(drawings)), (drawings, maps)):
        for each, image in zip(axes, images):
            each.imshow(image)
            each.axis("off")
        if images is drawings:
            for each, title in zip(axes, titles):
                each.set_title(title, fontsize=9)
    return figure


def draw_curves(axes, results: Mapping) -> None:
    """Validation accuracy by epoch: mean and range over seeds; the tutorial's best at the right edge."""
    for name, by_seed in results["curves"].items():
        curves = np.array(list(by_seed.values()))
        epochs, colour = np.arange(1, curves.shape[1] + 1), COLOURS[name[0]]
        dashes = "--" if name.endswith("each epoch") else "-"
        axes.plot(epochs, curves.mean(axis=0), dashes, color=colour, label=name)
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.2, lw=0)
        axes.plot(103, results["tutorial"][name]["val/acc_best"], "<", color=colour, clip_on=False)
    axes.plot([], [], "<", color="black", label="the tutorial's best epoch")
    axes.set(xlabel="epoch (lines: means of the seeds; bands: ranges)", ylabel="validation accuracy")
    axes.set(xlim=(1, 102), ylim=(0.5, 1.0))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", ncols=2, fontsize=9)


def main(run: str) -> None:
    model = load(run)
    images = [cartoon(number % 2, f"of the picture, {number}") for number in range(DRAWINGS)]
    predicted = model.predict(images)
    codes = predicted.probabilities.argmax(axis=1)
    pixels, _ = decode(unlabelled(images), model.preprocessing, range(DRAWINGS))
    titles = [f"{name} {row.max():.2f}" for name, row in zip(predicted.classes, predicted.probabilities)]
    maps = list(grad_cam_overlays(model, pixels, codes))
    results = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))
    with atomic_write(DOCS / "results.png") as file:
        draw(results, [np.asarray(image) for image in images], maps, titles).savefig(file, format="png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN")
    main(parser.parse_args().run)
