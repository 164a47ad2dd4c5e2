"""The LightningDataModule: decodes a source's images once, splits them and hands out batches."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pydantic import Field, NonNegativeInt
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DataLoader, DistributedSampler

from transfer_learning.data.augmentation import Augmentation, Step
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.balance import balanced_draw, balanced_weights
from transfer_learning.data.batch import Batch, SplitDataset, as_it_is, prepare
from transfer_learning.data.cache import cache_errors
from transfer_learning.data.digests import FileDigests
from transfer_learning.data.duplicates import duplicates
from transfer_learning.data.exclusions import excluded_images
from transfer_learning.data.features import Features, FrozenPart, compute_features
from transfer_learning.data.folds import check_fold, cross_validation, subset
from transfer_learning.data.images import Source
from transfer_learning.data.preprocessing import Preprocessing, stored_pixels
from transfer_learning.data.splits import SplitStrategy, check_kept_splits, divide, keeps_splits, with_training_split
from transfer_learning.data.summary import log_classes, log_given_splits, log_images_left_out, log_left_out, log_shapes
from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.validation import PathArgument, Seed, validated


@validated
class ImageDataModule(pl.LightningDataModule):
    """Labelled images, decoded once, split, and handed out in batches.

    Without a trainer: `setup()`, then `train_dataloader()`; `on_after_batch_transfer` makes the input of a network.

    Args:
        source, split, preprocessing: list the images, divide them, and turn them into pixels.
        augmentation: one step or several; None is `Affine()`, the tutorial's.
        augment: whether training images are augmented, differently in each epoch.
        balance: "sampler" shows training images of each class equally often, with replacement, in epochs of unchanged
            length; "weights" sets `class_weights`, for the losses of the training images.
        folds, fold: the number of folds of a cross-validation over the images for training and validation, and the one
            that validates; 0 folds are none.
        train_share, share_seed: the share of each class's training images that is used, and the seed of their choice.
        views: with `augment`, K > 0 samples K versions of each image once, to store their features; an epoch shows one.
        view_seed, order_seed: of the views; of each epoch's order, and of its augmentation or choice of views.
        batch_size: images of a training batch over all devices together, of another batch on each device.
        drop_duplicates: whether all but one of images with the same bytes are left out (see `duplicates`).
        cache_dir: the folder of decoded images, features and file digests.
        exclude: a CSV file of images to leave out, such as an audit.csv (see `exclusions`); None leaves out none.

    Attributes (after `setup`; all but `readable` and `pixels` after `list_images` already):
        images: the M images that the source lists; `labels` and `class_names` are theirs.
        readable: indices of those that could be decoded and are not excluded, int64.
        pixels: of all M images, (M, H, W, 3) uint8, memory-mapped; black if they could not be decoded.
        splits: "train", "val", "test" -> indices into `images`.
        features: split -> `Features`, for splits of which features are handed out.
    """

    def __init__(
        self,
        source: Source,
        split: SplitStrategy,
        preprocessing: Preprocessing | None = None,
        augmentation: Step | Sequence[Step] | None = None,
        augment: bool = False,
        balance: Literal["none", "sampler", "weights"] = "none",
        folds: NonNegativeInt = 0,
        fold: NonNegativeInt = 0,
        train_share: Annotated[float, Field(gt=0, le=1)] = 1.0,
        share_seed: Seed = 0,
        views: NonNegativeInt = 0,
        view_seed: NonNegativeInt = 0,
        order_seed: Seed = 0,
        batch_size: Annotated[int, Field(ge=1)] = 30,
        drop_duplicates: bool = True,
        cache_dir: PathArgument = "outputs/cache",
        exclude: PathArgument | None = None,
    ):
        super().__init__()
        if views and not augment:
            raise ArgumentError("views", views, "views are augmented images, so augment=true is needed.")
        check_fold(folds, fold)
        self.folds, self.fold, self.train_share, self.share_seed = folds, fold, train_share, share_seed
        self.source, self.split, self.preprocessing = source, split, preprocessing or Preprocessing()
        steps: Any = Affine() if augmentation is None else augmentation
        self.augmentation = Augmentation(steps if isinstance(steps, Sequence) else [steps])
        if augment and not self.augmentation.steps:
            raise ArgumentError("augment", augment, "there is no augmentation step; expected at least one.")
        self.augment, self.views, self.view_seed, self.order_seed = augment, views, view_seed, order_seed
        self.balance, self.exclude, self.drop_duplicates = balance, exclude, drop_duplicates
        self.batch_size, self.cache_dir, self.features = batch_size, cache_dir, dict[str, Features]()

    def list_images(self) -> None:
        """Lists and splits the images, once, before any is decoded. Raises UserError as the source and the split do."""
        if hasattr(self, "splits"):
            return
        with cache_errors(self.cache_dir):
            self.images = with_training_split(self.source.list_images(FileDigests(self.cache_dir)))
        self.labels, self.class_names = self.images.labels, self.images.class_names
        self.augmentation.num_classes = len(self.class_names)
        self._keeps_splits = keeps_splits(self.split, self.images)
        log_given_splits(self.images.splits or (), "they are kept" if self._keeps_splits else "all are split anew")
        self._excluded = excluded_images(self.images, self.exclude)
        kept = ("test",) if self.folds else ("val", "test")  # folds divide the validation images anew
        self._kept_splits = kept if self._keeps_splits else ()
        candidates = self._indices_without(self._excluded)
        found = duplicates(self.images, candidates, self._kept_splits) if self.drop_duplicates else {}
        unused = self._excluded | found
        log_images_left_out(self.images, unused)
        self._used = self._indices_without(unused)
        self.splits = self._split()

    def setup(self, stage: str | None = None) -> None:
        """Lists, splits and decodes the images, once. Raises UserError as `list_images` and the cache do."""
        if hasattr(self, "pixels"):
            return
        self.list_images()
        settings = self.preprocessing, self.cache_dir, type(self.source).__name__
        pixels, unreadable = stored_pixels(self.images, *settings, left_out=self._excluded)
        self.readable = self._indices_without([*self._excluded, *unreadable])
        if lost := [index for index in self._used if index in unreadable]:
            names = [f"{self.images.names[index]} ({unreadable[index]})" for index in lost]
            log_left_out({"not readable as an image": names})
            self._used = np.setdiff1d(self._used, lost)
            self.splits = self._split()
        self.pixels = pixels
        log_classes(self.class_names, self.labels, self.splits, len(self._used))
        log_shapes(self.class_names, self.labels, self.splits, self.pixels)

    def _indices_without(self, left_out: Collection[int]) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.labels), dtype=np.int64), list(left_out))

    def _split(self) -> dict[str, np.ndarray]:
        """The splits of the images that are used."""
        if self._keeps_splits:
            check_kept_splits(self.images, self._used, ("train", *self._kept_splits))
        splits = divide(self.split, self.images, self._used)
        splits = cross_validation(self.images, splits, self.folds, self.fold)
        return {**splits, "train": subset(self.images, splits["train"], self.train_share, self.share_seed)}

    def store_features(self, frozen_part: FrozenPart | None, splits: Sequence[str] = ("train", "val", "test")) -> None:
        """From now on hands out stored features of the splits, but images if they are freshly augmented in each epoch.

        None hands out images again. Raises UserError as `setup` and `compute_features` do.
        """
        self.setup()
        self.features = {}
        if frozen_part is None:
            return
        key, folder, steps = asdict(self.preprocessing), self.cache_dir, self.augmentation
        for split in splits:
            augmented = split == "train" and self.augment
            views = [self.view(number) for number in range(self.views)] if augmented else [()]
            if views:
                self.features[split] = compute_features(
                    frozen_part, self.pixels, self.images.digests, self.splits[split], views, steps, key, folder
                )

    @property
    def training_size(self) -> int:
        """Side of training images in pixels, after augmentation."""
        size = self.preprocessing.image_size
        return self.augmentation.image_size(size) if self.augment else size

    def view(self, number: int) -> tuple[np.ndarray, ...]:
        """The augmentation parameters of all M images in a view: a function of (view_seed, number, image)."""
        return self.augmentation.sample(len(self.labels), self.view_seed, number)

    def draw(self, epoch: int) -> np.ndarray:
        """The training images that an epoch shows, (N,) int64 positions, if classes are sampled equally often."""
        generator = np.random.default_rng((self.order_seed, epoch, 0, 1))  # (seed, epoch, 2) is the augmentation's
        return balanced_draw(self.labels[self.splits["train"]], generator)

    @property
    def class_weights(self) -> list[float] | None:
        """C factors of the training losses, as `Classifier` takes them; None without `balance="weights"`."""
        weights = balanced_weights(self.labels[self.splits["train"]], len(self.class_names))
        return weights.tolist() if self.balance == "weights" else None

    def chosen_views(self, epoch: int) -> np.ndarray:
        """The view of each training image that an epoch shows, (N,) int64 in [0, views)."""
        return np.random.default_rng((self.order_seed, epoch, 1)).integers(self.views, size=len(self.splits["train"]))

    def augmentation_parameters(self, epoch: int) -> tuple[np.ndarray, ...]:
        """For each step the parameters of each training image that an epoch shows, (N, K) float32."""
        rows = self.splits["train"]
        rows = rows[self.draw(epoch)] if self.balance == "sampler" else rows
        if not self.views:
            return self.augmentation.sample(len(rows), self.order_seed, epoch)
        views, chosen = [self.view(number) for number in range(self.views)], self.chosen_views(epoch)
        return tuple(np.stack(step)[chosen, rows] for step in zip(*views))

    def check_batch_size(self, devices: int) -> None:
        """Raises ArgumentError if training batches cannot be divided among the devices, or filled."""
        count = len(self.splits["train"])
        if self.batch_size % devices or (self.batch_size > count and self.train_share == 1):
            shared = f"a multiple of the {devices} devices, " if devices > 1 else ""
            raise ArgumentError("batch_size", self.batch_size, f"expected {shared}at most the {count} training images.")

    def train_dataloader(self) -> DataLoader:
        self.check_batch_size(self._world[0])
        # The sampler adds the epoch to its seed; a hash keeps neighbouring seeds from sharing orders.
        seed = int(np.random.SeedSequence(self.order_seed).generate_state(1)[0])
        return self._loader("train", self.batch_size // self._world[0], DistributedSampler, shuffle=True, seed=seed)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", self.batch_size, UnrepeatedDistributedSampler, shuffle=False)

    def test_dataloader(self) -> DataLoader:
        return self._loader("test", self.batch_size, UnrepeatedDistributedSampler, shuffle=False)

    def _loader(self, split: str, batch_size: int, sampler: type[DistributedSampler], **settings) -> DataLoader:
        """Divides a split among the devices. Lightning keeps distributed samplers and tells them the epoch."""
        indices, features, (world_size, rank) = self.splits[split], self.features.get(split), self._world
        augmented = split == "train" and self.augment
        dataset = SplitDataset(
            array=features.array if features else self.pixels,
            rows=features.rows if features else indices[None],
            indices=indices,
            labels=self.labels[indices],
            sample=self.augmentation_parameters if augmented and not features else None,
            choose=self.chosen_views if augmented and features else None,
            draw=self.draw if split == "train" and self.balance == "sampler" else None,
            is_features=features is not None,
            device=self._device_for_all_splits(),
        )
        dataset.sampler = sampler(dataset, num_replicas=world_size, rank=rank, **settings)
        pin = dataset.device is None and self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(dataset, batch_size, sampler=dataset.sampler, collate_fn=as_it_is, pin_memory=pin)

    def _device_for_all_splits(self) -> torch.device | None:
        """The GPU of this process if all splits fit into half of its free memory; the network needs the rest."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type != "cuda":
            return None
        images = {split: Features(self.pixels, indices[None]) for split, indices in self.splits.items()}
        size = sum(array[0].nbytes * rows.size for array, rows in (images | self.features).values())
        return device if size <= torch.cuda.mem_get_info(device)[0] / 2 else None

    @property
    def _world(self) -> tuple[int, int]:
        """The number of devices, and the rank of this process's device."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        """uint8 images -> floats in [0, 1], augmented if the batch has parameters: on the device."""
        return prepare(batch, self.augmentation)
