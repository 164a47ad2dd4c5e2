"""Measure how well the model of a run classifies labelled images.

RUN is the folder of a run or a checkpoint in one. PATH is a folder of labelled images; without it, the run's own
validation and test images are evaluated. Writes evaluation.json, predictions.csv and figures to a new folder.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_learning.utilities.text import printable, shortened

EXAMPLES = ("outputs/runs/RUN", "outputs/runs/RUN photographs/ --out results")
MISTAKES = 20  # that are shown
SHOWN = 20  # classes that are shown
# of evaluation.json, beside the names of the sets of images
KEYS = {"checkpoint", "checkpoint_sha256", "folder", "splits", "temperature", "tta", "files"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_or_checkpoint", type="path", metavar="RUN", help="a run or a checkpoint")
    parser.add_argument("path", type="path", metavar="PATH", nargs="?", help="class folders, or files like cat.1.jpg")
    parser.add_argument("--split", choices=["val", "test"], action="append", help="only this split of the run")
    parser.add_argument(
        "--out", type="path", metavar="FOLDER", help="for the results (RUN/evaluations/PATH, or its splits)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results in FOLDER")
    parser.add_argument(
        "--calibrate", action="store_true", help="fit a temperature to the validation split, and keep it"
    )
    parser.add_argument("--tta", choices=["flip"], help="average the probabilities of each image and its mirror image")
    parser.add_argument("--accelerator", default="auto", help="auto (a GPU if there is one), cpu, gpu or mps")


def run(options: argparse.Namespace) -> int:
    from transfer_learning.cli.runs import folder_of, own_images, training_images, training_note
    from transfer_learning.data.sources.folder import labelled_images
    from transfer_learning.engine.checkpoint import find_checkpoint, load
    from transfer_learning.engine.evaluation import evaluate_images
    from transfer_learning.engine.inference import Inference
    from transfer_learning.utilities.errors import UserError
    from transfer_learning.utilities.files import atomic_folder
    from transfer_learning.utilities.hardware import configure_process

    is_own = options.path is None
    if options.split and not is_own:
        raise UserError("--split: it is for the run's own images; leave it out, or leave out PATH.")
    splits = options.split or ["val", "test"]
    checkpoint = find_checkpoint(options.run_or_checkpoint)
    about = described(checkpoint, options.path, splits)
    name = set_name(options.path, splits)
    out, replaced = destination(options, checkpoint, about, name)
    configure_process()
    inference = Inference(load(checkpoint), options.accelerator, options.tta)
    own = own_images(folder_of(checkpoint)) if options.calibrate or is_own else {}
    wanted = {split: own[split] for split in splits if is_own}
    if not is_own:
        wanted = {name: labelled_images(options.path, inference.model.class_names)}
    evaluated = {each: evaluate_images(inference, images) for each, images in wanted.items()}
    if options.calibrate:
        validation = evaluated["val"] if is_own and "val" in splits else evaluate_images(inference, own["val"])
        calibrate_and_print(inference.model, checkpoint, about["checkpoint_sha256"], validation, evaluated)
    metrics = {each: found.metrics(inference.model) for each, found in evaluated.items()}
    note = ""
    if not is_own:
        count = training_images(checkpoint, evaluated[name].images)
        metrics[name]["training_images"] = count
        note = training_note(count, metrics[name]["images"])
    about |= {"temperature": inference.model.temperature, "tta": options.tta, **metrics}
    with atomic_folder(out, last="evaluation.json", replaced=replaced) as folder:
        write_results(folder, inference, evaluated, about)
    if options.tta:
        print(f"test-time augmentation: {options.tta}")
    shown = [key for key in metrics[next(iter(metrics))] if key not in ("classes", "training_images")]
    print(f"{note}{table(metrics.items(), shown)}\n")
    print(f"{classes_table(metrics)}\n\n{printable(str(out))}")
    unreadable = {file: why for found in evaluated.values() for file, why in found.unreadable.items()}
    for file, reason in unreadable.items():
        print(f"{file}: left out, not readable as an image ({reason})", file=sys.stderr)
    return int(bool(unreadable))


def described(checkpoint: Path, path: str | None, splits: Sequence[str]) -> dict[str, Any]:
    """What evaluation.json says of the checkpoint and the images."""
    from transfer_learning.utilities.files import file_sha256

    return {
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": file_sha256(checkpoint),
        "folder": None if path is None else printable(str(Path(path).resolve())),
        "splits": list(splits) if path is None else [],
    }


def set_name(path: str | None, splits: Sequence[str]) -> str:
    """A name for the evaluated images: their splits, or their folder's name, which is no key of evaluation.json."""
    name = "-".join(splits) if path is None else printable(Path(path).resolve().name)
    return f"folder-{name}" if name in KEYS else name


def destination(
    options: argparse.Namespace, checkpoint: Path, about: dict[str, Any], name: str
) -> tuple[Path, Sequence[str]]:
    """The folder for the results, and the files of an earlier evaluation there.

    Raises UserError if it must not be overwritten.
    """
    from transfer_learning.cli.files import check_new, check_not_input
    from transfer_learning.cli.runs import folder_of
    from transfer_learning.utilities.errors import UserError

    if options.out is None:
        options.out = folder_of(checkpoint) / "evaluations" / default_name(checkpoint, name, options)
    check_not_input(options.out, [] if options.path is None else [options.path])
    before = earlier(Path(options.out))
    out = check_new(options.out, options.overwrite, is_folder=True, what=difference(before, about))
    if before == {}:
        raise UserError(f"{out}: its evaluation.json is damaged. Delete it, or choose another --out.")
    return out, (before or {}).get("files", ())


def calibrate_and_print(
    model: Any, checkpoint: Path, sha256: str, validation: Any, evaluated: Mapping[str, Any]
) -> None:
    """Fits a temperature to the validation split, keeps it beside the checkpoint, and prints what it changes.

    `sha256` is that of the checkpoint before the model was loaded.
    """
    from transfer_learning.engine.calibration import write_temperature
    from transfer_learning.engine.evaluation import calibrate

    model.temperature = 1.0
    shown = [("validation split", validation)]
    shown += [(each, found) for each, found in evaluated.items() if found is not validation]
    before = [found.metrics(model) for _, found in shown]
    calibrate(model, validation)
    write_temperature(checkpoint, model.temperature, sha256)
    print(f"temperature {model.temperature:.4f}, fitted to the validation split")
    columns = list[tuple[str, Any]]()
    for (each, found), uncalibrated in zip(shown, before):
        columns += [(f"{each}, before", uncalibrated), (f"{each}, after", found.metrics(model))]
    print(f"{table(columns, ['calibration_error', 'loss'])}\n")


def default_name(checkpoint: Path, name: str, options: argparse.Namespace) -> str:
    """The folder of an evaluation in RUN/evaluations: that of a split belongs to best.ckpt and the run's own images."""
    is_like_split = options.path is not None and re.match(r"(?i)(val|test)(-|$)", name)
    parts = [
        "" if checkpoint.stem == "best" else shortened(checkpoint.stem, 90),
        "folder" if is_like_split else "",
        shortened(name, 120),
        "calibrated" if options.calibrate else "",
        options.tta,
    ]
    return "-".join(filter(None, parts))


def earlier(out: Path) -> dict[str, Any] | None:
    """What the evaluation.json in a folder says, {} if it is damaged; None if there is none."""
    try:
        found = json.loads((out / "evaluation.json").read_bytes())
        return found if found.keys() >= KEYS else {}
    except (ValueError, AttributeError):
        return {}
    except OSError:
        return None


def difference(before: dict[str, Any] | None, about: dict[str, Any]) -> str:
    """What an earlier evaluation is of, for a message; "" if it is of the same checkpoint and images, or none."""
    if not before or all(before[key] == value for key, value in about.items()):
        return ""
    name = before["checkpoint"]
    if name == about["checkpoint"] and before["checkpoint_sha256"] != about["checkpoint_sha256"]:
        name = f"an earlier {name}"
    images = before["folder"] or f"the run's {' and '.join(before['splits'])} images"
    return f", an evaluation of {name} on {images}"


def write_results(out: Path, inference: Any, evaluated: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes predictions.csv, for each set confusion matrix, mistakes and reliability diagram, and evaluation.json."""
    from transfer_learning.data.preprocessing import decode
    from transfer_learning.reporting import figures
    from transfer_learning.reporting.prediction_table import write_predictions
    from transfer_learning.utilities.files import write_text

    model = inference.model
    tables = {name: found.table(model, name) for name, found in evaluated.items()}
    write_predictions(out / "predictions.csv", list(tables.values()))
    for name, each in tables.items():
        wrong = figures.most_confident(each, MISTAKES, right=False)
        pixels, _ = decode(evaluated[name].images, model.preprocessing, wrong.tolist())
        for kind, figure in figures.of_predictions(each, wrong, pixels).items():
            figures.write_png(out / f"{kind}-{shortened(name, 200)}.png", figures.rendered(figure))
    files = sorted(file.name for file in out.iterdir())
    write_text(out / "evaluation.json", json.dumps({**about, "files": files}, indent=2) + "\n")


def table(columns: Iterable[tuple[str, Mapping[str, Any]]], keys: list[str]) -> str:
    """A row for each metric, a column for each set of images: its name and its metrics."""
    names, metrics = zip(*columns)
    return tabulated(["", *names], [[key.replace("_", " "), *(each[key] for each in metrics)] for key in keys])


def classes_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each class of each set of images; of many classes those with the lowest F1."""
    rows, header, notes = [], list[str](), list[str]()
    for name, each in metrics.items():
        classes = list(each["classes"].items())
        if len(classes) > SHOWN:
            notes.append(f"{name}: the {SHOWN} classes with the lowest F1; evaluation.json has all {len(classes):,}")
            # Those without images last: their F1 is 0 and says nothing.
            classes = sorted(classes, key=lambda pair: (pair[1].get("support") == 0, pair[1]["f1"] or 0))[:SHOWN]
        header = ["", "class", *classes[0][1]]
        rows += [[name, class_name, *values.values()] for class_name, values in classes]
    return "\n".join([tabulated(header, rows), *notes])


def tabulated(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    from tabulate import tabulate

    texts = [[f"{value:.4f}" if isinstance(value, float) else value for value in row] for row in rows]
    return tabulate(texts, header, disable_numparse=True, missingval="undefined")
