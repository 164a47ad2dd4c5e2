"""Seconds per epoch, validation included: this project, plain PyTorch, a common template, Keras and AutoTimm, in turn.

python benchmarks/epoch.py [--rounds 5] [--rows basic regularised head vgg16 ...] [--batch-size 30]
    [--variants project bare ...] [--old CHECKOUT] [--originals FOLDER] [--json FILE]
    [data.root=FOLDER] [model.weights=FOLDER] [other overrides of train.py]

Variants:
    project   `train.py`, from the start of one epoch to the start of the next, with validation, metrics, checkpoints
              and TensorBoard
    old       the same with the code of --old, a folder with another commit of this project
    bare      a loop in plain PyTorch with the same tensors, precision, process settings and optimizer
    limit     the same steps on one batch that is ready on the device, without augmentation
    template  what templates recommend: `ImageFolder`, v2 transforms for each image, a `DataLoader` with workers and
              Lightning's defaults; and in the project's precision
    Keras     the tutorial's code, if tensorflow-cpu is installed; and in mixed_bfloat16
    AutoTimm  its classifier and data module with their defaults, if it is installed; and in the project's precision

Rows:
    basic, regularised, head, vgg16   the tutorial's models; `head` trains on stored features, `vgg16` on augmented
              images
    finetuned the last block and the head of EfficientNet-Lite2 on stored features, and end to end in the bare loop
    resnet18_frozen, resnet18         ResNet-18 with random weights on augmented images: its head alone, and all of it
    settings  the bare loop of the basic CNN, each time without one of its settings, or compiled
    decode    decoding the photographs of --originals

Each variant is a process of its own that waits for its turn. The first round warms up and is not reported. Without
`data.root` the images are drawings, and without `model.weights`, a folder with a file for each backbone, VGG16's and
EfficientNet's weights are random. `data.cache_dir` keeps what was decoded. `vgg16`, `finetuned` and both rows of
ResNet-18 use a fifth of the images. In `vgg16` and `resnet18_frozen` the project validates on stored features, and the
bare loops do not validate. Overrides of the model, the optimizer or the image size change only the first four variants
and `bare, end to end`.
"""

import argparse
import logging
import statistics
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from contenders import autotimm, bare, inputs, keras, project, template
from turns import Variant, machine, measured

FEWER = ["data.train_per_class=300", "data.val_per_class=100"]
RESNET = ["model=pretrained", "model.backbone=resnet18", "data.image_size=150", "data.augment=true", *FEWER]
MODELS = {  # row: overrides, of which the first names the model
    "basic": ["model=basic_cnn"],
    "regularised": ["model=regularised_cnn", "data.augment=true"],
    "head": ["model=vgg16_frozen"],
    "finetuned": [
        "model=pretrained",
        "model.backbone=timm/tf_efficientnet_lite2",
        "model.unfreeze=block5",
        "model.unfreeze_at_epoch=0",
        *FEWER,
    ],
    "vgg16": ["model=vgg16_frozen", "data.augment=true", *FEWER],
    "resnet18_frozen": RESNET,
    "resnet18": [*RESNET, "model.unfreeze=all", "model.unfreeze_at_epoch=0"],
}
NO_CHECKPOINTS = ["~callbacks.checkpoint_best", "~callbacks.checkpoint_last"]
BF16 = "bf16-mixed"


def variants(row: str, given: list[str], folder: str, options: argparse.Namespace) -> dict[str, Variant]:
    """The variants of a row by name."""
    if row == "decode":
        return decoders(options.originals)
    overrides = [*MODELS["basic" if row == "settings" else row], *given]
    if row == "settings":
        return settings(overrides)
    found = {"project": Variant(project.train, dict(overrides=overrides))}
    if options.old:
        checkout = str(Path(options.old).resolve())
        found["old"] = Variant(project.train, dict(overrides=overrides, checkout=checkout))
    found |= {name: Variant(bare.train, dict(overrides=overrides, **more)) for name, more in bare_loops(row).items()}
    for name, further in projects(row).items():
        found[name] = Variant(project.train, dict(overrides=[*overrides, *further]))
    if row in ("basic", "regularised", "vgg16"):
        for name, precision in (("template", "32-true"), (f"template, {BF16}", BF16)):
            found[name] = Variant(template.train, dict(overrides=overrides, precision=precision))
    if row in ("basic", "regularised", "vgg16", "head") and find_spec("tensorflow"):
        arrays = inputs.arrays(overrides, folder)
        for name, policy in (("Keras", "float32"), ("Keras, mixed_bfloat16", "mixed_bfloat16")):
            found[name] = Variant(keras.train, dict(overrides=overrides, arrays=arrays, policy=policy))
    if row.startswith("resnet18") and find_spec("autotimm"):
        for name, precision in (("AutoTimm", "32-true"), (f"AutoTimm, {BF16}", BF16)):
            frozen = row == "resnet18_frozen"
            found[name] = Variant(autotimm.train, dict(overrides=overrides, frozen=frozen, precision=precision))
    return found


def projects(row: str) -> dict[str, list[str]]:
    """Further variants of the project: name -> overrides."""
    if row in ("basic", "head"):
        return {"project, no checkpoints": NO_CHECKPOINTS}
    if row == "regularised":
        return {"project, not augmented": ["data.augment=false"]}
    return {"project, compiled": ["trainer.compile=true"]} if row == "vgg16" else {}


def bare_loops(row: str) -> dict[str, dict]:
    """The bare loops of a row: name -> arguments."""
    frozen = row in ("vgg16", "resnet18_frozen")
    stored = row in ("head", "finetuned")
    found = {name: dict(stored=stored, fixed=name == "limit", validated=not frozen) for name in ("bare", "limit")}
    if row == "finetuned":
        found["bare, end to end"] = {}
    if row == "vgg16":
        found["convolutions alone"] = dict(fixed=True, convolutions=True, validated=False)
    return found


def settings(overrides: list[str]) -> dict[str, Variant]:
    rmsprop = "torch.optim.RMSprop"
    without: dict[str, dict] = {
        "bare": {},
        "default malloc": dict(kept_memory=False),
        "torch's RMSprop": dict(optimizer=rmsprop),
        "float32": dict(precision="32-true"),
        "contiguous": dict(channels_last=False),
        "all of these": dict(kept_memory=False, optimizer=rmsprop, precision="32-true", channels_last=False),
        "compiled": dict(compiled=True),
    }
    return {name: Variant(bare.train, dict(overrides=overrides, **more)) for name, more in without.items()}


def decoders(originals: str) -> dict[str, Variant]:
    found = {"project": project, "bare, one thread": bare, "template": template}
    found |= {"Keras": keras} if find_spec("tensorflow") else {}
    return {name: Variant(module.decode, dict(originals=originals)) for name, module in found.items()}


def overrides_of(row: str, given: list[str]) -> list[str]:
    """Those of the given overrides that the row's model has. ResNet-18 keeps random weights."""
    if row in ("basic", "regularised", "settings"):
        return [each for each in given if not each.startswith("model.")]
    if row.startswith("resnet18"):
        return [*(each for each in given if not each.startswith("model.weights=")), "model.weights=null"]
    return given


def print_row(row: str, seconds: dict[str, list[float]], rounds: int) -> None:
    print(f"\n{row}: seconds, median (range) of {rounds} rounds; the first variant's median / this one's")
    first = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        median, spread = statistics.median(values), f"({min(values):.2f} to {max(values):.2f})"
        print(f"  {name:30s} {median:7.2f}  {spread:18s}  {first / median:6.2f}", flush=True)


def parsed() -> tuple[argparse.Namespace, list[str]]:
    """The options, and the overrides of train.py."""
    rows = [*MODELS, "settings", "decode"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", default=rows, metavar="ROW", help=", ".join(rows))
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these, of each row those that it has")
    parser.add_argument("--old", metavar="CHECKOUT", help="a folder with another commit of this project")
    parser.add_argument("--batch-size", type=int, default=30)
    parser.add_argument("--originals", metavar="FOLDER", help="photographs of any size, which the row `decode` needs")
    parser.add_argument("--json", metavar="FILE", help="gets the commit, the machine and all seconds")
    options, given = parser.parse_known_args()
    for name in ("rows", "variants"):  # overrides that follow the names
        values = getattr(options, name) or []
        given += [each for each in values if "=" in each]
        setattr(options, name, [each for each in values if "=" not in each])
    if unknown := set(options.rows) - set(rows):
        parser.error(f"--rows: {', '.join(sorted(unknown))} is none of {', '.join(rows)}")
    if options.old and not Path(options.old, "train.py").is_file():
        parser.error(f"--old {options.old}: no checkout of this project, since it has no train.py")
    if options.json and not Path(options.json).absolute().parent.is_dir():
        parser.error(f"--json {options.json}: there is no such folder")
    return options, given


def main() -> None:
    options, given = parsed()
    import torch
    from tables import commit_of

    from transfer_learning.runs.provenance import attempt
    from transfer_learning.utilities.files import write_checked_json

    print(machine())
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    commit = commit_of(attempt(sys.argv, inputs.PROJECT, torch.device("cpu")))
    results: dict = {"commit": commit, "machine": machine(), "rounds": options.rounds, "rows": {}}
    with tempfile.TemporaryDirectory() as folder:
        given.append(f"data.batch_size={options.batch_size}")
        defaults = {"data.root": "data=cartoons", "model.weights": "model.weights=null"}
        defaults["data.cache_dir"] = f"data.cache_dir={folder}/cache"
        given += [value for key, value in defaults.items() if not any(each.startswith(f"{key}=") for each in given)]
        for row in options.rows:
            if row == "decode" and not options.originals:
                print("\ndecode: left out, it needs --originals FOLDER")
                continue
            found = variants(row, overrides_of(row, given), folder, options)
            chosen = {name: each for name, each in found.items() if name in (options.variants or found)}
            if not chosen:
                sys.exit(f"--variants {' '.join(options.variants)}: {row} has {', '.join(found)}")
            results["rows"][row] = measured(chosen, options.rounds, folder)
            print_row(row, results["rows"][row], options.rounds)
            if options.json:
                write_checked_json(options.json, results)


if __name__ == "__main__":
    main()
