"""Classify images with the model of a run.

RUN is the folder of a run or a checkpoint; of several, the probabilities are averaged. PATH is an image, a folder or a
pattern. Images that cannot be read are named and skipped, and the exit code is 1 then.
"""

import argparse
import re
import sys
from collections import Counter
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transfer_learning.utilities.text import printable, shortened, some

EXAMPLES = (
    "outputs/runs/RUN photo.jpg holiday/ --top 3",
    "outputs/runs/RUN1 outputs/runs/RUN2 'photos/**/*.jpg' --out predictions.csv",
)
SIDE = 320  # pixels of an image with Grad-CAM, at least
SHOWN = 10  # classes in the summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first_run", type="path", metavar="RUN", help="a run or a checkpoint")
    parser.add_argument(
        "paths", type="path", nargs="+", metavar="PATH", help="images, folders or patterns; before them, more runs"
    )
    parser.add_argument("--top", type=int, default=1, metavar="K", help="print the K most probable classes (1)")
    parser.add_argument(
        "--out", type="path", metavar="FILE", help="write all probabilities to this .csv or .jsonl file"
    )
    parser.add_argument(
        "--explain", type="path", metavar="FOLDER", help="write each image with its Grad-CAM to this new folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE, and files in FOLDER")
    parser.add_argument("--tta", choices=["flip"], help="average the probabilities of each image and its mirror image")
    parser.add_argument("--accelerator", default="auto", help="auto (a GPU if there is one), cpu, gpu or mps")


def run(options: argparse.Namespace) -> int:
    from transfer_learning.callbacks.evaluation import grad_cam_overlays
    from transfer_learning.cli.files import check_new, check_not_input, check_suffix
    from transfer_learning.cli.images import image_files
    from transfer_learning.engine.checkpoint import find_checkpoint, load
    from transfer_learning.utilities.errors import UserError
    from transfer_learning.utilities.hardware import configure_process

    more_runs = list(takewhile(is_run, options.paths))
    paths = options.paths[len(more_runs) :]
    if not paths or any(map(is_run, paths)):
        taken = f" after {more_runs[-1]}, which is a run by its checkpoints/ or metrics.json" if more_runs else ""
        reason = f"{next(filter(is_run, paths))}: a run after images" if paths else f"no images{taken}"
        raise UserError(f"{reason}; expected RUN, more runs if wanted, and then images, folders or patterns.")
    checkpoints = [find_checkpoint(path) for path in [options.first_run, *more_runs]]
    out = None
    if options.out is not None:
        check_suffix(options.out, [".csv", ".jsonl"])
        out = check_new(options.out, options.overwrite)
    if options.top < 1:
        raise UserError(f"--top {options.top}: expected 1 or more.")
    explain = None
    if options.explain is not None:
        check_not_input(options.explain, paths, "--explain")
        explain = check_new(options.explain, options.overwrite, is_folder=True, option="--explain")
    if explain and more_runs:
        raise UserError("--explain: expected one run, since an ensemble has several maps.")
    if explain and out and explain.resolve() == out.resolve():
        raise UserError(f"--explain {options.explain}: the same as --out; expected a folder of its own.")
    files = image_files(paths)
    configure_process()
    models = [load(path) for path in checkpoints]
    if explain:  # before the work, since a transformer has no maps
        side = models[0].preprocessing.image_size
        grad_cam_overlays(models[0], np.zeros((1, side, side, 3), np.uint8), np.zeros(1, np.int64))
    result = predict_files(models, files, options.accelerator, options.tta)
    if out and (result.files or not result.interrupted):  # an interrupt before the first images keeps the old file
        write(out, result)
    if result.files:
        shown = f"{summary(result)}\n{printable(str(out))}" if out else table(result, options.top)
        print(shown, flush=True)
    if explain and not result.interrupted:
        write_explanations(models[0], result, explain)
        print(f"{printable(str(explain))}: {len(result.files):,} images with Grad-CAM")
    if result.interrupted:
        print(f"interrupted: {len(result.files)} of {len(files)} images were classified", file=sys.stderr)
        return 130
    return int(len(result.files) < len(files))


class Result(NamedTuple):
    """Predictions for M files."""

    files: list[str]
    probabilities: np.ndarray  # (M, C) float32
    class_names: tuple[str, ...]
    interrupted: bool  # by Ctrl-C, so that files at the end are missing
    tta: str | None = None


def is_run(path: str) -> bool:
    """Whether a path looks like a run's folder or a checkpoint."""
    return path.endswith(".ckpt") or Path(path, "checkpoints").is_dir() or Path(path, "metrics.json").is_file()


def predict_files(models: list[Any], files: list[str], accelerator: str, tta: Any = None) -> Result:
    """Predictions for the files that can be read; the others are named on stderr."""
    from tqdm import tqdm

    from transfer_learning.data.images import unlabelled
    from transfer_learning.engine.inference import predict_chunks

    read: list[str] = []
    rows, interrupted = [np.zeros((0, len(models[0].class_names)), np.float32)], False
    try:
        for chunk in predict_chunks(models, unlabelled(files), accelerator, tta):
            for index, reason in chunk.unreadable.items():
                tqdm.write(f"{printable(files[index])}: skipped, not readable as an image ({reason})", file=sys.stderr)
            read += [files[index] for index in chunk.indices]
            rows.append(chunk.probabilities)
    except KeyboardInterrupt:
        interrupted = True
    return Result(read, np.concatenate(rows), models[0].class_names, interrupted, tta)


def write(path: Path, result: Result) -> None:
    """Writes a row for each file: `file`, `predicted`, `tta` if there is one, and `p:CLASS` for each class."""
    import json

    from transfer_learning.reporting.prediction_table import PREFIX
    from transfer_learning.utilities.files import atomic_write, write_csv

    about = [] if result.tta is None else [result.tta]
    columns = ["file", "predicted", *(["tta"] if about else []), *(PREFIX + name for name in result.class_names)]
    predicted = [result.class_names[code] for code in result.probabilities.argmax(axis=1)]
    rows = (  # one by one: as texts, the probabilities of many classes would fill the memory
        [*pair, *about, *map(str, row)]
        for *pair, row in zip(map(printable, result.files), predicted, result.probabilities)
    )
    if path.suffix == ".csv":
        write_csv(path, chain([columns], rows))
    else:
        texts = 2 + len(about)
        with atomic_write(path) as file:
            for row in rows:
                values = dict(zip(columns, [*row[:texts], *map(float, row[texts:])]))
                file.write(f"{json.dumps(values, ensure_ascii=False)}\n".encode())


def table(result: Result, top: int) -> str:
    """A row for each file: the file, then the `top` most probable classes with their probabilities."""
    from tabulate import tabulate

    order = np.argsort(-result.probabilities, axis=1, kind="stable")[:, :top]
    rows = [
        [printable(file), *(text for code in codes for text in (result.class_names[code], f"{row[code]:.4f}"))]
        for file, codes, row in zip(result.files, order, result.probabilities)
    ]
    shown = f"probability ({result.tta})" if result.tta else "probability"
    return tabulate(rows, ["file", *["class", shown] * top], disable_numparse=True)


def write_explanations(model: Any, result: Result, folder: Path) -> None:
    """Writes each image, resized as in training, under the Grad-CAM of its predicted class: `00001-NAME-CLASS.png`."""
    from PIL import Image

    from transfer_learning.callbacks.evaluation import grad_cam_overlays
    from transfer_learning.data.images import unlabelled
    from transfer_learning.data.preprocessing import decode
    from transfer_learning.reporting.figures import write_png

    folder.mkdir(parents=True, exist_ok=True)
    images, codes = unlabelled(result.files), result.probabilities.argmax(axis=1)
    for start in range(0, len(codes), 32):
        chunk = range(start, min(start + 32, len(codes)))
        pixels, _ = decode(images, model.preprocessing, chunk)
        for index, image in zip(chunk, grad_cam_overlays(model, pixels, codes[chunk])):
            predicted = re.sub(r"[^\w.-]+", "-", result.class_names[codes[index]])
            name = f"{index + 1:05d}-{shortened(Path(printable(result.files[index])).stem, 100)}"
            image = np.asarray(Image.fromarray(image).resize((max(len(image), SIDE),) * 2, Image.Resampling.BICUBIC))
            write_png(folder / f"{name}-{shortened(predicted, 100)}.png", image)


def summary(result: Result) -> str:
    """How many files were predicted as each class; of many classes the most frequent ones."""
    predicted = Counter(result.probabilities.argmax(axis=1).tolist())
    codes = list(range(len(result.class_names)))
    if len(codes) > SHOWN:
        codes.sort(key=lambda code: -predicted[code])
    counts = [f"{result.class_names[code]} {predicted[code]:,}" for code in codes]
    tta = f" (test-time augmentation: {result.tta})" if result.tta else ""
    return f"{len(result.files):,} images{tta}: {some(counts, SHOWN)}"
