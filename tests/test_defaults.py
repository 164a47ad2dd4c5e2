"""Defaults in Python and in conf/ are the same, so that a notebook and the command do the same."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from transfer_learning.callbacks.ema import EMA
from transfer_learning.callbacks.throughput import Throughput
from transfer_learning.cli import resolvers
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.augmentation.color_jitter import ColorJitter
from transfer_learning.data.augmentation.horizontal_flip import HorizontalFlip
from transfer_learning.data.augmentation.rand_augment import RandAugment
from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.cartoons import Cartoons
from transfer_learning.data.sources.dogs_vs_cats import DogsVsCats
from transfer_learning.data.sources.folder import Folder
from transfer_learning.data.sources.table import Table
from transfer_learning.data.splits import Given, GivenOrPerClass, PerClass
from transfer_learning.engine.objective import CrossEntropy
from transfer_learning.models.cnn import CNN
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.models.resnet import SmallResNet
from transfer_learning.optim.rmsprop import RMSprop
from transfer_learning.optim.schedules import Cosine, OneCycle

TABLE = {"table", "file_column", "label_column"}  # arguments without a default
CONF = resolvers.PROJECT / "conf"
OBJECTS = {"source", "split", "augmentation", "preprocessing"}  # arguments that are objects
GIVEN = {"num_classes", "image_size", "params", "sha256"}  # by the program: the data, the optimizer, a checkpoint


@pytest.fixture
def composed(monkeypatch):
    """composed(*overrides): the config that the command composes, resolved; a value that is missing is "???"."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)

    def make(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", list(overrides), return_hydra_config=True)
        cfg.hydra.runtime.output_dir = "run"
        HydraConfig.instance().set_config(cfg)
        return OmegaConf.to_container(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), resolve=True)

    return make


def defaults(function: Callable) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: "???" if each.default is each.empty else each.default for each in parameters}


def same(default: Any, value: Any) -> bool:
    if isinstance(default, tuple):
        return list(default) == value
    if isinstance(value, str) and Path(value).is_absolute():  # the command line makes paths of the project absolute
        return Path(value).is_relative_to(resolvers.PROJECT) and resolvers.PROJECT / default == Path(value)
    return default == value and isinstance(default, bool) == isinstance(value, bool)


@pytest.mark.parametrize(
    "cls, overrides, group, left_out",
    [
        (CNN, ["model=basic_cnn"], "model", GIVEN),
        (Pretrained, ["model=pretrained"], "model", GIVEN),
        (SmallResNet, ["model=resnet_small"], "model", GIVEN),
        (RMSprop, ["optimizer=rmsprop"], "optimizer", GIVEN),
        (Cosine, ["scheduler=cosine"], "scheduler", set()),
        (EMA, [], "callbacks.ema", set()),
        (CrossEntropy, [], "objective", set()),
        (Affine, [], "data.augmentation.affine", set()),
        (OneCycle, ["scheduler=one_cycle"], "scheduler", set()),
        (ColorJitter, ["data/augmentation=color_jitter"], "data.augmentation.color_jitter", set()),
        (HorizontalFlip, ["data/augmentation=horizontal_flip"], "data.augmentation.horizontal_flip", set()),
        (RandAugment, ["data/augmentation=rand_augment"], "data.augmentation.rand_augment", set()),
        (RandomResizedCrop, ["data/augmentation=random_resized_crop"], "data.augmentation.random_resized_crop", set()),
        (Throughput, ["callbacks=throughput"], "callbacks.throughput", set()),
        (Affine, [], "data.augmentation.affine", set()),
        (OneCycle, ["scheduler=one_cycle"], "scheduler", set()),
        (Cartoons, ["data=cartoons"], "data", set()),
        (DogsVsCats, ["data=dogs_vs_cats"], "data", set()),
        (Folder, ["data=image_folder"], "data", set()),
        (Table, ["data=table", "data.table=t", "data.file_column=f", "data.label_column=l"], "data", TABLE),
        (PerClass, ["data=image_folder"], "data", set()),
        (Given, ["data=image_folder", "data/split=folders"], "data", set()),
        (Preprocessing, [], "data", set()),
        (ImageDataModule, [], "data", OBJECTS),
    ],
)
def test_defaults_of_a_class_are_those_of_the_config(composed, cls, overrides, group, left_out):
    node: Any = composed(*overrides)
    for name in group.split("."):
        node = node[name]
    expected = {name: value for name, value in defaults(cls).items() if name not in left_out}
    assert expected.keys() <= node.keys()
    differing = {name: (value, node[name]) for name, value in expected.items() if not same(value, node[name])}
    assert not differing
    if group != "data":
        assert {name for name in node if name[0] != "_"} == set(expected)


def test_each_key_of_the_data_is_an_argument_of_a_class(composed):
    for data, classes in {
        "cartoons": [Cartoons, PerClass],
        "dogs_vs_cats": [DogsVsCats, GivenOrPerClass],
        "image_folder": [Folder, GivenOrPerClass],
        "table": [Table, GivenOrPerClass],
    }.items():
        arguments = {name for cls in [*classes, Preprocessing, ImageDataModule] for name in defaults(cls)}
        assert set(composed(f"data={data}")["data"]) == arguments - {"preprocessing"}


@pytest.mark.parametrize("experiment", ["quickstart", "scratch"])
def test_a_short_run_has_images_for_a_batch(composed, experiment):
    data = composed(f"experiment={experiment}", "debug=short")["data"]
    assert data["batch_size"] <= 2 * data["train_per_class"]  # cats and dogs
