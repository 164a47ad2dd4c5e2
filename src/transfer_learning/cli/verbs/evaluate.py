"""Measure how well the model of a run classifies labelled images.

RUN is the folder of a run or a checkpoint in one. PATH is a folder of labelled images; without it, the run's own
validation and test images are evaluated. Writes evaluation.json, predictions.csv and figures to a new folder.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EXAMPLES = ("outputs/runs/RUN", "outputs/runs/RUN photographs/ --out results")
MISTAKES = 20  # that are shown
SHOWN = 20  # classes that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_or_checkpoint", metavar="RUN")
    parser.add_argument("path", metavar="PATH", nargs="?", help="a folder of labelled images")
    parser.add_argument("--split", choices=["val", "test"], action="append", help="only this split of the run")
    parser.add_argument("--out", metavar="FOLDER", help="for the results (RUN/evaluations/NAME: PATH or the splits)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results in FOLDER")
    parser.add_argument(
        "--calibrate", action="store_true", help="fit a temperature to the validation split, and keep it"
    )
    parser.add_argument("--tta", choices=["flip"], help="average the probabilities of each image and its mirror image")
    parser.add_argument("--accelerator", default="auto", help="auto (a GPU if there is one), cpu, gpu or mps")


def run(options: argparse.Namespace) -> int:
    from transfer_learning.cli.files import check_new
    from transfer_learning.cli.runs import folder_of, own_images
    from transfer_learning.data.sources.folder import labelled_images
    from transfer_learning.engine.calibration import write_temperature
    from transfer_learning.engine.checkpoint import find_checkpoint, load
    from transfer_learning.engine.evaluation import calibrate, evaluate_images
    from transfer_learning.engine.inference import Inference
    from transfer_learning.utilities.errors import UserError

    if options.path and options.split:
        raise UserError("--split: it is for the run's own images; leave it out, or leave out PATH.")
    checkpoint = find_checkpoint(options.run_or_checkpoint)
    splits = options.split or ["val", "test"]
    name = Path(options.path).resolve().name if options.path else "-".join(splits)
    folder = "-".join([name, *(["calibrated"] if options.calibrate else []), *([options.tta] if options.tta else [])])
    out = folder_of(checkpoint) / "evaluations" / folder if options.out is None else options.out
    out = check_new(out, options.overwrite, is_folder=True)
    inference = Inference(load(checkpoint), options.accelerator, options.tta)
    own = own_images(folder_of(checkpoint)) if options.calibrate or not options.path else {}
    wanted = {split: own[split] for split in splits if not options.path}
    if options.path:
        wanted = {name: labelled_images(options.path, inference.model.class_names)}
    evaluated = {each: evaluate_images(inference, images) for each, images in wanted.items()}
    if options.calibrate:
        validation = evaluate_images(inference, own["val"]) if options.path or "val" not in splits else evaluated["val"]
        inference.model.temperature = 1.0
        others = {each: found for each, found in evaluated.items() if found is not validation}
        shown = {"validation split": validation} | others
        before = {each: found.metrics(inference.model) for each, found in shown.items()}
        calibrate(inference.model, validation)
        after = {each: found.metrics(inference.model) for each, found in shown.items()}
        write_temperature(checkpoint, inference.model.temperature)
        print(f"temperature {inference.model.temperature:.4f}, fitted to the validation split")
        columns = {
            f"{each}, {when}": found[each] for each in before for when, found in (("before", before), ("after", after))
        }
        print(f"{table(columns, ['calibration_error', 'loss'])}\n")
    metrics = {each: found.metrics(inference.model) for each, found in evaluated.items()}
    is_new = not out.exists()
    try:
        write_results(out, inference, evaluated, metrics)
    except BaseException:
        if is_new:
            shutil.rmtree(out, ignore_errors=True)
        raise
    if options.tta:
        print(f"test-time augmentation: {options.tta}")
    print(f"{table(metrics, [key for key in metrics[next(iter(metrics))] if key != 'classes'])}\n")
    print(f"{classes_table(metrics)}\n\n{out}")
    unreadable = {file: why for found in evaluated.values() for file, why in found.unreadable.items()}
    for file, reason in unreadable.items():
        print(f"{file}: left out, not readable as an image ({reason})", file=sys.stderr)
    return int(bool(unreadable))


def write_results(out: Path, inference: Any, evaluated: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Writes evaluation.json, predictions.csv and, for each set, confusion matrix, mistakes and reliability diagram."""
    from transfer_learning.data.preprocessing import decode
    from transfer_learning.reporting import figures
    from transfer_learning.reporting.prediction_table import write_predictions
    from transfer_learning.utilities.files import write_text

    model = inference.model
    out.mkdir(parents=True, exist_ok=True)
    figures.remove_figures(out)
    tables = {name: found.table(model, name) for name, found in evaluated.items()}
    write_predictions(out / "predictions.csv", list(tables.values()))
    for name, each in tables.items():
        wrong = figures.most_confident(each, MISTAKES, right=False)
        pixels, _ = decode(evaluated[name].images, model.preprocessing, wrong.tolist())
        for kind, figure in figures.of_predictions(each, wrong, pixels).items():
            figures.write_png(out / f"{kind}-{name}.png", figures.rendered(figure))
    about = {"temperature": model.temperature, **({"tta": inference.tta} if inference.tta else {})}
    write_text(out / "evaluation.json", json.dumps({**about, **metrics}, indent=2) + "\n")


def table(metrics: Mapping[str, Mapping[str, Any]], keys: list[str]) -> str:
    """A row for each metric, a column for each set of images."""
    rows = [[key.replace("_", " "), *(each[key] for each in metrics.values())] for key in keys]
    return tabulated(["", *metrics], rows)


def classes_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each class of each set of images; of many classes those with the lowest F1."""
    rows, header, notes = [], list[str](), list[str]()
    for name, each in metrics.items():
        classes = list(each["classes"].items())
        if len(classes) > SHOWN:
            notes.append(f"{name}: the {SHOWN} classes with the lowest F1; evaluation.json has all {len(classes):,}")
            classes = sorted(classes, key=lambda pair: pair[1]["f1"] or 0)[:SHOWN]
        header = ["", "class", *classes[0][1]]
        rows += [[name, class_name, *values.values()] for class_name, values in classes]
    return "\n".join([tabulated(header, rows), *notes])


def tabulated(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    from tabulate import tabulate

    texts = [[f"{value:.4f}" if isinstance(value, float) else value for value in row] for row in rows]
    return tabulate(texts, header, disable_numparse=True, missingval="undefined")
