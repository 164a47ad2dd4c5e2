"""Write the model of a run to one file that runs without this project.

RUN is the folder of a run or a checkpoint. The file maps images (N, H, W, 3) uint8 to probabilities (N, C) in float32;
normalization, frozen weights and calibration are inside. It is checked against the model before it appears. Images for
the check that cannot be read are named and left out, and the exit code is 1 then.
docs/onnx.md shows how to use it.
"""

import argparse
import sys
from pathlib import Path

EXAMPLES = ("outputs/runs/RUN", "outputs/runs/RUN --verify photos/ --out cats.onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_path", type="path", metavar="RUN", help="a run or a checkpoint")
    parser.add_argument("--format", default="onnx", choices=("onnx", "torch-export"), help="kind of the file (onnx)")
    parser.add_argument("--out", type="path", metavar="FILE", help="the file (RUN/model.onnx or RUN/model.pt2)")
    parser.add_argument(
        "--verify", type="path", metavar="PATH", help="a folder of labelled images to compare the accuracies on"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")


def run(options: argparse.Namespace) -> int:
    from transfer_learning.cli.files import check_new, check_suffix
    from transfer_learning.cli.runs import training_images, training_note
    from transfer_learning.data.digests import FileDigests
    from transfer_learning.data.sources.cartoons import Cartoons
    from transfer_learning.data.sources.folder import labelled_images
    from transfer_learning.engine.checkpoint import find_checkpoint, load
    from transfer_learning.engine.export import FORMATS, export
    from transfer_learning.utilities.hardware import configure_process
    from transfer_learning.utilities.text import printable

    suffix = FORMATS[options.format].suffix
    checkpoint, folder = find_checkpoint(options.run_path), Path(options.run_path)
    default = folder / f"model{suffix}" if folder.is_dir() else checkpoint.with_suffix(suffix)
    check_suffix(options.out or default, [suffix], f", for --format {options.format}")
    out = check_new(options.out or default, options.overwrite)
    configure_process()
    model = load(checkpoint)
    images = None if options.verify is None else labelled_images(options.verify, model.class_names)
    check = export(model, out, options.format, images or Cartoons(6, 1, 1).list_images(FileDigests()))  # 16
    for name, reason in check.unreadable.items():
        print(f"{name}: left out, not readable as an image ({reason})", file=sys.stderr)
    print(f"{printable(str(out))}: {out.stat().st_size / 1e6:,.2f} MB, float32")
    what = f"{check.images:,} {'images' if images else 'cartoons'}"
    trained = f"{check.trained_difference:.1e} from that in {model.trained_precision}, as it was trained"
    print(f"largest difference on {what}: {check.difference:.1e} from the model in float32, {trained}")
    if images:
        accuracies = f"{check.accuracy:.4f} of the file, {check.trained_accuracy:.4f} of the model as it was trained"
        note = training_note(training_images(checkpoint, images), len(images.digests))
        print(f"accuracy: {accuracies}\n{note}", end="")
    return int(bool(check.unreadable))
