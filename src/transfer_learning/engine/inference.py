"""Predictions for any images, with the preprocessing and in the precision of the training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info
from tqdm import tqdm

from transfer_learning.data.batch import as_floats
from transfer_learning.data.cache import Remarks
from transfer_learning.data.depth import narrow
from transfer_learning.data.images import Images, unlabelled
from transfer_learning.data.preprocessing import Preprocessing, decode
from transfer_learning.models.network import num_logits
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.hardware import accelerator_errors, check_gpu, memory_format
from transfer_learning.utilities.text import some

BATCH_SIZE = 32  # images that pass the network together
CHUNK = 256  # images that are decoded together
TRUE_PRECISIONS = {"16-true": torch.float16, "bf16-true": torch.bfloat16, "64-true": torch.float64}
Tta = Literal["flip", None]  # test-time augmentation
Input = str | Path | Image.Image | np.ndarray


class Predicted(NamedTuple):
    """Predictions for N images."""

    names: list[str]  # files, or "image 0" ...
    classes: list[str]  # of each image the name of the most probable class
    probabilities: np.ndarray  # (N, C) float32 in [0, 1]


class Chunk(NamedTuple):
    """Predictions for M of the images."""

    indices: list[int]  # of the images that could be read, in order
    probabilities: np.ndarray  # (M, C) float32 in [0, 1]
    unreadable: dict[int, str]  # index of each of the other images -> the reason


class Inference:
    """A trained model on a device, in the precision of its training.

    Args:
        model: a `Classifier`. It is moved to the device, and stays there.
        accelerator: Lightning's name: "cpu", "gpu", "mps", or "auto" for the GPU where there is one.
        tta: "flip" averages the probabilities of each image and its mirror image, in twice the time.
    """

    def __init__(self, model: Any, accelerator: str = "auto", tta: Tta = None):
        if tta not in get_args(Tta):
            raise ArgumentError("tta", tta, f"expected one of {', '.join(map(repr, get_args(Tta)))}.")
        self.tta = tta
        with accelerator_errors(accelerator):
            self.fabric = Fabric(accelerator=accelerator, devices=1, precision=model.trained_precision or "32-true")
        check_gpu(self.fabric.device)
        self.model = model.eval().to(self.fabric.device, TRUE_PRECISIONS.get(model.trained_precision))
        self.model.network.to(memory_format=memory_format(self.fabric.device))

    @torch.inference_mode()
    def logits(self, pixels: np.ndarray) -> torch.Tensor:
        """(N, H, W, 3) uint8 -> logits (N, 1) or (N, C) float32, on the CPU."""
        found = []
        for start in range(0, len(pixels), BATCH_SIZE):
            batch = torch.from_numpy(pixels[start : start + BATCH_SIZE]).to(self.fabric.device)
            with self.fabric.autocast():
                found.append(self.model.logits(as_floats(batch)))
        return torch.cat(found).cpu() if found else torch.zeros(0, num_logits(len(self.model.class_names)))

    def versions(self, pixels: np.ndarray) -> list[torch.Tensor]:
        """(N, H, W, 3) uint8 -> the logits of each version of the images whose probabilities are averaged."""
        return [self.logits(pixels), *([self.logits(pixels[:, :, ::-1].copy())] if self.tta else [])]

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 -> (N, C) float32 in [0, 1]."""
        found = [self.model.probabilities(logits) for logits in self.versions(pixels)]
        return (found[0] if len(found) == 1 else torch.stack(found).mean(dim=0)).numpy()


def predict(
    models: Sequence[Any], images: Iterable[Input] | Input, accelerator: str = "auto", tta: Tta = None
) -> Predicted:
    """Classifies images of any size. Several models with the same classes are an ensemble: the mean of probabilities.

    `tta` is that of `Inference`.

    Raises:
        UserError: an image that cannot be read; models of different classes.
    """
    if isinstance(images, Input):
        images = [images]
    listed, found = unlabelled(images), []
    for chunk in predict_chunks(models, listed, accelerator, tta):
        for index, reason in chunk.unreadable.items():
            raise UserError(f"{listed.names[index]}: not readable as an image ({reason}).")
        found.append(chunk.probabilities)
    names = models[0].class_names
    probabilities = np.concatenate([np.zeros((0, len(names)), np.float32), *found])
    return Predicted(list(listed.names), [names[code] for code in probabilities.argmax(axis=1)], probabilities)


def predict_chunks(
    models: Sequence[Any], images: Images, accelerator: str = "auto", tta: Tta = None
) -> Iterator[Chunk]:
    """Predictions of one or several models, chunk by chunk. Raises UserError for models of different classes."""
    for model in models:
        if model.class_names != models[0].class_names:
            own, other = models[0].class_names, model.class_names
            what = "the same classes in different orders" if set(own) == set(other) else "different classes"
            raise UserError(f"the models have {what}: {some(own, 20)} and {some(other, 20)}.")
    running = [Inference(model, accelerator, tta) for model in models]
    for indices, pixels, unreadable in pixel_chunks(images, [model.preprocessing for model in models]):
        found = [each.probabilities(pixels[each.model.preprocessing]) for each in running]
        yield Chunk(indices, np.mean(found, axis=0), unreadable)


def pixel_chunks(
    images: Images, settings: Sequence[Preprocessing]
) -> Iterator[tuple[list[int], dict[Preprocessing, np.ndarray], dict[int, str]]]:
    """Decodes images chunk by chunk, each chunk while the one before is in use.

    Yields the indices of the M images that could be read, for each preprocessing their pixels, (M, H, W, 3) uint8, and
    the index of each of the other images -> the reason.
    """
    indices = list(range(len(images.names)))
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]

    def decoded(chunk: list[int]) -> dict[Preprocessing, tuple[np.ndarray, Remarks]]:
        return {each: decode(images, each, chunk) for each in dict.fromkeys(settings)}

    ranges: dict[str, Sequence[float]] = {}
    bar = tqdm(total=len(indices), unit="image", leave=False, disable=None)
    with bar, ThreadPoolExecutor(1) as pool:
        following = [pool.submit(decoded, chunk) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks, 1):
            found = following.pop().result()
            following = [pool.submit(decoded, each) for each in chunks[number : number + 1]]
            reasons = {n: reason for _, remarks in found.values() for n, reason in remarks["unreadable"].items()}
            of_chunk = {n: each for _, remarks in found.values() for n, each in remarks["range"].items()}
            ranges |= {images.names[chunk[n]]: each for n, each in of_chunk.items() if n not in reasons}
            read = [position for position in range(len(chunk)) if position not in reasons]
            pixels = {each: rows[read] for each, (rows, _) in found.items()}
            bar.update(len(chunk))
            yield [chunk[n] for n in read], pixels, {chunk[n]: reason for n, reason in reasons.items()}
    report_narrow(ranges, settings)


def report_narrow(ranges: Mapping[str, Sequence[float]], settings: Sequence[Preprocessing]) -> None:
    """Logs one line if a preprocessing without a choice of depth makes images nearly black, or nearly of one colour.

    `ranges` are those of `narrow`.
    """
    wrong = narrow(ranges, together=False)
    if wrong and any(each.depth is None for each in settings):
        rank_zero_info(f"{wrong}: dark or of little contrast for a model that was trained without a choice of depth")
