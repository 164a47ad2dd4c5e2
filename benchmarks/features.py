"""Images per second of the feature pass, beside a bare forward pass of the same layers, on the CPU, in turn.

python benchmarks/features.py [--backbone vgg16] [--image-size 150] [--precision 32-true] [--rounds 5]

project  `ImageDataModule.store_features` as `train` calls it: from cached pixels to features in a cache without any
bare     the same layers as the library builds them, on a batch that is ready in memory, in every layout and
         precision: `float32`, `bfloat16` (the weights too) and `autocast` to bfloat16

The images are drawings and the weights are random, which does not change the time. Each split is a multiple of the
batch size, since the project pads a split's last batch. The first round warms up and is not reported.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext

import pytorch_lightning as pl
import torch

from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.cartoons import Cartoons
from transfer_learning.data.splits import PerClass
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.training import frozen_part
from transfer_learning.models.network import Frozen
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities.hardware import configure_process, processor

BATCHES = 16
BATCH_SIZE = 32  # of `data.features` on a CPU
IMAGES = BATCHES * BATCH_SIZE
VAL = TEST = BATCH_SIZE // 2  # images per class: one batch
TRAIN = BATCH_SIZE // 2 * (BATCHES - 2)
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "autocast": torch.float32}


def bare_pass(network: Pretrained, layout: str, precision: str, size: int, device: torch.device) -> Callable:
    """A function that passes all batches through the frozen layers."""
    place = dict(device=device, dtype=PRECISIONS[precision], memory_format=LAYOUTS[layout])
    layers = Frozen(*network.frozen, *network.trainable.get_submodule("backbone").children()).to(**place)
    ready = torch.rand(BATCH_SIZE, 3, size, size).to(**place)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16) if precision == "autocast" else nullcontext():
            for _ in range(BATCHES):
                features = layers(ready)
        features.float().sum().item()  # waits for the device

    return run


def main(backbone: str, image_size: int, precision: str, rounds: int) -> None:
    configure_process()
    trainer = pl.Trainer(accelerator="cpu", devices=1, precision=precision, logger=False, enable_checkpointing=False)
    device = trainer.strategy.root_device

    def network(unfreeze: str | None) -> Pretrained:
        return Pretrained(2, image_size, backbone=backbone, weights=None, unfreeze=unfreeze)

    with tempfile.TemporaryDirectory() as folder:
        source, split = Cartoons(TRAIN, VAL, TEST), PerClass(TRAIN, VAL, TEST)
        data = ImageDataModule(source, split, Preprocessing(image_size), cache_dir=folder)
        data.setup()
        project = frozen_part(Classifier(network(None), data.class_names, data.preprocessing), trainer)

        def store(number: int) -> None:
            data.store_features(project._replace(key={**project.key, "round": number}))  # another key, other features

        passes = {"project": store}
        for layout in LAYOUTS:
            for name in PRECISIONS:
                run = bare_pass(network("all"), layout, name, image_size, device)
                passes[f"bare, {layout}, {name}"] = lambda number, run=run: run()
        seconds: dict[str, list[float]] = {name: [] for name in passes}
        for number in range(rounds + 1):
            for name, run in passes.items():
                start = time.perf_counter()
                run(number)
                seconds[name].append(time.perf_counter() - start)
    seconds = {name: values[1:] for name, values in seconds.items()}
    for name, values in seconds.items():
        median, low, high = IMAGES / statistics.median(values), IMAGES / max(values), IMAGES / min(values)
        print(f"{name:30s} {median:7.1f} images/s  ({low:.1f} to {high:.1f})")
    project_seconds = seconds.pop("project")
    best = min(seconds, key=lambda name: statistics.median(seconds[name]))
    ratios = [bare / ours for ours, bare in zip(project_seconds, seconds[best])]
    what = f"{backbone} at {image_size} pixels, {precision}, {rounds} rounds, {device}, {processor()}"
    spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"images/s of the project / of the best bare pass ({best}): {spread}; {what}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--image-size", type=int, default=150)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--rounds", type=int, default=5)
    main(**vars(parser.parse_args()))
