"""Trains what docs/results.md needs: a handful of sweeps, and the benchmark of speed.

python benchmarks/sweeps.py FOLDER --photographs PHOTOGRAPHS --weights WEIGHTS [NAME ...]

Each of SWEEPS, or those that are named, is a multirun in FOLDER/NAME; finished jobs are skipped, so the command may be
interrupted and repeated. `speed` writes FOLDER/speed.json with `epoch.py`; it needs the other libraries, and a machine
without other work. WEIGHTS is a folder with VGG16's weights and timm's of both EfficientNet-Lites. Afterwards:
`python benchmarks/results.py FOLDER`.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
SEEDS = "seed=0,1,2"


class Sweep(NamedTuple):
    """A multirun: the heading of its table, a text above it, and what its command adds to `train.py -m`."""

    heading: str
    text: str
    overrides: Sequence[str]
    takes_weights: bool = False  # whether its model has the key `model.weights`


class System(NamedTuple):
    """A row of the table of the five systems: what it adds to train.py, and the sweep that trains it."""

    name: str
    overrides: str
    sweep: str = "tutorial"


SYSTEMS = [
    System("1 basic CNN", "system=basic_cnn"),
    System("2 regularised CNN", "system=regularised_cnn"),
    System("3 the same, augmented", "system=regularised_cnn_augmented"),
    System("4 head on frozen VGG16", "system=vgg16_frozen"),
    System("5 the same, 8 augmented views", "system=vgg16_frozen_augmented data.views=8", "stored_views"),
    System("5 the same, augmented in each epoch", "system=vgg16_frozen_augmented", "fresh_images"),
]
SWEEPS = {
    "tutorial": Sweep(
        "The tutorial's systems 1 to 4",
        "All epochs, as the tutorial trains them; VGG16 gets images normalized as its weights expect.",
        [SEEDS, "system=basic_cnn,regularised_cnn,regularised_cnn_augmented,vgg16_frozen"],
    ),
    "stored_views": Sweep(
        "System 5 on stored features",
        "Eight augmented versions of each training image, sampled once; each epoch uses one of them. The features of "
        "validation and test images are those of system 4.",
        [SEEDS, "system=vgg16_frozen_augmented", "data.views=8"],
    ),
    "preprocessing": Sweep(
        "What preprocessing is worth",
        "System 4 with images as VGG16's weights expect them (`weights`) and in [0, 1] as the tutorial feeds them "
        "(`tutorial`), resized with antialiasing (`bilinear`) and as in the tutorial (`nearest`).",
        [SEEDS, "system=vgg16_frozen", "model.preprocess=weights,tutorial", "data.interpolation=bilinear,nearest"],
    ),
    "best": Sweep(
        "The best classifier",
        "`conf/experiment/best.yaml`: EfficientNet-Lite2 at 340 pixels.",
        [SEEDS, "experiment=best"],
        True,
    ),
    "fast": Sweep(
        "A good classifier in about a minute",
        "`conf/experiment/fast.yaml`: EfficientNet-Lite2 at 260 pixels; 608 images train, 200 validate.",
        [SEEDS, "experiment=fast"],
        True,
    ),
    "backbones": Sweep(
        "Backbones",
        "A linear head on frozen features. EfficientNet-Lite gets the crop that its weights expect. Images per second "
        "are those of the whole network on this machine; decoding is not part of them.",
        [
            SEEDS,
            "experiment=backbones",
            "model.backbone=timm/tf_efficientnet_lite0,timm/tf_efficientnet_lite2,vgg16",
            "data.image_size=150,224",
        ],
        True,
    ),
    "learning_curve": Sweep(
        "Accuracy and the number of training images",
        "A linear layer on VGG16's pooled features, with 1, 3, 10, 30 and 100 % of the training images.",
        ["experiment=learning_curve"],
    ),
    "scratch": Sweep(
        "Without pretrained weights",
        "`conf/experiment/scratch.yaml`: validation and test at 128 pixels; two runs at a time, with one thread each.",
        [SEEDS, "experiment=scratch", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    ),
    "fresh_images": Sweep(
        "System 5 as the tutorial trains it",
        "All images pass through VGG16 in each epoch, augmented anew; one seed.",
        ["seed=0", "system=vgg16_frozen_augmented"],
    ),
}
SPEED_ROWS = {  # of epoch.py, and how the table names them
    "basic": "basic CNN",
    "regularised": "regularised CNN, augmented",
    "head": "head on stored features of VGG16",
    "vgg16": "frozen VGG16, augmented in each epoch",
    "resnet18_frozen": "frozen ResNet-18, augmented in each epoch",
    "resnet18": "ResNet-18, augmented",
}
SPEED_VARIANTS = ["project", "bare"]
SPEED_VARIANTS += [f"{name}{also}" for name in ("template", "AutoTimm") for also in ("", ", bf16-mixed")]
SPEED_VARIANTS += ["Keras", "Keras, mixed_bfloat16"]
SPEED_IMAGES = {"train": 300, "val": 100}  # of each class
SPEED = ["--rounds", "2", "--rows", *SPEED_ROWS, "--variants", *SPEED_VARIANTS]  # arguments of epoch.py
SPEED += [f"data.{split}_per_class={count}" for split, count in SPEED_IMAGES.items()]


def train(folder: Path, photographs: str, weights: str, names: Sequence[str]) -> int:
    """Runs sweeps one after the other; returns how many of them failed."""
    vgg16 = next(Path(weights).glob("vgg16*.pth"), None)
    if not vgg16:
        sys.exit(f"--weights {weights}: expected a folder with a file vgg16….pth")
    failed, images = 0, [f"data.root={photographs}", f"data.cache_dir={folder / 'cache'}"]
    for name in names or [*SWEEPS, "speed"]:
        if name == "speed":
            command = ["benchmarks/epoch.py", *SPEED, *images, "--json", f"{folder / 'speed.json'}"]
        else:
            command = ["train.py", "-m", f"sweep={name}", f"hydra.sweep.dir={folder / name}", *images]
            command += [*SWEEPS[name].overrides, *[f"model.weights={weights}"] * SWEEPS[name].takes_weights]
        command = [sys.executable, *command]
        print(" ".join(command), flush=True)
        environment = os.environ | {"VGG16_WEIGHTS": str(vgg16)}
        failed += subprocess.run(command, cwd=PROJECT, env=environment).returncode != 0
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photographs", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*SWEEPS, "speed"]))
    options = parser.parse_intermixed_args()
    if unknown := set(options.names) - {*SWEEPS, "speed"}:
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(SWEEPS)}, speed")
    photographs, weights = (str(Path(each).absolute()) for each in (options.photographs, options.weights))
    sys.exit(train(options.folder.absolute(), photographs, weights, options.names))


if __name__ == "__main__":
    main()
