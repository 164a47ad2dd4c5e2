"""How fast a trained network classifies, and how large it is."""

import statistics
import time
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveFloat

from transfer_learning.callbacks.run_end import RunEndCallback
from transfer_learning.data.batch import as_floats
from transfer_learning.utilities.validation import validated

FEWEST_BATCHES = 3


@validated
class Throughput(RunEndCallback):
    """Adds two results to the run: `images_per_second` and `megabytes`.

    `images_per_second` is that of the whole network, frozen part and head, in evaluation mode and in the precision of
    the run: validation images, uint8 on the device, become logits. It is the median over three batches or more, after
    a first one that is not measured. On several devices, the first one is measured.

    `megabytes` are the parameters and buffers of the whole network as they are stored in memory (10^6 bytes): 4 bytes a
    number, unless the precision is one of `16-true`, `bf16-true` and `64-true`.

    Args:
        batch_size: images of a batch; images are repeated if the validation has fewer.
        seconds: how long to measure, at least.
    """

    def __init__(self, batch_size: Annotated[int, Field(ge=1)] = 32, seconds: PositiveFloat = 2.0):
        self.batch_size, self.seconds = batch_size, seconds

    def on_run_end(self, trainer: Any, model: Any, best_epoch: int) -> dict[str, float]:
        if not trainer.is_global_zero:
            return {}
        rows = np.resize(trainer.datamodule.splits["val"], self.batch_size)
        stored = [*model.network.parameters(), *model.network.buffers()]
        before, device = model.device, trainer.strategy.root_device  # Lightning moves a fitted model to the CPU
        model.to(device)
        pixels = torch.from_numpy(trainer.datamodule.pixels[rows]).to(device)
        speed = self.batch_size / statistics.median(self._batch_seconds(trainer, model, pixels))
        model.to(before)
        return {
            "images_per_second": speed,
            "megabytes": sum(each.numel() * each.element_size() for each in stored) / 1e6,
        }

    @torch.inference_mode()
    def _batch_seconds(self, trainer: Any, model: Any, pixels: torch.Tensor) -> list[float]:
        """The seconds of each measured batch; `pixels` (N, H, W, 3) uint8 on the device of the model."""
        found: list[float] = []
        start = time.perf_counter()
        while len(found) < 1 + FEWEST_BATCHES or sum(found[1:]) < self.seconds:
            with trainer.precision_plugin.forward_context():
                model.logits(as_floats(pixels)).cpu()  # the copy waits for the device
            found.append(time.perf_counter() - start)
            start += found[-1]
        return found[1:]
