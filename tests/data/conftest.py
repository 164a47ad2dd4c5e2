"""A folder of small images, and what the tests of the data module share."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from transfer_learning.cli.build import build_data
from transfer_learning.cli.project import PROJECT
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.sources.folder import Folder


@pytest.fixture
def folder(tmp_path, write_image) -> Path:
    """Two classes of 12 images each, of several sizes."""
    for seed in range(24):
        write_image(tmp_path / "photographs" / "ab"[seed % 2] / f"{seed}.png", seed, size=(20 + seed, 30))
    return tmp_path / "photographs"


@pytest.fixture
def folder_data(folder, data_module):
    """folder_data(per_class, **settings): the images of `folder` at 16 x 16, set up."""

    def make(per_class=(6, 3, 3), **settings) -> ImageDataModule:
        return data_module(Folder(folder), per_class, **dict(image_size=16, batch_size=5) | settings)

    return make


@pytest.fixture
def inputs_of():
    """inputs_of(data, split, epoch): the prepared inputs of an epoch in the split's own order, (N, ...)."""

    def read(data: ImageDataModule, split: str, epoch: int = 0) -> torch.Tensor:
        loader = getattr(data, f"{split}_dataloader")()
        loader.sampler.set_epoch(epoch)
        positions = list(loader.sampler)
        inputs = torch.cat([data.on_after_batch_transfer(batch).inputs for batch in loader])
        return torch.empty_like(inputs).index_copy(0, torch.tensor(positions), inputs)

    return read


@pytest.fixture
def composed_data():
    """composed_data(*overrides): the data module that conf/ describes with these overrides."""

    def make(*overrides: str) -> ImageDataModule:
        with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
            return build_data(compose("config", list(overrides)))

    return make
