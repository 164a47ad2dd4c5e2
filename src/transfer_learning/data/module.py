"""The LightningDataModule: owns the split and the augmentation, hands out batches."""

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from transfer_learning.data.augment import augment, draw
from transfer_learning.data.decode import INTERPOLATIONS, decode
from transfer_learning.data.files import Images, find_images
from transfer_learning.data.split import distinct, split
from transfer_learning.data.stored import stored
from transfer_learning.errors import UserError

# Batches are slices of an array in memory: worker processes would only copy them.
warnings.filterwarnings("ignore", ".*does not have many workers.*")


class Batch(NamedTuple):
    """
    Attributes:
        images: (N, H, W, 3) uint8 from the loader; (N, 3, H, W) float32 in [0, 1], channels-last, once on the device.
        labels: (N,) int64 class codes.
        draws: (N, 7) float32, each image's augmentation (`augment.draw`), or None.
    """

    images: torch.Tensor
    labels: torch.Tensor
    draws: torch.Tensor | None


class Part(Dataset):
    """One part of the split. A list of positions becomes one batch: one indexing operation, no Python for each image.

    Args:
        pixels: (M, H, W, 3) uint8, all images.
        labels: (M,) int64.
        rows: this part's images, (N,) indices into `pixels`.
        draw: epoch -> (N, 7) float32 augmentation draws; None leaves images as they are.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, rows: np.ndarray, draw: Callable[[int], np.ndarray] | None = None):
        self.pixels, self.labels, self.rows = pixels, labels, rows
        self.draw = draw and lru_cache(maxsize=1)(draw)
        self.sampler: DistributedSampler | None = None  # where the epoch is known

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        rows = self.rows[positions]
        return Batch(
            images=torch.from_numpy(np.asarray(self.pixels[rows])),
            labels=torch.from_numpy(self.labels[rows]),
            draws=torch.from_numpy(self.draw(self.sampler.epoch)[positions]) if self.draw else None,
        )


class ImageData(pl.LightningDataModule, ABC):
    """Labelled images, decoded once, split, and handed out in batches. A source is a subclass with its own `find`.

    Without a trainer: `setup()`, then `train_dataloader()`; `on_after_batch_transfer` makes a batch of it that a model takes.

    Args:
        image_size: side in pixels to which images are stretched.
        batch_size: images of a training step over all devices together.
        augment: whether training images are augmented, anew for each image and epoch.
        augmentation: the ranges, as keyword arguments of `augment.draw`; None is the tutorial's.
        train_per_class, val_per_class, test_per_class: whole numbers are counts, fractions are shares of the class.
        seed: of the split.
        order_seed: of the order and the augmentation of each epoch.
        interpolation: "bilinear" (antialiased) or "nearest".
        cache_dir: where decoded images lie.

    Attributes (after `setup`):
        class_names: C names.
        pixels: (M, H, W, 3) uint8, every image found.
        parts: "train", "val", "test" -> indices into `pixels`.

    Raises:
        UserError: from `setup`, what `find`, `stored` and `split` raise.
    """

    def __init__(
        self,
        image_size: int = 150,
        batch_size: int = 30,
        augment: bool = False,
        augmentation: Mapping[str, float] | None = None,
        train_per_class: int | float = 1500,
        val_per_class: int | float = 500,
        test_per_class: int | float = 500,
        seed: int = 0,
        order_seed: int = 0,
        interpolation: str = "bilinear",
        cache_dir: str | Path = "outputs/cache",
    ):
        super().__init__()
        for name, value, least in (
            ("image_size", image_size, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("order_seed", order_seed, 0),
        ):
            if type(value) is not int or value < least:
                raise UserError(f"data.{name}={value}: expected a whole number of at least {least}.")
        if type(augment) is not bool:  # "no" would be true
            raise UserError(f"data.augment={augment}: expected true or false.")
        if interpolation not in INTERPOLATIONS:
            raise UserError(f"data.interpolation={interpolation}: expected one of {', '.join(INTERPOLATIONS)}.")
        self.image_size = image_size
        self.batch_size = batch_size
        self.augment = augment
        self.augmentation = dict(augmentation or {})
        self.per_class = {"train": train_per_class, "val": val_per_class, "test": test_per_class}
        self.seed = seed
        self.order_seed = order_seed
        self.interpolation = interpolation
        self.cache_dir = cache_dir
        self.pixels = None

    @abstractmethod
    def find(self) -> Images:
        """Lists the source's images."""

    def setup(self, stage: str | None = None) -> None:
        if self.pixels is not None:
            return
        images = self.find()
        key = {
            "what": f"pixels-{self.image_size}-{self.interpolation}",
            "images": hashlib.sha256("\n".join(images.digests).encode()).hexdigest(),
        }
        encode = partial(decode, images, self.image_size, self.interpolation)
        self.pixels, broken = stored(range(len(images.names)), encode, key, self.cache_dir)
        for index, reason in broken.items():
            rank_zero_info(f"{images.names[index]}: left out, not readable as an image ({reason})")

        whole = np.array([index for index in range(len(images.names)) if index not in broken], dtype=np.int64)
        chosen = whole[distinct(images.labels[whole], [images.digests[index] for index in whole])]
        for index in sorted(set(whole) - set(chosen)):
            rank_zero_info(f"{images.names[index]}: left out, byte for byte another image of the folder")
        self.class_names = images.class_names
        self.labels = images.labels
        parts = split(images.labels[chosen], [images.digests[index] for index in chosen], images.class_names, self.per_class, self.seed)
        self.parts = {part: chosen[indices] for part, indices in parts.items()}
        self._print_counts()

    def _print_counts(self) -> None:
        counts = {part: np.bincount(self.labels[rows], minlength=len(self.class_names)) for part, rows in self.parts.items()}
        for code, name in enumerate(self.class_names):
            rank_zero_info(f"{name} datasets: " + " ".join(f"({count[code]},)" for count in counts.values()) + " train, val, test")
        for part, rows in self.parts.items():
            rank_zero_info(f"{part} dataset shape: {(len(rows), *self.pixels.shape[1:])} {self.pixels.dtype}")
        shown = self.labels[np.random.default_rng(self.seed).choice(self.parts["train"], 5)].tolist()
        rank_zero_info(f"five labels: {[self.class_names[code] for code in shown]} -> {shown}")

    def draws(self, count: int, epoch: int) -> np.ndarray:
        """(count, 7) float32: the augmentation of the first `count` training images in an epoch."""
        return draw(count, self.order_seed, epoch, **self.augmentation)

    def train_dataloader(self) -> DataLoader:
        rows = self.parts["train"]
        world_size, _ = self._devices
        if self.batch_size % world_size or self.batch_size > len(rows):
            raise UserError(
                f"data.batch_size={self.batch_size}: expected a multiple of the {world_size} devices, "
                f"at most the {len(rows)} training images."
            )
        part = Part(self.pixels, self.labels, rows, partial(self.draws, len(rows)) if self.augment else None)
        # The sampler adds the epoch to its seed: neighbouring seeds must not share their orders.
        seed = int(np.random.SeedSequence(self.order_seed).generate_state(1)[0])
        return self._loader(part, self.batch_size // world_size, DistributedSampler, shuffle=True, seed=seed)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation("test")

    def _evaluation(self, part: str) -> DataLoader:
        rows = Part(self.pixels, self.labels, self.parts[part])
        return self._loader(rows, self.batch_size, UnrepeatedDistributedSampler, shuffle=False)  # no image counts twice

    def _loader(self, part: Part, batch_size: int, sampler: type[DistributedSampler], **settings) -> DataLoader:
        """Shares a part out over the devices. Lightning leaves distributed samplers in place and tells them the epoch."""
        world_size, rank = self._devices
        part.sampler = sampler(part, num_replicas=world_size, rank=rank, **settings)
        return DataLoader(part, batch_size, sampler=part.sampler, collate_fn=_as_it_is, pin_memory=torch.cuda.is_available())

    @property
    def _devices(self) -> tuple[int, int]:
        """(how many, which of them this process serves)."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        """uint8 rows -> floats in [0, 1], augmented where the batch carries draws: on the device."""
        images = batch.images.permute(0, 3, 1, 2).float().div_(255)  # stored as (N, H, W, 3), so this is channels-last without a copy
        if batch.draws is not None:
            images = augment(images, batch.draws).contiguous(memory_format=torch.channels_last)
        return batch._replace(images=images)


class ImageFolder(ImageData):
    """Any folder of class folders, or of files named like `cat.1.jpg`; two classes or more (`files.find_images`).

    Args:
        root: the folder.
        settings: keyword arguments of `ImageData`.
    """

    def __init__(self, root: str | Path, **settings):
        super().__init__(**settings)
        self.root = root

    def find(self) -> Images:
        return find_images(self.root)


def _as_it_is(batch: Batch) -> Batch:
    return batch
