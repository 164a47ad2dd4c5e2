"""Images per second of the feature pass, beside a bare forward pass of the same layers, in turn in one process.

python benchmarks/features.py [precision, 32-true by default] [rounds, 5 by default]

project  `ImageDataModule.store_features` as `train` calls it: from cached pixels to features in a cache without any
bare     the same layers on a batch that is ready on the device, in the same precision

Both compute VGG16's features of 512 images. The images are drawings of 150 x 150 pixels and the weights are random,
which does not change the time. Each split is a multiple of the batch size, since the project pads a split's last batch.
The first round warms up and is not reported.
"""

import statistics
import sys
import tempfile
import time

import pytorch_lightning as pl
import torch

from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.features import BATCH_SIZE
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.cartoons import Cartoons
from transfer_learning.data.splits import PerClass
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.training import frozen_part
from transfer_learning.models.pretrained import Pretrained

BATCHES, IMAGE_SIZE = 16, 150
VAL = TEST = BATCH_SIZE // 2  # images per class: one batch
TRAIN = BATCH_SIZE // 2 * (BATCHES - 2)
IMAGES = BATCHES * BATCH_SIZE


def network() -> Pretrained:
    return Pretrained(2, IMAGE_SIZE, backbone="vgg16", weights=None, pool="none", layer_norm=False)


def main(precision: str = "32-true", rounds: str = "5") -> None:
    trainer = pl.Trainer(accelerator="auto", devices=1, precision=precision, logger=False, enable_checkpointing=False)
    with tempfile.TemporaryDirectory() as folder:
        source, split = Cartoons(TRAIN, VAL, TEST), PerClass(TRAIN, VAL, TEST)
        data = ImageDataModule(source, split, Preprocessing(IMAGE_SIZE), cache_dir=folder)
        data.setup()
        project = frozen_part(Classifier(network(), data.class_names, data.preprocessing), trainer)
        device = trainer.strategy.root_device
        dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
        bare = network().frozen.to(device, dtype, memory_format=torch.channels_last)
        ready = torch.rand(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)
        ready = ready.to(device, dtype, memory_format=torch.channels_last)
        seconds = {"project": [], "bare": []}
        for number in range(int(rounds) + 1):
            start = time.perf_counter()
            data.store_features(project._replace(key={**project.key, "round": number}))  # another key, other features
            seconds["project"].append(time.perf_counter() - start)
            start = time.perf_counter()
            for _ in range(BATCHES):
                features = bare(ready)
            features.float().sum().item()  # waits for the device
            seconds["bare"].append(time.perf_counter() - start)
    seconds = {name: values[1:] for name, values in seconds.items()}
    for name, values in seconds.items():
        median, low, high = IMAGES / statistics.median(values), IMAGES / max(values), IMAGES / min(values)
        print(f"{name:7s} {median:7.1f} images/s  ({low:.1f} to {high:.1f})")
    ratios = [project / bare for project, bare in zip(*seconds.values())]
    spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"project / bare: median {statistics.median(ratios):.3f} {spread}, {rounds} rounds, {precision}, {device}")


if __name__ == "__main__":
    main(*sys.argv[1:])
