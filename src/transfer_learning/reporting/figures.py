"""Figures of predictions: confusion matrix, most confident mistakes, reliability diagram, Grad-CAM."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path, PurePath

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from transfer_learning.reporting.evaluation import BINS
from transfer_learning.reporting.prediction_table import PredictionTable
from transfer_learning.utilities.files import atomic_write

MOST_NUMBERS = 15  # classes up to which a confusion matrix shows its counts
MOST_NAMES = 120  # classes up to which it names each; they fill the largest side
MOST_CHARACTERS = 22  # of a class name in a confusion matrix
SIDE, GAP, DPI = 112, 10, 100  # pixels of an image in a grid, between two, and of an inch
TICK_FONT, CAPTION_FONT = FontProperties(size=10), FontProperties(size=7)


def of_predictions(table: PredictionTable, mistakes: np.ndarray, pixels: np.ndarray) -> dict[str, Figure]:
    """The figures of a table by name; mistakes are M of its rows, (M,) int64, and pixels theirs, (M, H, W, 3) uint8."""
    made = {"confusion": confusion_matrix(table), "reliability": reliability_diagram(table)}
    if len(mistakes):
        made["mistakes"] = image_grid(list(pixels), [caption(table, n) for n in mistakes])
    return made


def remove_figures(folder: str | Path) -> None:
    """Removes the figures of a run's earlier predictions, such as `mistakes-val.png`. Raises OSError."""
    for kind, split in product(("confusion", "reliability", "mistakes", "gradcam"), ("val", "test")):
        Path(folder, f"{kind}-{split}.png").unlink(missing_ok=True)


def confusion_matrix(table: PredictionTable) -> Figure:
    """How many images of each class (rows) were predicted as each class (columns), coloured by the share of the row.

    Of more than 15 classes it shows the shares alone. Of more than 120 it names only every second, third ... so that
    names do not cover each other.
    """
    count, matrix = len(table.class_names), table.confusion_counts()
    names = [_without_middle(name, MOST_CHARACTERS) for name in table.class_names]
    longest = max(_width(name, TICK_FONT) for name in names) / DPI
    side, rotated, numbered = min(3 + 0.25 * count, 19), count * longest > 2.4, count <= MOST_NUMBERS
    left, bottom, right, top = 0.55 + longest, (0.55 + longest if rotated else 0.6), (0.1 if numbered else 1.0), 0.4
    width, height = left + side + right, bottom + side + top  # inches
    figure = Figure(figsize=(width, height))  # without a layout engine, which takes a tenth of a second
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    named = range(0, count, -(-count // MOST_NAMES))
    shown = [_plain(names[code]) for code in named]
    axes.set_xticks(named, shown, rotation=90 if rotated else 0, fontproperties=TICK_FONT)
    axes.set_yticks(named, shown, fontproperties=TICK_FONT)
    axes.set(xlabel="predicted", ylabel="label", title=f"{np.trace(matrix)} of {len(table.files)} images right")
    if numbered:
        for (row, column), number in np.ndenumerate(matrix):
            axes.text(
                column, row, str(number), ha="center", va="center", color="w" if shares[row, column] > 0.5 else "k"
            )
    else:
        bar = figure.add_axes((1 - 0.85 / width, bottom / height, 0.2 / width, side / height))
        figure.colorbar(drawn, cax=bar, label="share of the label's images")
    return figure


def most_confident(table: PredictionTable, number: int, right: bool) -> np.ndarray:
    """Indices of rightly or wrongly predicted images, (M,) int64, M <= number: the largest probability first."""
    found = np.flatnonzero((table.predicted == table.labels) == right)
    order = np.argsort(-table.probabilities[found].max(axis=1), kind="stable")
    return found[order[:number]]


def reliability_diagram(table: PredictionTable) -> Figure:
    """Accuracy against the probability of the predicted class, in bins of equal width; below it, images in each bin."""
    confidence, right = table.probabilities.max(axis=1), table.predicted == table.labels
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    used = counts > 0
    means = [np.bincount(bins, values, BINS)[used] / counts[used] for values in (confidence, right)]
    figure = Figure(figsize=(4.5, 5.5))  # without a layout engine, which takes a tenth of a second
    figure.subplots_adjust(left=0.17, right=0.97, top=0.94, bottom=0.09, hspace=0.08)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="calibrated")
    upper.plot(*means, marker="o", label="model")
    upper.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1.02), title="reliability")
    upper.legend(loc="upper left")
    lower.bar(edges[:-1], counts, width=1 / BINS, align="edge", edgecolor="w")
    lower.set(xlabel="probability of the predicted class", ylabel="images")
    return figure


def image_grid(images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 5) -> Figure:
    """Images (H, W, 3) uint8, each above a title of one or more lines."""
    rows, lines = -(-len(images) // columns), max((title.count("\n") for title in titles), default=0) + 1
    width, height = SIDE + GAP, SIDE + 12 * lines + 12
    figure = Figure(figsize=(width * columns / DPI, height * rows / DPI), dpi=DPI)
    for number, (image, title) in enumerate(zip(images, titles)):
        row, column = divmod(number, columns)
        left, top = column * width + GAP // 2, (rows - row) * height - GAP // 2
        figure.figimage(np.asarray(Image.fromarray(image).resize((SIDE, SIDE))), left, top - SIDE, origin="upper")
        text = "\n".join(_plain(_fitted(line)) for line in title.split("\n"))
        place = left / width / columns, (top - SIDE - 3) / height / rows
        figure.text(*place, text, fontproperties=CAPTION_FONT, va="top", transform=figure.transFigure)
    return figure


def caption(table: PredictionTable, index: int) -> str:
    """File name, label, and predicted class with its probability, on three lines."""
    predicted = table.predicted[index]
    prediction = f"{table.class_names[predicted]} {table.probabilities[index, predicted]:.3f}"
    return f"{PurePath(table.files[index]).name}\nlabel: {table.class_names[table.labels[index]]}\n{prediction}"


def rendered(figure: Figure) -> np.ndarray:
    """A figure at 100 pixels an inch: (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def write_png(path: str | Path, pixels: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 atomically. Raises OSError."""
    with atomic_write(path) as file:
        Image.fromarray(pixels).save(file, format="png", compress_level=1)


def overlay(pixels: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 under a map (h, w) >= 0, which is scaled to its largest value: (H, W, 3) uint8."""
    scaled = Image.fromarray((cam / max(cam.max(), 1e-12)).astype(np.float32))
    resized = np.asarray(scaled.resize(pixels.shape[1::-1], Image.Resampling.BILINEAR))
    colours = colormaps["inferno"](resized, bytes=True)[..., :3]
    return (0.5 * pixels + 0.5 * colours).astype(np.uint8)


def _fitted(text: str) -> str:
    """A text about as wide as an image at most: without its middle if it is wider."""
    fitted, kept = text, min(len(text), 2 * MOST_CHARACTERS)
    while _width(fitted, CAPTION_FONT) > SIDE + GAP / 3:
        kept -= 1
        fitted = _without_middle(text, kept)
    return fitted


def _width(text: str, font: FontProperties) -> float:
    """The width of a text in pixels."""
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(text, font, ismath=False)[0]


def _without_middle(text: str, kept: int) -> str:
    return text if len(text) <= kept else f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"


def _plain(text: str) -> str:
    """A text in which a dollar sign does not begin a formula."""
    return text.replace("$", r"\$")
