"""Images per second of prediction from files, beside a bare forward pass of the frozen layers, in turn in one process.

python benchmarks/predict.py RUN FOLDER [--images 1024] [--rounds 3]

predict  `predict_chunks` as `transfer-learning predict` calls it: from files to probabilities
bare     the frozen layers of RUN's network on a batch that is ready on the device, in the same precision

The first round warms up on 64 images and is not reported. RUN is a run whose network has frozen layers.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from transfer_learning import load
from transfer_learning.cli.images import image_files
from transfer_learning.data.images import unlabelled
from transfer_learning.engine.inference import BATCH_SIZE, Inference, predict_chunks
from transfer_learning.utilities.hardware import configure_process, processor


def main(run: str, folder: str, images: int, rounds: int) -> None:
    configure_process()
    inference = Inference(load(Path(run)))
    model, device, size = inference.model, inference.fabric.device, inference.model.preprocessing.image_size
    files = image_files([folder])[:images]
    if len(files) < BATCH_SIZE:
        sys.exit(f"{len(files)} images; expected {BATCH_SIZE} or more in FOLDER and of --images.")
    files = files[: len(files) // BATCH_SIZE * BATCH_SIZE]  # of whole batches, as those of the bare pass
    ready = torch.rand(BATCH_SIZE, 3, size, size, device=device).to(memory_format=torch.channels_last)

    def predict(count: int) -> None:
        for chunk in predict_chunks([model], unlabelled(files[:count])):
            assert not chunk.unreadable

    @torch.inference_mode()
    def bare(count: int) -> None:
        for _ in range(count // BATCH_SIZE):
            with inference.fabric.autocast():
                features = model.network.frozen(ready)
        features.float().sum().item()  # waits for the device

    seconds: dict[str, list[float]] = {"predict": [], "bare": []}
    for number in range(rounds + 1):
        for name, function in (("predict", predict), ("bare", bare)):
            start = time.perf_counter()
            function(len(files) if number else 2 * BATCH_SIZE)
            seconds[name].append(time.perf_counter() - start)
    seconds = {name: values[1:] for name, values in seconds.items()}
    for name, values in seconds.items():
        median, low, high = (len(files) / value for value in (statistics.median(values), max(values), min(values)))
        print(f"{name:7s} {median:7.1f} images/s  ({low:.1f} to {high:.1f})")
    ratios = [predicted / bare for predicted, bare in zip(*seconds.values())]
    spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
    where = f"{len(files)} images, {rounds} rounds, {model.trained_precision}, {device}, {processor()}"
    print(f"predict / bare: median {statistics.median(ratios):.3f} {spread}, {where}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=1024, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    main(**vars(parser.parse_args()))
