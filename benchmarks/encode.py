"""What storing a frozen part's outputs costs beside the bare convolutions: one process, in turn.

python tests/benchmarks/encode.py [precision, by default 32-true] [rounds, by default 5]

A: `encode_once` as `train` calls it: from stored pixels to stored outputs, on an empty cache. B: the same convolutions on batches that
lie ready in the precision of the fit. Drawn images at 150 pixels, random weights: neither decides the time.
"""

import statistics
import sys
import tempfile
import time

import pytorch_lightning as pl
import torch

from transfer_learning.data.cartoons import Cartoons
from transfer_learning.models.classifier import Classifier
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.training import frozen_pass

IMAGES, SIZE, BATCH = 512, 150, 32


def main(precision: str = "32-true", rounds: str = "5") -> None:
    trainer = pl.Trainer(accelerator="auto", devices=1, precision=precision, logger=False, enable_checkpointing=False)
    with tempfile.TemporaryDirectory() as folder:
        data = Cartoons(
            image_size=SIZE, train_per_class=IMAGES // 2 - 2, val_per_class=1, test_per_class=1, cache_dir=folder
        )
        data.setup()
        model = Classifier(Pretrained(2, SIZE, weights=None, pool="none"), data.class_names, SIZE)
        device = trainer.strategy.root_device
        dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
        bare = Pretrained(2, SIZE, weights=None, pool="none").frozen.to(
            device, dtype, memory_format=torch.channels_last
        )
        ready = torch.rand(BATCH, 3, SIZE, SIZE).to(device, dtype, memory_format=torch.channels_last)
        seconds = {"stored": [], "bare": []}
        for turn in range(int(rounds) + 1):
            start = time.perf_counter()
            data.encode_once(frozen_pass(data, model, trainer), {"turn": turn})
            seconds["stored"].append(time.perf_counter() - start)
            start = time.perf_counter()
            for _ in range(IMAGES // BATCH):
                out = bare(ready)
            out.float().sum().item()  # waits for the device
            seconds["bare"].append(time.perf_counter() - start)
    seconds = {name: values[1:] for name, values in seconds.items()}  # the first turn warms up
    for name, values in seconds.items():
        print(
            f"{name:7s} {IMAGES / statistics.median(values):7.1f} images/s  ({IMAGES / max(values):.1f} to {IMAGES / min(values):.1f})"
        )
    ratios = [a / b for a, b in zip(*seconds.values())]
    spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"stored / bare: median {statistics.median(ratios):.3f} {spread}, {rounds} rounds, {precision}, {device}")


if __name__ == "__main__":
    main(*sys.argv[1:])
