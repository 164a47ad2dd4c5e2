"""The LightningDataModule: owns the split and the augmentation, hands out batches."""

import hashlib
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader, DistributedSampler

from transfer_learning.data.augment import augment, draw
from transfer_learning.data.batch import Batch, Part, to_rows
from transfer_learning.data.decode import INTERPOLATIONS, decode
from transfer_learning.data.files import Images, find_images
from transfer_learning.data.split import distinct, split
from transfer_learning.data.stored import stored
from transfer_learning.errors import UserError

# Batches are slices of an array in memory: worker processes would only copy them.
warnings.filterwarnings("ignore", ".*does not have many workers.*")

ENCODED_TOGETHER = 32  # images that pass a frozen part at once: VGG16's first maps at 224 pixels are then 410 MB


class ImageData(pl.LightningDataModule, ABC):
    """Labelled images, decoded once, split, and handed out in batches. A source is a subclass with its own `find`.

    Without a trainer: `setup()`, then `train_dataloader()`; `on_after_batch_transfer` makes a batch of it that a model takes.

    Args:
        image_size: side in pixels to which images are stretched.
        batch_size: images of a training step over all devices together.
        augment: whether training images are augmented, anew for each image and epoch.
        augmentation: the ranges, as keyword arguments of `augment.draw`; None is the tutorial's.
        views: with `augment`, K > 0 draws K versions of each training image once, to be encoded once; an epoch shows one of them.
        train_per_class, val_per_class, test_per_class: whole numbers are counts, fractions are shares of the class.
        seed: of the split and of the views.
        order_seed: of each epoch's order and augmentation, or choice of views.
        interpolation: "bilinear" (antialiased) or "nearest".
        cache_dir: where decoded and encoded images lie.

    Attributes (after `setup`):
        class_names: C names.
        images: every image found.
        pixels: (M, H, W, 3) uint8, of every one of them.
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
        views: int = 0,
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
            ("views", views, 0),
            ("seed", seed, 0),
            ("order_seed", order_seed, 0),
        ):
            if type(value) is not int or value < least:
                raise UserError(f"data.{name}={value}: expected a whole number of at least {least}.")
        if type(augment) is not bool:  # "no" would be true
            raise UserError(f"data.augment={augment}: expected true or false.")
        if views and not augment:
            raise UserError(f"data.views={views}: views are augmented images, so it needs data.augment=true.")
        if interpolation not in INTERPOLATIONS:
            raise UserError(f"data.interpolation={interpolation}: expected one of {', '.join(INTERPOLATIONS)}.")
        self.image_size = image_size
        self.batch_size = batch_size
        self.augment = augment
        self.augmentation = dict(augmentation or {})
        self.views = views
        self.per_class = {"train": train_per_class, "val": val_per_class, "test": test_per_class}
        self.seed = seed
        self.order_seed = order_seed
        self.interpolation = interpolation
        self.cache_dir = cache_dir
        self.pixels = None
        self.encoded = {}

    @abstractmethod
    def find(self) -> Images:
        """Lists the source's images."""

    def setup(self, stage: str | None = None) -> None:
        if self.pixels is not None:
            return
        images = self.images = self.find()
        key = {
            "what": f"pixels-{self.image_size}-{self.interpolation}",
            "images": hashlib.sha256("\n".join(images.digests).encode()).hexdigest(),
        }
        encode = partial(decode, images, self.image_size, self.interpolation)
        self.pixels, broken = stored(range(len(images.names)), encode, key, self.cache_dir)
        self.pixels_key = key
        for index, reason in broken.items():
            rank_zero_info(f"{images.names[index]}: left out, not readable as an image ({reason})")

        whole = np.array([index for index in range(len(images.names)) if index not in broken], dtype=np.int64)
        chosen = whole[distinct(images.labels[whole], [images.digests[index] for index in whole])]
        for index in sorted(set(whole) - set(chosen)):
            rank_zero_info(f"{images.names[index]}: left out, byte for byte another image of the folder")
        self.class_names = images.class_names
        self.labels = images.labels
        parts = split(
            images.labels[chosen],
            [images.digests[index] for index in chosen],
            images.class_names,
            self.per_class,
            self.seed,
        )
        self.parts = {part: chosen[indices] for part, indices in parts.items()}
        self._print_counts()

    def _print_counts(self) -> None:
        counts = {
            part: np.bincount(self.labels[rows], minlength=len(self.class_names)) for part, rows in self.parts.items()
        }
        for code, name in enumerate(self.class_names):
            rank_zero_info(
                f"{name} datasets: " + " ".join(f"({count[code]},)" for count in counts.values()) + " train, val, test"
            )
        for part, rows in self.parts.items():
            rank_zero_info(f"{part} dataset shape: {(len(rows), *self.pixels.shape[1:])} {self.pixels.dtype}")
        shown = self.labels[np.random.default_rng(self.seed).choice(self.parts["train"], 5)].tolist()
        rank_zero_info(f"five labels: {[self.class_names[code] for code in shown]} -> {shown}")

    def encode_once(self, encode: Callable[[Batch], torch.Tensor], key: Mapping | None) -> None:
        """From now on hands out what `encode` makes of the images, wherever they are the same in every epoch: computed once, and stored.

        Args:
            encode: a batch as the loader has it -> (N, …) float, on any device: a network's frozen part.
            key: plain values, all that the outputs of `encode` depend on besides the images; None ends it.

        Raises:
            UserError: what `setup` and `stored` raise.
        """
        self.setup()
        self.encoded = {}
        for part in self.parts if key else ():
            views = range(self.views) if part == "train" and self.augment else [None]
            if versions := [self._encoded(encode, key, part, view) for view in views]:
                self.encoded[part] = versions

    def _encoded(
        self, encode: Callable[[Batch], torch.Tensor], key: Mapping, part: str, view: int | None
    ) -> np.ndarray:
        """(N, …): a part's encoded images, as they are or in one of their views."""
        rows, name = self.parts[part], f"outputs-{part}" if view is None else f"outputs-{part}-view{view}"
        draws = None if view is None else torch.from_numpy(self.view(view))

        def encode_rows(rows: np.ndarray) -> tuple[np.ndarray, dict]:
            outputs = []
            for start in range(0, len(rows), ENCODED_TOGETHER):
                some = rows[start : start + ENCODED_TOGETHER]
                pixels, labels = torch.from_numpy(np.asarray(self.pixels[some])), torch.from_numpy(self.labels[some])
                outputs.append(encode(Batch(pixels, labels, None if draws is None else draws[some], encoded=False)))
            return to_rows(torch.cat(outputs)), {}

        about = {"what": name, "pixels": self.pixels_key, "rows": hashlib.sha256(rows.tobytes()).hexdigest()}
        if view is not None:
            about["draws"] = hashlib.sha256(draws.numpy().tobytes() + inspect.getsource(augment).encode()).hexdigest()
        return stored(rows, encode_rows, about | dict(key), self.cache_dir)[0]

    def view(self, number: int) -> np.ndarray:
        """(M, 7) float32: the draws of every image's view of that number, a function of (seed, image, number)."""
        return draw(len(self.pixels), self.seed, number, **self.augmentation)

    def choices(self, epoch: int) -> np.ndarray:
        """(N,) int64 in [0, views): the view that each training image has in an epoch."""
        return np.random.default_rng((self.order_seed, epoch, 1)).integers(self.views, size=len(self.parts["train"]))

    def draws(self, epoch: int) -> np.ndarray:
        """(N, 7) float32: the augmentation of each training image in an epoch."""
        rows = self.parts["train"]
        if self.views:
            return np.stack([self.view(number) for number in range(self.views)])[self.choices(epoch), rows]
        return draw(len(rows), self.order_seed, epoch, **self.augmentation)

    def train_dataloader(self) -> DataLoader:
        rows = self.parts["train"]
        world_size, _ = self._devices
        if self.batch_size % world_size or self.batch_size > len(rows):
            raise UserError(
                f"data.batch_size={self.batch_size}: expected a multiple of the {world_size} devices, "
                f"at most the {len(rows)} training images."
            )
        part = self._part("train")
        # The sampler adds the epoch to its seed: neighbouring seeds must not share their orders.
        seed = int(np.random.SeedSequence(self.order_seed).generate_state(1)[0])
        return self._loader(part, self.batch_size // world_size, DistributedSampler, shuffle=True, seed=seed)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation("test")

    def _evaluation(self, part: str) -> DataLoader:
        return self._loader(
            self._part(part), self.batch_size, UnrepeatedDistributedSampler, shuffle=False
        )  # no image counts twice

    def _part(self, name: str) -> Part:
        rows, augmented, encoded = self.parts[name], name == "train" and self.augment, name in self.encoded
        return Part(
            self.encoded.get(name, [self.pixels]),
            np.arange(len(rows)) if encoded else rows,
            self.labels[rows],
            draw=self.draws if augmented and not encoded else None,
            choose=self.choices if augmented and encoded else None,
            encoded=encoded,
            device=self._home,
        )

    @property
    def _home(self) -> torch.device | None:
        """The GPU that this process serves, if all parts take at most half of what is free there: the rest is for the network."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type != "cuda":
            return None
        arrays = {part: self.encoded.get(part, [self.pixels]) for part in self.parts}
        size = sum(array[0].nbytes * len(self.parts[part]) for part, versions in arrays.items() for array in versions)
        return device if size <= torch.cuda.mem_get_info(device)[0] / 2 else None

    def _loader(self, part: Part, batch_size: int, sampler: type[DistributedSampler], **settings) -> DataLoader:
        """Shares a part out over the devices. Lightning leaves distributed samplers in place and tells them the epoch."""
        world_size, rank = self._devices
        part.sampler = sampler(part, num_replicas=world_size, rank=rank, **settings)
        pin = torch.cuda.is_available() and part.device is None
        return DataLoader(part, batch_size, sampler=part.sampler, collate_fn=_as_it_is, pin_memory=pin)

    @property
    def _devices(self) -> tuple[int, int]:
        """(how many, which of them this process serves)."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        """uint8 images -> floats in [0, 1], augmented where the batch carries draws: on the device."""
        if batch.encoded:
            return batch
        images = (
            batch.x.permute(0, 3, 1, 2).float().div_(255)
        )  # stored as (N, H, W, 3), so this is channels-last without a copy
        if batch.draws is not None:
            images = augment(images, batch.draws).contiguous(memory_format=torch.channels_last)
        return batch._replace(x=images)


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
